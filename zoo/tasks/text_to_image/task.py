"""Text to image: a generator, trained on prompts and their images, sampled by seeds."""

import hashlib
import sys
import time
from dataclasses import is_dataclass
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from zoo.core.checkpoint import load, load_part
from zoo.core.command import typed
from zoo.core.device import wait_for
from zoo.core.optim import OptimizerOptions
from zoo.core.options import idle_fields
from zoo.core.task import Task
from zoo.core.weights import load_pretrained, weights_hash
from zoo.data.images import resize_batch
from zoo.errors import UserError, invalid
from zoo.tasks.text_to_image.contracts import Generator, TextImageBatch
from zoo.tasks.text_to_image.evaluation import DEFAULTS, GenerationEvaluation, GenerationEvaluationOptions
from zoo.tasks.text_to_image.registry import GENERATORS
from zoo.tasks.text_to_image.submission import TextToImageSubmission

ADAMW = OptimizerOptions(weight_decay=0.01, betas=(0.9, 0.99), eps=1e-8)


class TextToImageTask(Task):
    """A generator of images from Chinese prompts.

    Training lowers the generator's own loss. Evaluation and prediction generate one image of each prompt, a function
    of the weights, the prompt, ``sample_seed`` and the prompt's place in its file alone; with ``candidates``
    several are generated and a reranker chooses. ``GenerationEvaluation`` scores them.

    Args:
        generator: A registered generator or a built module (``zoo.tasks.text_to_image.contracts.Generator``).
        generator_options: Arguments of the generator's builder.
        text_pretrained: Weights of the generator's text tower: ``auto`` (published ones from the cache or the hub, else
            random), true (an error without them), false, a file, or a run, whose text tower it takes.
        generator_pretrained: The same of a published pipeline, ``diffusers:NAME``.
        init_from: Weights of the whole task to start from: a checkpoint of this zoo or a run's folder. Neither
            optimiser nor place in training is taken: for that, see ``--ckpt_path``.
        learning_rate: Peak learning rate of AdamW.
        optimizer: How AdamW goes, beside its peak learning rate.
        sample_seed: Seed of the images that are generated.
        candidates: Images generated of each prompt, of which the reranker keeps the nearest to it.
        reranker: A retrieval checkpoint, a run's folder or published weights that chooses among the candidates. It
            cannot be the matcher that scores the images.
        evaluation: What is scored during training and at test, and which checkpoint is the best.

    Raises:
        UserError: The generator cannot be built as it is asked for, or candidates come without a reranker.
    """

    def __init__(
        self,
        generator: str | nn.Module,
        *,
        generator_options: dict[str, Any] | None = None,
        text_pretrained: Literal["auto"] | bool | str = "auto",
        generator_pretrained: Literal["auto"] | bool | str = "auto",
        init_from: str | None = None,
        learning_rate: float = 1e-4,
        optimizer: OptimizerOptions = ADAMW,
        sample_seed: int = 0,
        candidates: int = 1,
        reranker: str | None = None,
        evaluation: GenerationEvaluationOptions = DEFAULTS,
    ) -> None:
        super().__init__()
        if candidates < 1:
            raise invalid("candidates", candidates, "give 1 or more")
        if (candidates > 1) != (reranker is not None):
            raise UserError(
                f"candidates is {candidates} and reranker {reranker}: several candidates need a reranker that chooses"
                " among them, and a reranker needs several"
            )
        self.save_hyperparameters(ignore=["generator"] if isinstance(generator, nn.Module) else [], logger=False)
        self.take_options("optimizer", OptimizerOptions)
        self.take_options("evaluation", GenerationEvaluationOptions)
        self.generator: Any = GENERATORS.build_or_take("generator", generator, generator_options)
        if not isinstance(self.generator, Generator):
            lacking = [name for name in ("image_size", "loss", "generate") if not hasattr(self.generator, name)]
            raise UserError(
                f"generator: {type(self.generator).__name__} has no {', '.join(lacking)}: it is no Generator"
            )
        self._reranker: list[Any] = []  # a list, for it is no part of this task's weights

    def idle_options(self) -> dict[str, str]:
        """Name the options that have no effect beside the others; see the base class."""
        idle, sampling = super().idle_options(), getattr(self.generator, "options", None)
        if is_dataclass(sampling):
            idle |= idle_fields(sampling, "model.generator_options.sampling")
        return idle

    @property
    def text_reader(self) -> Any:
        """The part that reads the training texts; see the base class."""
        return getattr(self.generator, "text_tower", self.generator)

    def own_callbacks(self) -> list[Callback]:
        """Make the task's evaluation and submission."""
        return [GenerationEvaluation(self.hparams["evaluation"]), TextToImageSubmission()]

    @property
    def image_size(self) -> int:
        """Side of the square images that the generator generates and learns from, in pixels."""
        return self.generator.image_size

    # --- drawing -----------------------------------------------------------------------------------------------

    def generate(self, texts: list[str], rows: list[int]) -> Tensor:
        """Generate B images ``[B, 3, S, S] uint8``, those of these prompts at these places of their file."""
        images = self._sample(texts, rows, candidate=0)
        if self.hparams["candidates"] == 1:
            return images
        reranker = self.reranker()
        embedded = reranker.encode_text(texts)
        best = _similarity(reranker, images, embedded)
        for candidate in range(1, self.hparams["candidates"]):
            others = self._sample(texts, rows, candidate)
            similarity = _similarity(reranker, others, embedded)
            better = similarity > best
            images = torch.where(better[:, None, None, None], others, images)
            best = torch.where(better, similarity, best)
        return images

    def _sample(self, texts: list[str], rows: list[int], candidate: int) -> Tensor:
        seeds = [image_seed(self.hparams["sample_seed"], row, candidate) for row in rows]
        images = self.generator.generate(texts, seeds=seeds)
        wanted = (len(texts), 3, self.image_size, self.image_size)
        if images.dtype != torch.uint8 or images.shape != wanted:
            raise UserError(
                f"{type(self.generator).__name__}.generate gave {images.dtype} {list(images.shape)}; a Generator"
                f" gives torch.uint8 {list(wanted)}"
            )
        return images

    def reranker(self) -> Any:
        """The model that chooses among candidates, loaded when it is first asked for; None where there is none."""
        if self.hparams["reranker"] is not None and not self._reranker:
            try:
                self._reranker.append(load(self.hparams["reranker"], device=self.device))
            except UserError as error:
                raise UserError(f"model.reranker {error}") from None
            if not hasattr(self._reranker[0], "encode_text"):
                name = type(self._reranker.pop()).__name__
                raise UserError(f"model.reranker {self.hparams['reranker']}: it is of {name}, and retrieval is wanted")
        return self._reranker[0] if self._reranker else None

    @property
    def sampling(self) -> dict[str, Any]:
        """How images are sampled, for protocols: by what, the seed, the reranker's hash, the generator's own words."""
        reranker = self.reranker()
        return {
            "generator": self.hparams.get("generator", type(self.generator).__name__),
            "generator_options": self.hparams["generator_options"],
            "sample_seed": self.hparams["sample_seed"],
            "candidates": self.hparams["candidates"],
            "reranker": weights_hash(reranker) if reranker else None,
            **getattr(self.generator, "sampling", {}),
        }

    # --- training ----------------------------------------------------------------------------------------------

    def pretrained_parts(self) -> dict[str, tuple[str, nn.Module]]:
        """Name what may start from published weights: the text tower, or a generator that was published whole."""
        if self._published_whole:
            return {"generator": ("generator_pretrained", self.generator)}
        has_tower = hasattr(self.generator, "text_tower")
        return {"text_tower": ("text_pretrained", self.generator.text_tower)} if has_tower else {}

    @property
    def _published_whole(self) -> bool:
        return hasattr(self.generator, "load_published")

    def read_weights(self) -> None:
        """Read the weights to start from, those of the image tokenizer too, unless ``init_from`` brings them."""
        super().read_weights()
        if self._published_whole:
            return  # its image tokenizer among it
        if self.hparams["init_from"] is None and getattr(self.generator, "image_tokenizer", None) is not None:
            try:
                self.weights["image_tokenizer"] = self._read_image_tokenizer()
                if self.trainer.is_global_zero:
                    print(f"The image tokenizer: {self.weights['image_tokenizer']}", file=sys.stderr)
            except UserError as error:
                raise UserError(f"model.generator_options.image_tokenizer: {error}") from None
            standardises = hasattr(self.generator, "take_statistics")
            if standardises and self._latents is not None and not self._latents.are_codes:  # else it is refused below
                self.generator.take_statistics(self._latents.mean, self._latents.std)

    def _read_image_tokenizer(self) -> str:
        """Its trained weights into the generator's image tokenizer; where from."""
        tokenizer: Any = self.generator.image_tokenizer
        if tokenizer.num_codes is None:
            return load_pretrained(tokenizer, True).text
        if tokenizer.published is None:
            raise UserError(
                "its weights are not named: train one, python -m zoo fit --config experiments/vqgan_demo.yaml, and set"
                " model.generator_options.image_tokenizer_weights=runs/vqgan_demo"
            )
        return load_part(tokenizer, tokenizer.published, "image_tokenizer")

    @property
    def _latents(self) -> Any:
        """What the data module hands over instead of images, if it does."""
        return getattr(self.trainer.datamodule, "latents", None)  # type: ignore[attr-defined]

    def on_fit_start(self) -> None:
        """See that the latents, or codes, are those of the generator's image tokenizer, wherever its weights came from.

        Raises:
            UserError: They are not, or it learns latents and there are none, or it learns pixels.
        """
        tokenizer, latents = getattr(self.generator, "image_tokenizer", None), self._latents
        if tokenizer is None and latents is not None:
            raise UserError(f"data.latents is {latents.folder}, and this generator learns pixels: leave it out")
        if tokenizer is None or (latents is None and not hasattr(self.generator, "take_statistics")):
            return  # without a measured mean, codes or latents are made as they are needed
        if latents is None:
            name = self.hparams["generator_options"]["image_tokenizer"]
            options = ["--image_tokenizer", name, "--image_size", self.image_size]
            raise UserError(
                "this generator learns the latents of an image tokenizer, and data.latents names none: write them once"
                f" with `{typed('data', 'encode', 'ROOT', *options)}`, then set data.latents"
            )
        digest = weights_hash(tokenizer)
        if latents.metadata.weights != digest or latents.metadata.image_size != self.image_size:
            raise UserError(
                f"data.latents {latents.folder} were made by {latents.metadata.image_tokenizer} (weights"
                f" {latents.metadata.weights}) at {latents.metadata.image_size} px, and this generator has weights"
                f" {digest} at {self.image_size} px: encode the images again, or name the same ones"
            )

    def training_step(self, batch: TextImageBatch, batch_idx: int) -> dict[str, Tensor]:
        """The generator's losses; ``loss`` is the one that is lowered."""
        losses = self.generator.loss(batch)
        self.log_dict({f"train/{name}": value for name, value in losses.items()})
        return losses

    # --- evaluation --------------------------------------------------------------------------------------------

    def validation_step(self, batch: TextImageBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Generate the batch's prompts.

        Returns:
            ``images [B, 3, S, S] uint8``, the ``seconds`` that sampling took, and the ``loss`` of the true images.
        """
        rows = batch["row"].tolist()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(image_seed(0, rows[0]))  # the same noise in every evaluation
            loss = self.generator.loss(batch)["loss"]
        wait_for(self.device)  # else the loss is timed too
        started = time.perf_counter()
        images = self.generate(batch["text"], rows)
        wait_for(self.device)
        return {"images": images, "loss": loss, "seconds": time.perf_counter() - started}

    def test_step(self, batch: TextImageBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """As ``validation_step``; of a generator with an image tokenizer, ``reconstructions`` of true images too."""
        outputs = self.validation_step(batch, batch_idx, dataloader_idx)
        tokenizer = getattr(self.generator, "image_tokenizer", None)
        if tokenizer is not None:
            outputs["reconstructions"] = tokenizer.decode(tokenizer.encode(batch["image"]))
        return outputs

    def predict_step(self, batch: TextImageBatch, batch_idx: int) -> Tensor:
        """Generate the batch's prompts: ``[B, 3, S, S] uint8``."""
        return self.generate(batch["text"], batch["row"].tolist())


def image_seed(sample_seed: int, row: int, candidate: int = 0) -> int:
    """The seed of one image, 0 to 2⁶³ - 1: mixed, for torch's generator on the CPU looks at the low 32 bits alone."""
    digest = hashlib.sha256(f"{sample_seed}/{candidate}/{row}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _similarity(matcher: Any, images: Tensor, texts: Tensor) -> Tensor:
    """``[B]``: the cosine of each image with its own text ``[B, D]``."""
    return (matcher.encode_image(resize_batch(images, matcher.image_size)) * texts).sum(dim=-1)
