"""Image tokenizer: images ↔ grids of codes, a VQGAN trained by similarity and by a discriminator."""

import sys
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo.core.device import send
from zoo.core.optim import OptimizerOptions, adamw, training_steps, warmup_cosine
from zoo.core.task import Task
from zoo.data.images import to_pixels
from zoo.errors import UserError, invalid
from zoo.registry import IMAGE_TOKENIZERS
from zoo.tasks.image_tokenizer.contracts import ImageBatch
from zoo.tasks.image_tokenizer.evaluation import DEFAULTS, ReconstructionEvaluation, ReconstructionEvaluationOptions
from zoo.tasks.image_tokenizer.loss import adaptive_weight, hinge_loss, laplacian_loss
from zoo.tasks.image_tokenizer.lpips import find_vgg, load_lpips

DISCRIMINATOR_WEIGHT = 0.8  # of its opinion, once that pulls as hard at the last layer as the reconstruction does


ADAMW = OptimizerOptions(weight_decay=0.0, betas=(0.5, 0.9), eps=1e-8)


class ImageTokenizerTask(Task):
    """A VQGAN: the image tokenizer of an autoregressive generator, which learns its codes.

    Training lowers the reconstruction's absolute error and perceptual distance, and the codebook's loss; later it also
    has to pass for true before a discriminator that learns beside it. Codes that no image uses any more are put where
    images are. ``ReconstructionEvaluation`` scores what comes out. Texts are not read.

    Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (2020), arXiv:2012.09841.

    Args:
        image_tokenizer: A registered VQGAN, or a built one.
        image_tokenizer_options: Arguments of its builder.
        image_size: Side of the square images in pixels.
        init_from: Weights to start from: a checkpoint of this zoo, a run's folder, or a file of taming-transformers.
        learning_rate: Peak learning rate of AdamW, of both networks.
        optimizer: How AdamW goes, beside its peak learning rate.
        perceptual: ``lpips``; ``laplacian``, the absolute error of edges of all sizes, which needs no weights; or
            ``auto``: LPIPS where VGG-16 lies in torch's cache, else the other, and says so.
        discriminator_start: The batch, from 0, with which the discriminator begins; null: there is none.
        discriminator_width: Channels of its first layer.
        discriminator_layers: Its layers that halve the image.
        restart_after: Batches after which a code that no image uses is put where one is.
        evaluation: What is scored during training and at test, and which checkpoint is the best.

    Raises:
        UserError: The VQGAN cannot be built as it is asked for, or a number is out of its range.
    """

    scaled_losses = False  # of two optimisers

    def __init__(
        self,
        image_tokenizer: str | nn.Module,
        *,
        image_tokenizer_options: dict[str, Any] | None = None,
        image_size: int = 256,
        init_from: str | None = None,
        learning_rate: float = 1e-4,
        optimizer: OptimizerOptions = ADAMW,
        perceptual: Literal["auto", "lpips", "laplacian"] = "auto",
        discriminator_start: int | None = 10_000,
        discriminator_width: int = 64,
        discriminator_layers: int = 3,
        restart_after: int = 200,
        evaluation: ReconstructionEvaluationOptions = DEFAULTS,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("discriminator_start", discriminator_start, 0),
            ("discriminator_width", discriminator_width, 1),
            ("restart_after", restart_after, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{name} is {value}: give {least} or more")
        if perceptual not in ("auto", "lpips", "laplacian"):
            raise UserError(f"perceptual is {perceptual!r}: give auto, lpips or laplacian")
        self.automatic_optimization = False  # two optimisers
        modules = ["image_tokenizer"] if isinstance(image_tokenizer, nn.Module) else []
        self.save_hyperparameters(ignore=modules, logger=False)
        self.take_options("optimizer", OptimizerOptions)
        self.take_options("evaluation", ReconstructionEvaluationOptions)
        self.image_tokenizer: Any = IMAGE_TOKENIZERS.build_or_take(
            "image_tokenizer", image_tokenizer, image_tokenizer_options
        )
        if getattr(self.image_tokenizer, "num_codes", None) is None:
            raise UserError(f"image_tokenizer: {type(self.image_tokenizer).__name__} has no codes: it is no VQGAN")
        if image_size < 1 or image_size % self.image_tokenizer.factor:
            raise invalid("image_size", image_size, f"this VQGAN takes multiples of {self.image_tokenizer.factor}")
        if discriminator_layers < 1 or image_size < 3 * 2**discriminator_layers:
            raise invalid(
                "discriminator_layers",
                discriminator_layers,
                f"give 1 or more, of which each halves the image; of {image_size} px they must leave 3 or more",
            )
        self.image_size = image_size
        from taming.modules.discriminator.model import NLayerDiscriminator, weights_init

        self.discriminator = NLayerDiscriminator(ndf=discriminator_width, n_layers=discriminator_layers)
        self.discriminator.apply(weights_init)
        self.idle: Tensor
        self.counts: Tensor
        self.register_buffer("idle", torch.zeros(self.image_tokenizer.num_codes, dtype=torch.int64))  # batches unused
        self.register_buffer("counts", torch.zeros(self.image_tokenizer.num_codes, dtype=torch.int64))  # of this epoch
        self._lpips: list[Any] = []  # a list, for it is no part of this task's weights

    def idle_options(self) -> dict[str, str]:
        """Name the options that have no effect beside the others; see the base class."""
        idle, start = super().idle_options(), self.hparams["discriminator_start"]
        if start is None or start >= self.trainer.estimated_stepping_batches:
            why = "it is never asked" if start is None else f"it would begin at step {start}, when training has ended"
            idle |= {f"model.discriminator_{name}": f"there is no discriminator: {why}" for name in ("width", "layers")}
        if start is not None and start >= self.trainer.estimated_stepping_batches:
            idle["model.discriminator_start"] = "training has ended by then"
        return idle

    def own_callbacks(self) -> list[Callback]:
        """Make the task's evaluation."""
        return [ReconstructionEvaluation(self.hparams["evaluation"])]

    # --- training ----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Find the perceptual distance; read initial weights before a new training."""
        super().setup(stage)
        if stage != "fit":
            return
        if isinstance(self.trainer.strategy, DDPStrategy):  # each of the two optimisers leaves the other's alone
            self.trainer.strategy._ddp_kwargs["find_unused_parameters"] = True
        wanted = self.hparams["perceptual"]
        if wanted == "lpips" or (wanted == "auto" and find_vgg() is not None):
            self._lpips = [load_lpips()]
        elif wanted == "auto" and self.trainer.is_global_zero:
            print("No LPIPS, for torch's cache has no VGG-16: the Laplacian pyramid stands in for it", file=sys.stderr)

    def on_fit_start(self) -> None:
        """See that this can be trained here.

        Raises:
            UserError: The codebook is of the published Gumbel kind, or the precision cannot do two optimisers.
        """
        if not hasattr(self.image_tokenizer.quantize, "replace"):
            raise UserError("image_tokenizer: a Gumbel codebook is read, not trained: take vqgan_f16, or another one")
        if self.trainer.precision == "16-mixed":
            raise UserError("trainer.precision is 16-mixed, which scales one optimiser's losses: give bf16-mixed or 32")

    def on_train_batch_start(self, batch: ImageBatch, batch_idx: int) -> None:
        """Seed the step; count the use of codes anew in each epoch."""
        super().on_train_batch_start(batch, batch_idx)
        if batch_idx == 0:
            self.counts.zero_()

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """The discriminator's step, once it has begun; then the VQGAN's."""
        optimizer: Any = self.optimizers()[0]  # type: ignore[index]
        discriminator_optimizer: Any = self.optimizers(use_pl_optimizer=False)[1]  # type: ignore[index]
        scheduler, discriminator_scheduler = self.lr_schedulers()  # type: ignore[misc]
        pixels = to_pixels(batch["image"])
        reconstruction, codes, codebook_loss, latents = self.image_tokenizer(pixels)
        similarity = self._similarity(reconstruction, pixels)
        loss = similarity + codebook_loss
        losses = {"likeness": similarity, "codebook": codebook_loss}
        if self._adversarial:
            losses["discriminator"] = self._train_discriminator(
                discriminator_optimizer, pixels, reconstruction.detach()
            )
            self.discriminator.requires_grad_(False)
            opinion = -self.discriminator(reconstruction).float().mean()
            losses["adversarial_weight"] = self._adversarial_weight(similarity, opinion)
            loss = loss + losses["adversarial_weight"] * opinion
            discriminator_scheduler.step()
        self.manual_backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        self.discriminator.requires_grad_(True)
        scheduler.step()
        self._keep_in_use(codes, latents)
        self.log_dict({f"train/{name}": value.detach() for name, value in {"loss": loss, **losses}.items()})

    @property
    def _adversarial(self) -> bool:
        start = self.hparams["discriminator_start"]
        return start is not None and self.global_step >= start

    def _similarity(self, reconstruction: Tensor, pixels: Tensor) -> Tensor:
        error = (reconstruction.float() - pixels).abs().mean()
        if self._lpips:
            self._lpips[0].to(pixels.device)
            perceptual = self._lpips[0](reconstruction, pixels).float().mean()
        else:
            perceptual = laplacian_loss(reconstruction, pixels)
        return error + perceptual

    def _train_discriminator(self, optimizer: Any, pixels: Tensor, reconstruction: Tensor) -> Tensor:
        """One step, which is not counted: ``trainer.global_step`` stays the number of batches."""
        loss = hinge_loss(self.discriminator(pixels), self.discriminator(reconstruction))
        self.manual_backward(loss)
        self.trainer.strategy.optimizer_step(optimizer, lambda: None, model=self)  # tells callbacks that a step begins
        optimizer.zero_grad()
        return loss

    def _adversarial_weight(self, similarity: Tensor, opinion: Tensor) -> Tensor:
        """The same on all processes: of the gradients of the whole batch."""
        last = self.image_tokenizer.last_layer
        gradients = [torch.autograd.grad(loss, last, retain_graph=True)[0].float() for loss in (similarity, opinion)]
        gradients = [self.trainer.strategy.reduce(gradient, reduce_op="mean") for gradient in gradients]
        return DISCRIMINATOR_WEIGHT * adaptive_weight(*gradients)

    @torch.no_grad()
    def _keep_in_use(self, codes: Tensor, latents: Tensor) -> None:
        """Count which codes were used, on all processes; put those that are idle too long where images are.

        Nothing here asks a GPU which, or how many, they are: it would be waited for at every step.
        """
        used = torch.zeros_like(self.counts)
        used.scatter_add_(0, codes.flatten(), torch.ones_like(codes).flatten())
        used = self.trainer.strategy.reduce(used, reduce_op="sum")
        self.counts += used
        self.idle = torch.where(used > 0, 0, self.idle + 1)
        rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        gathered: Any = self.all_gather(rows)  # those of all processes
        rows = gathered.reshape(-1, latents.shape[1])
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.global_step))
        late = self.idle >= self.hparams["restart_after"]  # [K]
        turn = late.cumsum(dim=0) - 1  # of each late code among them
        late &= turn < len(rows)
        chosen = rows[send(order, rows.device)[turn.clamp(0, len(rows) - 1)]]  # [K, D]
        self.image_tokenizer.quantize.replace(late, chosen)
        self.idle = torch.where(late, 0, self.idle)

    def on_train_epoch_end(self) -> None:
        """Log the share of the codebook that the epoch used, in percent."""
        super().on_train_epoch_end()
        self.log("train/codebook_usage", 100 * (self.counts > 0).float().mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW for each network; from its own beginning warm-up, then cosine to zero, a batch at a time."""
        total = training_steps(self.trainer)
        starts = (0, self.hparams["discriminator_start"] or 0)
        rate, options = self.hparams["learning_rate"], self.hparams["optimizer"]
        optimizers = [adamw(network, rate, options) for network in (self.image_tokenizer, self.discriminator)]
        warmup = self.hparams["optimizer"].warmup_steps
        schedulers = [
            warmup_cosine(optimizer, warmup, max(1, total - start))
            for optimizer, start in zip(optimizers, starts, strict=True)
        ]
        return optimizers, schedulers

    # --- evaluation --------------------------------------------------------------------------------------------

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Reconstruct a batch: ``images [B, 3, S, S] uint8`` and the ``codes [B, h, w] int64`` between."""
        codes = self.image_tokenizer.encode(batch["image"])
        return {"images": self.image_tokenizer.decode(codes), "codes": codes}

    test_step = validation_step

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """There is nothing to submit.

        Raises:
            UserError: Always; it names what writes codes.
        """
        raise UserError("an image tokenizer predicts nothing; `python -m zoo data encode` writes the images' codes")
