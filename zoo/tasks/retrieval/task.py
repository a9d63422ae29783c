"""Text-to-image retrieval: two towers, one embedding space (CLIP, Radford et al. 2021, arXiv:2103.00020)."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from zoo.core.contracts import asked
from zoo.core.inputs import as_images, as_texts
from zoo.core.optim import OptimizerOptions, layer_rates
from zoo.core.sharding import average_gradients, clip_gradients, is_sharded, shard_towers
from zoo.core.task import Task
from zoo.errors import invalid
from zoo.models.lora import merged
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS
from zoo.tasks.retrieval.contracts import PairBatch
from zoo.tasks.retrieval.distillation import DistillationOptions, TeacherEmbeddings, teacher_embeddings
from zoo.tasks.retrieval.evaluation import DEFAULTS, RetrievalEvaluation, RetrievalEvaluationOptions
from zoo.tasks.retrieval.finetuning import FinetuningOptions, check, prepare_tower
from zoo.tasks.retrieval.losses.functional import MAX_LOGIT_SCALE
from zoo.tasks.retrieval.registry import LOSSES
from zoo.tasks.retrieval.submission import RetrievalSubmission

ADAMW = OptimizerOptions(weight_decay=1e-3, betas=(0.9, 0.98), eps=1e-6)
FINETUNING = FinetuningOptions()
NO_TEACHER = DistillationOptions()


class RetrievalTask(Task):
    """An image tower and a text tower, trained to put a Chinese query beside its images.

    Training: a contrastive loss over the pairs of all processes; two rows of one image or of one query are not each
    other's negatives, nor is an image that a query names elsewhere in the data. Evaluation: embeddings and ids, which
    ``RetrievalEvaluation`` turns into Recall@k.

    Args:
        image_tower: A name that ``python -m zoo list`` shows, ``timm:NAME``, …; or a built module.
        text_tower: A registered text tower, ``transformers:NAME``, or a built module.
        image_tower_options: Arguments of the image tower's builder.
        text_tower_options: Arguments of the text tower's builder.
        image_pretrained: Published weights of the image tower: ``auto`` takes them from cache or hub and otherwise
            starts at random and says so; ``true`` fails without them; ``false`` starts at random; a file; or a run,
            whose image tower it takes.
        text_pretrained: The same of the text tower.
        init_from: Weights of the whole task to start from; wins over the towers' ``pretrained``. A checkpoint or a run
            of this zoo; a ``.pt`` of CN-CLIP; a published model in a folder or on the Hugging Face hub
            (``OFA-Sys/chinese-clip-vit-base-patch16``; behind ``auto:`` only where it can be had). Position embeddings
            follow the image size. Neither optimiser nor progress of training is taken: for that, see ``--ckpt_path``.
        embedding_dim: Width of the shared space. None: the towers' outputs are in it already, and nothing is learnt
            behind them.
        dimensions: Numbers of leading dimensions that are to be embeddings by themselves: the loss is the mean over
            those and the whole (Matryoshka, Kusupati et al. 2022, arXiv:2205.13147), and recall is measured by each.
        image_projection_bias: Whether the image projection has a bias, as that of Chinese CLIP's ResNet-50 has.
        learning_rate: Peak learning rate of AdamW.
        optimizer: How AdamW goes, beside its peak learning rate.
        loss: A registered loss (``softmax``, CLIP's; ``sigmoid``, SigLIP's), or a module.
        loss_options: Arguments of the loss's builder (``temperature``, ``label_smoothing``, …).
        chunk_size: Pairs that the towers encode at a time, and once more on the way back: a step takes the memory of so
            many, and the time of a forward pass more (GradCache, Gao et al. 2021, arXiv:2101.06983). None: the whole
            batch at once. Batch norms must be frozen.
        gradient_checkpointing: Whether the towers keep only the inputs of their blocks, and compute the rest again. Not
            for towers whose batch norms train.
        compile_towers: Whether ``torch.compile`` makes kernels of the towers' networks; their first steps take minutes.
        finetuning: What of the towers is trained, and how far from their initial weights.
        distillation: Whether it also learns to embed as a larger model does.
        evaluation: What is scored during training and at test, and which checkpoint is the best.

    Raises:
        UserError: A tower cannot be built as it is asked for, or a number is out of its range.
    """

    def __init__(
        self,
        image_tower: str | nn.Module = "vit_base_patch16_clip_quickgelu_224",
        text_tower: str | nn.Module = "chinese_roberta_wwm_ext",
        *,
        image_tower_options: dict[str, Any] | None = None,
        text_tower_options: dict[str, Any] | None = None,
        image_pretrained: Literal["auto"] | bool | str = "auto",
        text_pretrained: Literal["auto"] | bool | str = "auto",
        init_from: str | None = None,
        embedding_dim: int | None = 512,
        dimensions: Sequence[int] = (),
        image_projection_bias: bool = False,
        learning_rate: float = 5e-5,
        optimizer: OptimizerOptions = ADAMW,
        loss: str | nn.Module = "softmax",
        loss_options: dict[str, Any] | None = None,
        chunk_size: int | None = None,
        gradient_checkpointing: bool = False,
        compile_towers: bool = False,
        finetuning: FinetuningOptions = FINETUNING,
        distillation: DistillationOptions = NO_TEACHER,
        evaluation: RetrievalEvaluationOptions = DEFAULTS,
    ) -> None:
        super().__init__()
        parts = {"image_tower": image_tower, "text_tower": text_tower, "loss": loss}
        modules = [name for name, part in parts.items() if isinstance(part, nn.Module)]
        self.save_hyperparameters(ignore=modules, logger=False)
        self.take_options("optimizer", OptimizerOptions)
        self.take_options("evaluation", RetrievalEvaluationOptions)
        self.take_options("finetuning", FinetuningOptions)
        self.distillation = self.take_options("distillation", DistillationOptions)
        self._teacher: TeacherEmbeddings | None = None
        self._teacher_axes: Tensor | None = None
        chunks = chunk_size is None or chunk_size >= 1
        check("chunk_size", chunk_size, chunks, "1 pair or more, or null for the whole batch")
        given = embedding_dim is None or embedding_dim >= 1
        check("embedding_dim", embedding_dim, given, "1 or more, or null for the towers' own width")
        self.loss: Any = LOSSES.build_or_take("loss", loss, loss_options)
        self.image_tower = IMAGE_TOWERS.build_or_take("image_tower", image_tower, image_tower_options)
        self.text_tower = TEXT_TOWERS.build_or_take("text_tower", text_tower, text_tower_options)
        if hasattr(self.text_tower, "share"):  # one model reads both sides
            self.text_tower.share(self.image_tower)
        self.image_projection, self.text_projection = self._projections(embedding_dim, image_projection_bias)
        fit = len(set(dimensions)) == len(dimensions) and all(0 < count < self.embedding_dim for count in dimensions)
        check("dimensions", list(dimensions), fit, f"each once, from 1 to {self.embedding_dim - 1}, or none")
        self._kept_in_evaluation: list[nn.Module] = []
        for side, tower in self._towers():
            self._kept_in_evaluation += prepare_tower(tower, side, self.hparams)

    def _projections(self, embedding_dim: int | None, image_bias: bool) -> tuple[nn.Module, nn.Module]:
        """Make what maps the towers' outputs into the shared space; its width is ``embedding_dim``."""
        widths = self.image_tower.width, self.text_tower.width
        self.embedding_dim: int = embedding_dim or widths[0]
        if embedding_dim is None:
            if widths[0] != widths[1]:
                raise invalid(
                    "embedding_dim", None, f"the towers' widths, {widths[0]} and {widths[1]}, differ: give one"
                )
            return nn.Identity(), nn.Identity()
        image, text = (
            nn.Linear(width, embedding_dim, bias=bias) for width, bias in zip(widths, (image_bias, False), strict=True)
        )
        for projection in (image, text):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        if image_bias:
            nn.init.zeros_(image.bias)
        return image, text

    def _towers(self) -> list[tuple[str, Any]]:
        """List the towers that have weights, each with its side."""
        towers = [("image", self.image_tower), ("text", self.text_tower)]
        return towers[:1] if hasattr(self.text_tower, "share") else towers

    def train(self, mode: bool = True) -> "RetrievalTask":
        """Set training or evaluation mode; what is frozen and would not keep still stays in evaluation mode."""
        super().train(mode)
        for module in self._kept_in_evaluation:
            module.eval()
        return self

    def idle_options(self) -> dict[str, str]:
        """Name the options that have no effect beside the others; see the base class."""
        idle = super().idle_options()
        size, batch_size = self.hparams["chunk_size"], getattr(self.trainer.datamodule, "batch_size", None)  # type: ignore[attr-defined]
        if size is not None and batch_size is not None and size >= batch_size:
            idle["model.chunk_size"] = f"a batch has {batch_size} pairs"
        if not any(parameter.requires_grad for _, tower in self._towers() for parameter in tower.parameters()):
            idle["model.gradient_checkpointing"] = "both towers are frozen"
        if hasattr(self.text_tower, "share") and self.hparams["finetuning"].text_trainable_layers is not None:
            idle["model.finetuning.text_trainable_layers"] = "the image tower reads the texts too"
        return idle

    @property
    def text_reader(self) -> Any:
        """The part that reads the training texts; see the base class."""
        return self.text_tower

    def own_callbacks(self) -> list[Callback]:
        """Make the task's evaluation and submission."""
        return [RetrievalEvaluation(self.hparams["evaluation"]), RetrievalSubmission()]

    @property
    def image_size(self) -> int:
        """Side of the square images that the image tower reads, in pixels."""
        return self.image_tower.image_size

    @property
    def prepare_image(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """How a published model makes a square of an image; None: images are resized to one."""
        return getattr(self.image_tower, "prepare_image", None)

    # --- embeddings --------------------------------------------------------------------------------------------

    def encode_image(self, images: Tensor | list[Image]) -> Tensor:
        """Embed B images as unit vectors ``[B, D]``; B may be 0.

        Args:
            images: ``[B, 3, H, W] uint8``, or a list of any size: PIL images, uint8 arrays ``[H, W, 3]``, paths.
        """
        if not isinstance(images, Tensor):
            images = as_images(images)
        if len(images) == 0:
            return self._no_embeddings()
        if not isinstance(images, Tensor):
            images = self.image_tower.preprocess(images).to(self.device)
        return normalize(self.image_projection(self.image_tower(images)).float(), dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed B texts as unit vectors ``[B, D]``; B may be 0.

        Args:
            texts: A list, a numpy array or a table's column of strings.
        """
        texts = as_texts(texts)
        if not texts:
            return self._no_embeddings()
        return normalize(self.text_projection(self.text_tower(texts)).float(), dim=-1)

    def _no_embeddings(self) -> Tensor:
        return torch.empty(0, self.embedding_dim, device=self.device)

    # --- training ----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Read initial weights before a new training, and compile the towers where that is asked for."""
        super().setup(stage)
        if stage == "fit" and self.hparams["compile_towers"]:
            for _, tower in self._towers():
                asked(tower, "compile_network", "compile_towers")()

    def configure_model(self) -> None:
        """Share out the towers where the trainer's strategy asks for it (``_overlays/fsdp.yaml``)."""
        shard_towers(self, self._towers())

    def on_after_backward(self) -> None:
        """Average over the processes what is not sharded."""
        if is_sharded(self):
            average_gradients(self)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip what is sharded and what is not together."""
        if is_sharded(self) and gradient_clip_val:
            clip_gradients(self, gradient_clip_val, gradient_clip_algorithm or "norm")
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def pretrained_parts(self) -> dict[str, tuple[str, nn.Module]]:
        """Name the towers, which may start from published weights."""
        return {f"{side}_tower": (f"{side}_pretrained", tower) for side, tower in self._towers()}

    def on_fit_start(self) -> None:
        """Have the teacher embed what is trained on, where there is one."""
        if self.distillation.teacher is not None:
            found = self.distillation.teacher, self.embedding_dim, self._teacher_axes
            self._teacher = teacher_embeddings(self.trainer, *found)

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Compute the loss of the pairs of all processes."""
        texts = self._in_chunks(self.encode_text, batch["text"])  # [B, D]; first: a GPU is at the last step meanwhile
        images = self._in_chunks(self.encode_image, batch["image"])
        loss = self._gathered_loss(images, texts, batch)
        self.log("train/loss", loss, prog_bar=True, sync_dist=self.loss.sharded)
        if hasattr(self.loss, "logit_scale"):
            self.log("train/logit_scale", self.loss.logit_scale.exp())
        if self._teacher is None:
            return loss
        apart = self._teacher.loss(images, texts, batch)
        self.log("train/distillation", apart)
        return loss + self.distillation.weight * apart

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep also which dimensions of a teacher's are learnt, which another processor may compute otherwise."""
        super().on_save_checkpoint(checkpoint)
        if self._teacher is not None and self._teacher.axes is not None:
            checkpoint["teacher_axes"] = self._teacher.axes.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take those up."""
        super().on_load_checkpoint(checkpoint)
        self._teacher_axes = checkpoint.get("teacher_axes")

    @torch.no_grad()
    def collapsed_loss(self, batch: PairBatch) -> Tensor:
        """Compute what the loss of a batch would be if all embeddings were the same; on all processes together."""
        same = torch.ones(len(batch["text"]), 1, device=self.device)
        return self._gathered_loss(same, same, batch)

    def _gathered_loss(self, images: Tensor, texts: Tensor, batch: PairBatch) -> Tensor:
        """Compute the loss of this process's ``[B, D]`` among the pairs of all processes."""
        texts = self._gather(texts)  # [world · B, D]
        ids: dict[str, Any] = {
            "image_ids": self._gather(batch["image_id"]),
            "query_ids": self._gather(batch["query_id"]),
        }
        if "positives" in batch:
            ids["positives"] = self._gather(batch["positives"])
        if self.loss.sharded:
            return self._nested_loss(images, texts, first_row=self.global_rank * len(images), **ids)
        return self._nested_loss(self._gather(images), texts, **ids)

    def _nested_loss(self, images: Tensor, texts: Tensor, **options: Any) -> Tensor:
        """Compute the loss of whole embeddings; with ``dimensions`` the mean over them and their leading parts."""
        losses = [self.loss(images, texts, **options)]
        for count in self.hparams["dimensions"]:
            parts = (normalize(side[:, :count].float(), dim=-1) for side in (images, texts))
            losses.append(self.loss(*parts, **options))
        return torch.stack(losses).mean() if len(losses) > 1 else losses[0]

    def _in_chunks(self, encode: Callable[[Any], Tensor], values: Tensor | list[str]) -> Tensor:
        """Encode, ``chunk_size`` values at a time, with nothing kept of a chunk but its embeddings."""
        size = self.hparams["chunk_size"]
        if size is None or len(values) <= size:
            return encode(values)
        chunks = [values[start : start + size] for start in range(0, len(values), size)]
        # On the way back dropout falls as before: of those devices alone that checkpoint sees a tensor of.
        device = torch.empty(0, device=self.device)
        again = [checkpoint(lambda own, _: encode(own), chunk, device, use_reentrant=False) for chunk in chunks]
        return torch.cat(again)

    def _gather(self, values: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return values
        gathered: Any = self.all_gather(values, sync_grads=values.requires_grad)  # [world, B, …]
        return gathered.flatten(0, 1)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then keep the logit scale in [0, ln 100], before anything can be saved."""
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            if hasattr(self.loss, "logit_scale"):
                self.loss.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def learning_rates(self) -> dict[nn.Parameter, float]:
        """Give each layer of the towers its peak learning rate, where they differ (``layer_decay``)."""
        rates: dict[nn.Parameter, float] = {}
        decay = self.hparams["finetuning"].layer_decay
        if decay < 1:
            for _, tower in self._towers():
                layers = asked(tower, "layers", "finetuning.layer_decay")()
                rates |= layer_rates(layers, self.hparams["learning_rate"], decay)
        return rates

    # --- evaluation --------------------------------------------------------------------------------------------

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Embed a ``QueryBatch`` or an ``ImageBatch``: ``[B, D]``."""
        if "text" in batch:
            return self.encode_text(batch["text"])
        return self.encode_image(batch["image"])

    test_step = predict_step = validation_step

    def evaluation_loss(
        self, images: Tensor, texts: Tensor, image_ids: Tensor, query_ids: Tensor, *, block: int = 1024
    ) -> Tensor:
        """Compute the training loss of matched pairs ``[P, D]``, in ordered blocks, weighted by their sizes."""
        losses = [
            self._nested_loss(
                images[start : start + block],
                texts[start : start + block],
                image_ids=image_ids[start : start + block],
                query_ids=query_ids[start : start + block],
            )
            * len(images[start : start + block])
            for start in range(0, len(images), block)
        ]
        return torch.stack(losses).sum() / len(images)

    @staticmethod
    def plain_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Add the adapters of a checkpoint that was trained with some to the weights that they adapt."""
        options = checkpoint.get("hyper_parameters", {})
        finetuning = options.get("finetuning", {})
        if not finetuning.get("lora_rank"):
            return checkpoint
        state = merged(checkpoint["state_dict"], rank=finetuning["lora_rank"], alpha=finetuning["lora_alpha"])
        options = {**options, "finetuning": {**finetuning, "lora_rank": 0}}
        return {**checkpoint, "state_dict": state, "hyper_parameters": options}
