"""Text-to-image retrieval: two towers, one embedding space (CLIP, Radford et al. 2021, arXiv:2103.00020)."""

import math
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from zoo.errors import UserError
from zoo.interfaces import PairBatch
from zoo.losses.contrastive import MAX_LOGIT_SCALE, clip_loss, collapse_loss
from zoo.registry import IMAGE_TOWERS, TEXT_TOWERS
from zoo.tasks.steps import adamw_warmup_cosine, seed_step
from zoo.weights.checkpoint import load_initial_weights
from zoo.weights.pretrained import load_pretrained


class RetrievalTask(L.LightningModule):
    """An image tower and a text tower, trained to put a Chinese query beside its pictures.

    Training: the softmax CLIP loss over the pairs of all processes; two rows of one picture or of one query are not
    each other's negatives. Evaluation: embeddings and ids, which ``RetrievalEvaluation`` turns into Recall@k.

    Args:
        image_tower: A registered image tower, ``timm:NAME``, or a built module (``python -m zoo list``).
        text_tower: A registered text tower, ``transformers:NAME``, or a built module.
        image_tower_options: Arguments of the image tower's builder.
        text_tower_options: Arguments of the text tower's builder.
        image_pretrained: Published weights of the image tower: ``auto`` takes them from cache or hub and otherwise
            starts at random and says so; ``true`` fails without them; ``false`` starts at random; or a file.
        text_pretrained: The same of the text tower.
        init_from: Weights of the whole task to start from; wins over the towers' ``pretrained``. A checkpoint of this
            zoo or a run's folder; a ``.pt`` of CN-CLIP; a ``ChineseCLIPModel`` in a folder or on the Hugging Face hub
            (``OFA-Sys/chinese-clip-vit-base-patch16``; behind ``auto:`` only where it can be had). Position embeddings
            follow the image size. Neither optimiser nor place in training is taken: for that, see ``--ckpt_path``.
        embedding_dim: Width of the shared space.
        image_projection_bias: Whether the image projection has a bias, as that of Chinese CLIP's ResNet-50 has.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of matrices; biases, norms and the logit scale have none.
        warmup_steps: Steps of linear warm-up before the cosine to zero.
        betas: AdamW's.
        eps: AdamW's.
        temperature: Initial softmax temperature; the logit scale is ln(1 / temperature), clamped to [0, ln 100].
        learn_temperature: Whether training moves it.
        text_to_image_weight: Share of the loss's text-to-picture direction, the one that recall measures, in [0, 1].

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
        embedding_dim: int = 512,
        image_projection_bias: bool = False,
        learning_rate: float = 5e-5,
        weight_decay: float = 1e-3,
        warmup_steps: int = 100,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        temperature: float = 0.07,
        learn_temperature: bool = True,
        text_to_image_weight: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0.01 <= temperature <= 1:
            raise UserError(f"temperature: {temperature} came; it is from 0.01 (a logit scale of 100) to 1.")
        if not 0 <= text_to_image_weight <= 1:
            raise UserError(f"text_to_image_weight: {text_to_image_weight} came; it is a share, from 0 to 1.")
        modules = [n for n, v in (("image_tower", image_tower), ("text_tower", text_tower)) if isinstance(v, nn.Module)]
        self.save_hyperparameters(ignore=modules, logger=False)
        self.image_tower = IMAGE_TOWERS.build_or_take("image_tower", image_tower, image_tower_options)
        self.text_tower = TEXT_TOWERS.build_or_take("text_tower", text_tower, text_tower_options)
        self.image_projection = nn.Linear(self.image_tower.width, embedding_dim, bias=image_projection_bias)
        self.text_projection = nn.Linear(self.text_tower.width, embedding_dim, bias=False)
        for projection in (self.image_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        if image_projection_bias:
            nn.init.zeros_(self.image_projection.bias)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)), requires_grad=learn_temperature)
        self.weights: dict[str, str] = {}  # where each part's initial weights came from; kept in the checkpoint
        self.trained_steps = 0  # of the checkpoint that was loaded

    @property
    def image_size(self) -> int:
        """Side of the square pictures that the image tower reads, in pixels."""
        return self.image_tower.image_size

    # --- embeddings --------------------------------------------------------------------------------------------

    def encode_image(self, images: Tensor | list[Image]) -> Tensor:
        """Embed B pictures as unit vectors ``[B, D]``; B may be 0.

        Args:
            images: ``[B, 3, H, W] uint8``, or PIL pictures of any size and mode.
        """
        empty = images.shape[:1] == (0,) if isinstance(images, Tensor) else images == []
        if empty:
            return self._no_embeddings()
        if not isinstance(images, Tensor):
            images = self.image_tower.preprocess(images).to(self.device)
        return normalize(self.image_projection(self.image_tower(images)).float(), dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed B texts as unit vectors ``[B, D]``; B may be 0."""
        if texts == []:
            return self._no_embeddings()
        return normalize(self.text_projection(self.text_tower(texts)).float(), dim=-1)

    def _no_embeddings(self) -> Tensor:
        return torch.empty(0, self.text_projection.out_features, device=self.device)

    # --- training ----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Read initial weights before a new training; a resumed one brings its own."""
        if stage != "fit" or self.trainer.ckpt_path is not None:
            return
        if self.hparams["init_from"]:
            self.weights["init_from"] = load_initial_weights(self, self.hparams["init_from"])
            if not self.weights["init_from"].startswith("random ("):
                return
        for side, tower in (("image", self.image_tower), ("text", self.text_tower)):
            try:
                self.weights[f"{side}_tower"] = load_pretrained(tower, self.hparams[f"{side}_pretrained"]).text
            except UserError as error:
                raise UserError(f"model.{side}_{error}") from None

    def on_train_batch_start(self, batch: PairBatch, batch_idx: int) -> None:
        """Dropout is a function of seed, process and step."""
        seed_step(self)

    def training_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Tensor]:
        """The CLIP loss of the pairs of all processes, and what it would be if all embeddings were the same."""
        images = self._gather(self.encode_image(batch["image"]))  # [world · B, D]
        texts = self._gather(self.encode_text(batch["text"]))  # [world · B, D]
        ids = {"image_ids": self._gather(batch["image_id"]), "query_ids": self._gather(batch["query_id"])}
        loss = self._loss(images, texts, **ids)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/logit_scale", self.logit_scale.exp())
        return {"loss": loss, "collapse_loss": collapse_loss(len(images), **ids)}

    def _loss(self, images: Tensor, texts: Tensor, *, image_ids: Tensor, query_ids: Tensor) -> Tensor:
        weight = self.hparams["text_to_image_weight"]
        scale = self.logit_scale.exp()
        return clip_loss(images, texts, scale, image_ids=image_ids, query_ids=query_ids, text_to_image_weight=weight)

    def _gather(self, values: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return values
        gathered: Any = self.all_gather(values, sync_grads=values.requires_grad)  # [world, B, …]
        return gathered.flatten(0, 1)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then keep the logit scale in [0, ln 100], before anything can be saved, and free the gradients.

        Lightning would free them behind the next forward pass, which then has less memory to work in.
        """
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        self.zero_grad()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over decayed and undecayed parameters; warm-up, then cosine to zero, a step at a time."""
        return adamw_warmup_cosine(self)

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
        """The training loss of matched pairs ``[P, D]``, in blocks in their order, weighted by the blocks' sizes."""
        losses = [
            self._loss(
                images[start : start + block],
                texts[start : start + block],
                image_ids=image_ids[start : start + block],
                query_ids=query_ids[start : start + block],
            )
            * len(images[start : start + block])
            for start in range(0, len(images), block)
        ]
        return torch.stack(losses).sum() / len(images)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the task's name, by which ``zoo.load`` finds it, and where the initial weights came from."""
        checkpoint["task"] = f"zoo.tasks.{type(self).__name__}"
        checkpoint["weights"] = self.weights

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up where the initial weights came from, and how long they were trained."""
        self.weights = checkpoint["weights"]
        self.trained_steps = checkpoint["global_step"]
