"""A captioner put together: an image tower, what joins it to a language model, and that."""

from dataclasses import asdict
from typing import Any, Protocol, cast

import torch
from PIL.Image import Image
from torch import Tensor, nn

from zoo.core.inputs import as_images
from zoo.core.options import options_of
from zoo.core.texts import TextCounts
from zoo.errors import invalid
from zoo.registry import IMAGE_TOWERS
from zoo.tasks.captioning.captioners.decoding import Decoding, SampledToken
from zoo.tasks.captioning.captioners.vocabulary import Vocabulary
from zoo.tasks.captioning.loss import token_losses


class Language(Protocol):
    """A causal language model that is given what was seen of an image, an ``nn.Module``."""

    published: str | None  # hub name or folder of the weights that it can start from

    def logits(self, encoded: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Give the logits ``[M, V]`` of the tokens behind ``ids [B, T]`` at ``places [M]``, indices of B · T.

        They are those of all tokens, or where the model was told ``keep_words``, of its ``words [V] int64``, rising.
        """

    def generate(self, encoded: Tensor, start: int, config: Any, *processors: Any) -> Tensor:
        """Decode as transformers does: ids ``[B, T]`` after the start token, ended or cut and padded."""


class ImageCaptioner(nn.Module):
    """A captioner: ``zoo.tasks.captioning.contracts.Captioner``.

    A caption is a function of the weights and its image alone: in fp32 it is the same in whatever batch.

    Args:
        image_tower: Image tower; its sequence is what the language model sees of an image. None: the language model
            sees images itself, and has a tower's ``image_size``, ``sequence`` and ``preprocess``.
        connector: Module that turns the sequence ``[B, N, W]`` into what the language model takes ``[B, M, V]``.
        language: The language model.
        vocabulary: Tokenizer of captions, to ids and back.
        context_length: Most tokens read of a reference, start and end included, at least 3.
        decoding: Options of beam search.

    Raises:
        UserError: ``context_length`` is too small.
    """

    def __init__(
        self,
        image_tower: Any,
        connector: nn.Module,
        language: Any,
        vocabulary: Vocabulary,
        *,
        context_length: int,
        decoding: Decoding,
    ) -> None:
        super().__init__()
        if context_length < 3:
            raise invalid("context_length", context_length, "give 3 or more, start and end included")
        self.image_tower = image_tower
        self.connector = connector
        self.language = language
        self.vocabulary = vocabulary
        self.context_length = context_length
        self.decoding = decoding

    @property
    def vision(self) -> Any:
        """What sees images: the image tower, or the language model itself."""
        return self.language if self.image_tower is None else self.image_tower

    @property
    def image_size(self) -> int:
        """Side of the square images that are read, in pixels."""
        return self.vision.image_size

    @property
    def end_token(self) -> int:
        """The id that closes every whole caption."""
        return self.vocabulary.end

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode(self, images: Tensor) -> Tensor:
        """Encode images ``[B, 3, S, S] uint8`` for the language side: ``[B, N, width]``."""
        return self.connector(self.vision.sequence(images)[0])

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Turn captions into ids and what of them is to be learnt, on the CPU; see ``Captioner``."""
        ids, mask = self.vocabulary.encode(texts, context_length=self.context_length)
        written = getattr(self.language, "written", None)
        return ids, mask if written is None else mask & written[ids]

    def count_texts(self, texts: list[str]) -> TextCounts:
        """Count which of some captions are cut, and how many of their characters are unknown."""
        return TextCounts.of(*self.vocabulary.measure(texts), self.context_length)

    def keep_words(self, texts: list[str]) -> None:
        """From now on write only tokens that some texts have, where the language model can be told so."""
        if hasattr(self.language, "keep_words"):
            ids, mask = self.vocabulary.encode(texts, context_length=self.context_length)
            self.language.keep_words(ids[mask].unique())

    def losses(self, encoded: Tensor, ids: Tensor, places: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Compute the cross-entropies ``[M]`` of some tokens; see ``Captioner``."""
        logits, targets = self.language.logits(encoded, ids[:, :-1], places), ids[:, 1:].flatten()[places]
        words = getattr(self.language, "words", None)
        if words is not None:
            targets = torch.searchsorted(words, targets)
        return token_losses(logits, targets, label_smoothing=label_smoothing)

    @torch.no_grad()
    def caption(self, images: Tensor | list[Image], **decoding: Any) -> list[str]:
        """Describe B images: ``captioner.caption([image], beams=8)``; B may be 0.

        Args:
            images: ``[B, 3, H, W] uint8``, or a list of any size: PIL images, uint8 arrays ``[H, W, 3]``, paths.
            **decoding: Options that differ from ``self.decoding``: ``beams``, ``length_penalty``, ….

        Raises:
            UserError: An option is unknown or out of its range, or something else came than images.
        """
        options = options_of(Decoding, {**asdict(self.decoding), **decoding}, what="decoding")
        if not isinstance(images, Tensor):
            images = as_images(images)
        if len(images) == 0:
            return []
        pixels = images if isinstance(images, Tensor) else self.vision.preprocess(images)
        return self.write(self.encode(pixels.to(self.device)), options)

    @torch.no_grad()
    def write(self, encoded: Tensor, decoding: Decoding | None = None) -> list[str]:
        """Write a caption of each of B images, by beam search."""
        search = (decoding or self.decoding).search(self.vocabulary)
        return self.spell(self.language.generate(encoded, self.vocabulary.start, search))

    @torch.no_grad()
    def sample(self, encoded: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Sample ``count`` captions of each of B images: ids and mask ``[B * count, T]``.

        They open with the start token; the mask ends with the end token, where one came before ``max_tokens``.
        """
        repeated = encoded.repeat_interleave(count, dim=0)
        config = self.decoding.greedy(self.vocabulary)
        ids = self.language.generate(repeated, self.vocabulary.start, config, SampledToken())  # [B * count, T - 1]
        ids = torch.cat([torch.full_like(ids[:, :1], self.vocabulary.start), ids], dim=1)
        ended = (ids == self.vocabulary.end).cumsum(dim=1)
        if self.vocabulary.start == self.vocabulary.end:
            ended = ended - 1
        return ids, (ended - (ids == self.vocabulary.end).long()) < 1

    def spell(self, ids: Tensor) -> list[str]:
        """Turn ids ``[B, T]`` without start token into texts, up to the end token."""
        return [self.vocabulary.decode(row) for row in ids.tolist()]


def build_image_tower(image_tower: str, options: dict[str, Any] | None) -> Any:
    """Build a registered image tower, for a captioner's builder."""
    return cast(Any, IMAGE_TOWERS.build_or_take("image_tower", image_tower, options))
