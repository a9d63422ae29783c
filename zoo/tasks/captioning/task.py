"""Captioning: Chinese copy of an image, learnt from references, then by the reward of the model's own captions."""

import math
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.optim.lr_scheduler import LambdaLR

from zoo.core.device import send
from zoo.core.optim import OptimizerOptions, check_rate, training_steps, two_cosines_ratio
from zoo.core.options import idle_fields
from zoo.core.task import Task
from zoo.errors import UserError
from zoo.tasks.captioning.contracts import CaptionBatch, Captioner
from zoo.tasks.captioning.evaluation import DEFAULTS, CaptionEvaluation, CaptionEvaluationOptions
from zoo.tasks.captioning.loss import self_critical_loss, sums_by_group
from zoo.tasks.captioning.metrics.ngrams import CaptionReferences, Tokenization
from zoo.tasks.captioning.registry import CAPTIONERS
from zoo.tasks.captioning.submission import CaptionSubmission

END = "<end>"  # the reward's token: without one, captions lose their ends to gain n-grams
LABEL_SMOOTHING = 0.1  # share of each target that is spread evenly over the vocabulary while training

LEARNING_RATES = {"image_tower": "image_learning_rate", "language": "language_learning_rate"}  # by part

ADAMW = OptimizerOptions(weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)


@dataclass(frozen=True)
class RewardOptions:
    """How captions are learnt by the reward of CIDEr-D, if at all.

    Args:
        samples: Captions sampled of each image, 2 or more, dropout off; 0: no reward.
        from_epoch: The epoch, from 0, in which the reward takes the references' place; 0, from the start, needs
            ``model.init_from``.
        learning_rate: Peak learning rate from that epoch on, which falls along a cosine of its own; null: the task's.
            The parts' own rates keep their proportion.

    Raises:
        UserError: A number is out of its range.
    """

    samples: int = 0
    from_epoch: int = 0
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.samples < 0 or self.samples == 1:
            raise UserError(
                f"model.reward.samples is {self.samples}: give 2 or more, each held against the others, or 0",
                argument="model.reward.samples",
                value=self.samples,
            )
        if self.from_epoch < 0 or (self.from_epoch and not self.samples):
            raise UserError(
                f"model.reward.from_epoch is {self.from_epoch} and samples {self.samples}: give an epoch, 0 or more,"
                " and how many captions are sampled",
                argument="model.reward.from_epoch",
                value=self.from_epoch,
            )
        check_rate("model.reward.learning_rate", self.learning_rate)

    def idle(self) -> dict[str, str]:
        """Name the fields that have no effect beside the others, and say why."""
        if not self.samples:
            return {"learning_rate": "samples is 0"}
        return {} if self.from_epoch else {"learning_rate": "from_epoch is 0, and model.learning_rate is that of all"}


NO_REWARD = RewardOptions()


class CaptioningTask(Task):
    """A writer of Chinese captions.

    Training lowers the cross-entropy of the references' tokens. With ``reward.samples`` it then raises CIDEr-D
    (self-critical sequence training, Rennie et al. 2016, arXiv:1612.00563): the model samples captions of each image
    and learns from those that score above the image's others; document frequencies are those of the training
    references. ``CaptionEvaluation`` scores what it writes.

    Args:
        captioner: A registered captioner or a built module (``zoo.tasks.captioning.contracts.Captioner``).
        captioner_options: Arguments of the captioner's builder.
        image_pretrained: Published weights of the image tower: ``auto`` takes them from cache or hub and otherwise
            starts at random and says so; ``true`` fails without them; ``false`` starts at random; a file; or a run,
            whose image tower it takes.
        language_pretrained: The same of the language model, whose file is a folder that ``save_pretrained`` wrote.
        init_from: Weights of the whole task to start from: a checkpoint of this zoo or a run's folder. Neither
            optimiser nor progress is taken: to resume, see ``--ckpt_path``.
        learning_rate: Peak learning rate of AdamW.
        image_learning_rate: Peak learning rate of the image tower; by default the same.
        language_learning_rate: Peak learning rate of the language model; by default the same.
        optimizer: AdamW's options beside its peak learning rate.
        reward: Whether, when and how captions are learnt by the reward of CIDEr-D.
        evaluation: What is scored during training and at test, and which checkpoint is the best.

    Raises:
        UserError: The captioner cannot be built as it is asked for, or a number is out of its range.
    """

    def __init__(
        self,
        captioner: str | nn.Module,
        *,
        captioner_options: dict[str, Any] | None = None,
        image_pretrained: Literal["auto"] | bool | str = "auto",
        language_pretrained: Literal["auto"] | bool | str = "auto",
        init_from: str | None = None,
        learning_rate: float = 1e-4,
        image_learning_rate: float | None = None,
        language_learning_rate: float | None = None,
        optimizer: OptimizerOptions = ADAMW,
        reward: RewardOptions = NO_REWARD,
        evaluation: CaptionEvaluationOptions = DEFAULTS,
    ) -> None:
        super().__init__()
        check_rate("model.image_learning_rate", image_learning_rate)
        check_rate("model.language_learning_rate", language_learning_rate)
        self.save_hyperparameters(ignore=["captioner"] if isinstance(captioner, nn.Module) else [], logger=False)
        self.take_options("optimizer", OptimizerOptions)
        self.reward = self.take_options("reward", RewardOptions)
        self.take_options("evaluation", CaptionEvaluationOptions)
        self.captioner: Any = CAPTIONERS.build_or_take("captioner", captioner, captioner_options)
        if not isinstance(self.captioner, Captioner):
            wanted = ("image_size", "end_token", "decoding", "encode", "tokenize", "losses", "write", "sample", "spell")
            lacking = [name for name in wanted if not hasattr(self.captioner, name)]
            raise UserError(
                f"captioner: {type(self.captioner).__name__} has no {', '.join(lacking)}: it is no Captioner"
            )
        self._rewards: CaptionReferences | None = None

    def idle_options(self) -> dict[str, str]:
        """Name the options that have no effect beside the others; see the base class."""
        idle = super().idle_options() | idle_fields(self.captioner.decoding, "model.captioner_options.decoding")
        epochs = self.trainer.max_epochs or -1
        if self.reward.samples and 0 < epochs <= self.reward.from_epoch:
            why = f"it begins in epoch {self.reward.from_epoch}, and the training has {epochs}, from 0 on"
            idle |= dict.fromkeys(("model.reward.samples", "model.reward.learning_rate"), why)
        for part, rate in LEARNING_RATES.items():
            if not any(parameter.requires_grad for parameter in self._part(part).parameters()):
                idle[f"model.{rate}"] = f"nothing of the captioner's {part} is trained"
        return idle

    @property
    def text_reader(self) -> Any:
        """The part that reads the training texts; see the base class."""
        return None if self.reward.samples and not self.reward.from_epoch else self.captioner

    def own_callbacks(self) -> list[Callback]:
        """Make the task's evaluation and submission."""
        return [CaptionEvaluation(self.hparams["evaluation"]), CaptionSubmission()]

    @property
    def image_size(self) -> int:
        """Side of the square images that the captioner reads, in pixels."""
        return self.captioner.image_size

    # --- training ----------------------------------------------------------------------------------------------

    def pretrained_parts(self) -> dict[str, tuple[str, nn.Module]]:
        """Name the image tower and the language model, which may start from published weights."""
        parts = {"image_tower": "image_pretrained", "language": "language_pretrained"}
        return {
            part: (option, getattr(self.captioner, part))
            for part, option in parts.items()
            if getattr(self.captioner, part, None) is not None
        }

    def _part(self, name: str) -> nn.Module:
        """Give a part of the captioner; where it has none such, one without weights."""
        return getattr(self.captioner, name, None) or nn.Module()

    def read_weights(self) -> None:
        """Read the weights to start from; what is written from now on are the words of the training references."""
        super().read_weights()
        data: Any = getattr(self._trainer, "datamodule", None)  # none before `test --ckpt_path null` begins
        texts = data.training_texts() if hasattr(data, "training_texts") else []
        if texts and hasattr(self.captioner, "keep_words"):
            self.captioner.keep_words(texts)

    def on_fit_start(self) -> None:
        """Count the training references' n-grams, where their CIDEr-D is the reward."""
        if self.reward.samples == 0:
            return
        trained = self.reward.from_epoch or self.hparams["init_from"] or self.trainer.ckpt_path
        if not trained:
            raise UserError(
                f"model.reward.samples is {self.reward.samples} and model.init_from is not set: random"
                " weights sample nothing that could be rewarded; start from a trained run, or learn references first"
                " and set model.reward.from_epoch"
            )
        references = self.trainer.datamodule.targets("train").references  # type: ignore[attr-defined]
        if self.trainer.is_global_zero:
            print(f"Counting the n-grams of {len(references):,} training images' references", file=sys.stderr)
        tokenization = Tokenization(lowercase=True)
        self._rewards = CaptionReferences(
            [[[*tokenization.tokenize(text), END] for text in texts] for texts in references]
        )

    def on_train_batch_start(self, batch: CaptionBatch, batch_idx: int) -> None:
        """Seed the step; the reward is of the model without dropout."""
        super().on_train_batch_start(batch, batch_idx)
        if self._by_reward:
            self.captioner.eval()

    def training_step(self, batch: CaptionBatch, batch_idx: int) -> Tensor:
        """Compute the references' cross-entropy, or the loss of the reward."""
        encoded = self.captioner.encode(batch["image"])
        if self._by_reward:
            loss = self._reward_loss(encoded, batch)
        else:
            loss = self._token_losses(encoded, batch, LABEL_SMOOTHING)[0].mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    @property
    def _by_reward(self) -> bool:
        return self._rewards is not None and self.current_epoch >= self.reward.from_epoch

    def _reward_loss(self, encoded: Tensor, batch: CaptionBatch) -> Tensor:
        """Compute the loss of captions sampled of the batch's images, ``encoded [B, N, W]``."""
        count = self.reward.samples
        ids, mask = self.captioner.sample(encoded.detach(), count)  # [B · k, T]
        rewards = self._score(batch, ids, mask, count)
        places = mask[:, 1:].flatten().nonzero()[:, 0]
        losses = self.captioner.losses(encoded.repeat_interleave(count, dim=0), ids, places)
        self.log("train/reward", 100 * rewards.mean(), prog_bar=True)
        return self_critical_loss(-losses, places // (ids.shape[1] - 1), rewards)

    def _score(self, batch: CaptionBatch, ids: Tensor, mask: Tensor, count: int) -> Tensor:
        """Score sampled captions by CIDEr-D, ``[B, k]``; the end counts as a token, where one came."""
        assert self._rewards is not None
        cut = Tokenization(lowercase=True).tokenize
        ended = ((ids[:, 1:] == self.captioner.end_token) & mask[:, 1:]).any(dim=1)
        captions = [
            [*cut(text), *([END] if whole else [])]
            for text, whole in zip(self.captioner.spell(ids[:, 1:]), ended.tolist(), strict=True)
        ]
        rows = batch["row"].repeat_interleave(count).tolist()
        rewards = self._rewards.cider_d(rows, captions)
        return torch.as_tensor(rewards, dtype=torch.float32, device=ids.device).view(-1, count)

    def _token_losses(self, encoded: Tensor, batch: CaptionBatch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """Compute the cross-entropy ``[M]`` of the references' tokens, and each one's index in the batch ``[M]``."""
        ids, mask = self.captioner.tokenize(batch["text"])  # [C, T]
        places = mask[:, 1:].flatten().nonzero()[:, 0]  # of the tokens to learn, found by the host
        ids, places = send(ids, encoded.device), send(places, encoded.device)
        losses = self.captioner.losses(encoded[batch["image_index"]], ids, places, label_smoothing=label_smoothing)
        return losses, batch["image_index"][places // (ids.shape[1] - 1)]

    def learning_rates(self) -> dict[nn.Parameter, float]:
        """Give the image tower and the language model peak learning rates of their own, where they have one."""
        return {
            parameter: self.hparams[rate]
            for part, rate in LEARNING_RATES.items()
            if self.hparams[rate] is not None
            for parameter in self._part(part).parameters()
        }

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make AdamW and its schedule: a cosine to zero for each phase."""
        configured: Any = super().configure_optimizers()
        if self.reward.from_epoch:
            total, batches_each = training_steps(self.trainer), self.trainer.accumulate_grad_batches
            self.trainer.fit_loop.setup_data()  # the number of an epoch's batches is known from here on
            epoch = math.ceil(min(self.trainer.num_training_batches, total * batches_each) / batches_each)
            peak, second_peak = self.hparams["learning_rate"], self.reward.learning_rate
            ratio = partial(
                two_cosines_ratio,
                warmup_steps=self.hparams["optimizer"].warmup_steps,
                first_steps=min(total, epoch * self.reward.from_epoch),
                total_steps=total,
                second_ratio=1.0 if second_peak is None else second_peak / peak,
            )
            configured["lr_scheduler"]["scheduler"] = LambdaLR(configured["optimizer"], ratio)
        return configured

    # --- evaluation --------------------------------------------------------------------------------------------

    def validation_step(self, batch: CaptionBatch, batch_idx: int) -> dict[str, Any]:
        """Describe a batch.

        Returns:
            ``captions``, B texts; ``encoded [B, N, W]``; ``features [B, W]``, unit vectors of the images; and, where
            there are references, of each image's the ``loss [B]``, summed over their ``tokens [B]``.
        """
        encoded = self.captioner.encode(batch["image"])
        described: dict[str, Any] = {"captions": self.captioner.write(encoded), "encoded": encoded}
        described["features"] = self.features(encoded)
        if "text" in batch:
            losses, image_index = self._token_losses(encoded, batch, label_smoothing=0.0)
            described["loss"] = sums_by_group(losses.double(), image_index, len(encoded))
            described["tokens"] = sums_by_group(torch.ones_like(losses), image_index, len(encoded))
        return described

    test_step = validation_step

    def predict_step(self, batch: CaptionBatch, batch_idx: int) -> list[str]:
        """Describe a batch: B texts."""
        return self.captioner.write(self.captioner.encode(batch["image"]))

    @staticmethod
    def features(encoded: Tensor) -> Tensor:
        """Compute the images' unit vectors ``[B, W]``: the mean over what the language model sees ``[B, N, W]``."""
        return normalize(encoded.float().mean(dim=1), dim=-1)
