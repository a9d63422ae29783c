"""Images from texts as one sequence: the text's tokens, then a VQGAN's codes, by a causal transformer."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Cache, Qwen3Config, Qwen3Model

from zoo.core.device import repeat_on_gpu, send
from zoo.core.options import check_heads, options_of
from zoo.core.texts import TextCounts
from zoo.errors import invalid
from zoo.models.tokenizer import BertChineseTokenizer
from zoo.registry import IMAGE_TOKENIZERS
from zoo.tasks.text_to_image.contracts import TextImageBatch
from zoo.tasks.text_to_image.generators.cache import PreallocatedLayer
from zoo.tasks.text_to_image.generators.sampling import CodeSampling, draw_codes, guide, prompts_of, seeded_noise
from zoo.tasks.text_to_image.registry import GENERATORS


class DALLE(nn.Module):
    """A generator that writes an image's codes one after another, each given the text and the codes before it.

    Ramesh et al., "Zero-Shot Text-to-Image Generation" (2021), arXiv:2102.12092, with the trunk of today: transformers'
    Qwen3 (RMS norms, SwiGLU, norms of queries and keys), which is also told the row and column of the code that it
    writes. The codes' likelihood is learnt, that of the text is not. Every text takes ``context_length`` places; those
    that it does not fill have a learnt vector each, as in the paper, and a text that is dropped fills none: guidance
    needs that. An image is a function of its text and its seed, the same codes in whatever batch (in fp32).

    Args:
        trunk: A ``Qwen3Model``, whose own table embeds the text's tokens.
        image_tokenizer: Between images and grids of codes (``VQGAN``). It stays as it is.
        image_size: Side of the square images in pixels.
        context_length: Tokens of a text; a longer one is cut.
        sampling: How codes are drawn.
    """

    text_drop = 0.1  # share of the images that are learnt without their text, which guidance needs

    def __init__(
        self,
        trunk: Any,
        image_tokenizer: Any,
        *,
        image_size: int,
        context_length: int,
        sampling: CodeSampling | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.image_tokenizer = image_tokenizer.requires_grad_(False)
        self.image_size = image_size
        self.context_length = context_length
        self.options = sampling or CodeSampling()
        self.side: int = image_size // image_tokenizer.factor  # of the grid of codes
        width = trunk.config.hidden_size
        self.no_token = nn.Parameter(0.02 * torch.randn(context_length, width))  # for places that no token fills
        self.start = nn.Parameter(0.02 * torch.randn(width))  # between the text and the codes
        self.code = nn.Embedding(image_tokenizer.num_codes, width)
        self.row = nn.Parameter(0.02 * torch.randn(self.side, 1, width))  # of the code that is written next
        self.column = nn.Parameter(0.02 * torch.randn(1, self.side, width))
        self.head = nn.Linear(width, image_tokenizer.num_codes, bias=False)
        nn.init.normal_(self.code.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        self._tokenizer = BertChineseTokenizer()

    def train(self, mode: bool = True) -> "DALLE":
        """The image tokenizer never changes."""
        super().train(mode)
        self.image_tokenizer.eval()
        return self

    # --- training ----------------------------------------------------------------------------------------------

    def loss(self, batch: TextImageBatch) -> dict[str, Tensor]:
        """The codes' mean cross-entropy in nats, ``loss``; draws which texts are dropped."""
        codes = batch["codes"] if "codes" in batch else self.encode(batch["image"])
        texts = list(batch["text"])
        if self.training:
            dropped = torch.rand(len(texts)) < self.text_drop
            texts = ["" if drop else text for text, drop in zip(texts, dropped.tolist(), strict=True)]
        logits = self.logits(texts, codes)
        return {"loss": cross_entropy(logits.flatten(0, 1).float(), codes.flatten())}

    def count_texts(self, texts: Sequence[str]) -> TextCounts:
        """Count which of some texts are cut, and how many of their characters are unknown."""
        lengths, unknown = self._tokenizer.measure(texts)
        return TextCounts.of([length - 2 for length in lengths], unknown, self.context_length)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """``[B, 3, S, S] uint8`` as codes ``[B, side, side] int64``."""
        return self.image_tokenizer.encode(images)

    def logits(self, texts: list[str], codes: Tensor) -> Tensor:
        """Of every code, given its text and the true codes before it.

        Args:
            texts: B texts; an empty one is none.
            codes: ``[B, side, side] int64``.

        Returns:
            ``[B, side², num_codes]``.
        """
        written = self.code(codes.flatten(1)[:, :-1])
        start = self.start.expand(len(codes), 1, -1)
        places = torch.cat([start, written], dim=1) + self._grid()
        hidden = self._read(torch.cat([self._embed(texts), places.to(written.dtype)], dim=1), None)
        return self.head(hidden[:, self.context_length :])

    # --- sampling ----------------------------------------------------------------------------------------------

    @property
    def sampling(self) -> dict[str, Any]:
        """How codes are drawn, for protocols."""
        return asdict(self.options)

    @torch.no_grad()
    def generate(self, texts: list[str], *, seeds: Sequence[int], **sampling: Any) -> Tensor:
        """Generate an image of each of B texts.

        Args:
            texts: B prompts.
            seeds: B seeds.
            **sampling: What is to differ from the generator's own ``CodeSampling``: ``guidance=6, top_k=100``.

        Returns:
            ``[B, 3, S, S] uint8``.
        """
        return self.image_tokenizer.decode(self.write(texts, seeds=seeds, **sampling))

    @torch.no_grad()
    def write(self, texts: list[str], *, seeds: Sequence[int], **sampling: Any) -> Tensor:
        """Write the codes of an image of each of B texts.

        Args:
            texts: B prompts.
            seeds: B seeds.
            **sampling: As for ``generate``.

        Returns:
            ``[B, side, side] int64``.
        """
        texts = prompts_of(texts, seeds)
        changed = {**asdict(self.options), **sampling}
        options = options_of(CodeSampling, changed, what="sampling")
        noise = seeded_noise(seeds, [self.side**2], device=self.start.device, uniform=True)
        guided = options.guidance != 1
        copies = 2 if guided else 1
        embedded = self._embed([*texts, ""] if guided else texts)
        grid = self._grid()
        length = self.context_length + self.side**2
        cache = Cache(layers=[PreallocatedLayer(length) for _ in self.trunk.layers])
        places = (self.start + grid[0]).expand(len(embedded), 1, -1)
        hidden = self._read(torch.cat([embedded, places], dim=1), cache)
        if guided:  # what is written without a text begins alike for all, and is read once
            rows = torch.arange(2 * len(texts), device=hidden.device).clamp(max=len(texts))
            hidden = hidden[rows]
            cache.batch_select_indices(rows)
        codes = torch.empty(len(texts), self.side**2, dtype=torch.int64, device=hidden.device)
        codes[:, 0] = self._draw(hidden, noise[:, 0], options)
        if hidden.is_cuda:
            self._write_by_graph(codes, grid, noise, cache, options)
        else:
            for place in range(1, self.side**2):
                embedded = (self.code(codes[:, place - 1]) + grid[place]).repeat(copies, 1)[:, None]
                codes[:, place] = self._draw(self._read(embedded, cache), noise[:, place], options)
        return codes.view(-1, self.side, self.side)

    def _draw(self, hidden: Tensor, noise: Tensor, options: CodeSampling) -> Tensor:
        """Draw the next codes ``[B] int64`` behind the trunk's ``[B, T, W]``, or ``[2 B, T, W]`` where guided."""
        logits = self.head(hidden[:, -1]).float()
        if options.guidance != 1:
            conditional, unconditional = logits.chunk(2)
            logits = guide(conditional, unconditional, options.guidance)
        return draw_codes(logits, noise, options)

    def _write_by_graph(self, codes: Tensor, grid: Tensor, noise: Tensor, cache: Any, options: CodeSampling) -> None:
        """Write the codes behind the first, in place, all by the same kernels: one CUDA graph takes them all at once.

        A step's hundreds of kernels take the host ten times as long to name one by one as the GPU to run.
        """
        place = torch.ones(1, dtype=torch.int64, device=codes.device)  # of the code that is written next
        seen = torch.arange(self.context_length + self.side**2, device=codes.device)

        def step() -> None:
            position = place + self.context_length
            for layer in cache.layers:
                layer.position = position
            last = codes.index_select(1, place - 1)[:, 0]
            embedded = self.code(last) + grid.index_select(0, place)
            if options.guidance != 1:
                embedded = embedded.repeat(2, 1)
            hidden = self._read(embedded[:, None], cache, position, (seen <= position)[None, None, None])
            drawn = self._draw(hidden, noise.index_select(1, place)[:, 0], options)
            codes.index_copy_(1, place, drawn[:, None])
            place.add_(1)

        repeat_on_gpu(step, self.side**2 - 1)

    # --- what the trunk sees -----------------------------------------------------------------------------------

    def _embed(self, texts: list[str]) -> Tensor:
        """B texts as ``[B, context_length, W]``."""
        tokens = [self._tokenizer.encode(text, context_length=self.context_length + 2)[1:-1] for text in texts]
        ids = torch.tensor([[*own, *[-1] * (self.context_length - len(own))] for own in tokens])
        ids = send(ids, self.start.device)
        return torch.where((ids < 0)[..., None], self.no_token, self.trunk.embed_tokens(ids.clamp(min=0)))

    def _grid(self) -> Tensor:
        """The row and column of each code: ``[side², W]``."""
        return (self.row + self.column).flatten(0, 1)

    def _read(self, embedded: Tensor, cache: Any, position: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The trunk's last states ``[B, T, W]``, given what the cache holds of the places before.

        Where all of the cache is handed over, ``position [1]`` says which place is read, and the mask what it sees.
        """
        # Else no mask is made: every place sees all before it, which attention knows by itself.
        return self.trunk(
            inputs_embeds=embedded,
            attention_mask={"full_attention": mask},
            position_ids=None if position is None else position[None],
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state


def dalle(
    *,
    image_size: int,
    width: int,
    num_layers: int,
    num_heads: int,
    image_tokenizer: str,
    image_tokenizer_options: dict[str, Any] | None = None,
    image_tokenizer_weights: str | None = None,
    context_length: int,
    sampling: dict[str, Any] | None = None,
) -> DALLE:
    """Build a DALL·E.

    Args:
        image_size: Side of the square images in pixels.
        width: Of the transformer.
        num_layers: Of the transformer.
        num_heads: Of its attention; each takes an even share of the width.
        image_tokenizer: A registered VQGAN, whose codes are learnt.
        image_tokenizer_options: Options of its builder.
        image_tokenizer_weights: Its trained weights: a run's folder or an experiment's (``runs/vqgan_demo``), a
            checkpoint, or a file of taming-transformers. Training needs them; a checkpoint of the generator has them.
        context_length: Tokens of a text; a longer one is cut.
        sampling: How codes are sampled: ``guidance``, ``temperature``, ``top_k``, ``top_p``.

    Raises:
        UserError: An option is out of its range.
    """
    tokenizer = IMAGE_TOKENIZERS.build(image_tokenizer, **(image_tokenizer_options or {}))
    if tokenizer.num_codes is None:
        raise invalid("image_tokenizer", image_tokenizer, "it has no codes; take a VQGAN, such as vqgan_tiny")
    if image_size < 1 or image_size % tokenizer.factor:
        raise invalid("image_size", image_size, f"this image tokenizer takes multiples of {tokenizer.factor}")
    check_heads(width=width, num_layers=num_layers, num_heads=num_heads, multiple=2)
    if context_length < 1:
        raise invalid("context_length", context_length, "give 1 or more")
    tokenizer.published = image_tokenizer_weights
    config = Qwen3Config(
        vocab_size=len(BertChineseTokenizer()),
        hidden_size=width,
        intermediate_size=_feedforward(width),
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        head_dim=width // num_heads,
        use_cache=False,
    )
    return DALLE(
        Qwen3Model(config),
        tokenizer,
        image_size=image_size,
        context_length=context_length,
        sampling=options_of(CodeSampling, sampling, what="sampling"),
    )


def _feedforward(width: int) -> int:
    """SwiGLU's width of about as many weights as a plain layer of four times the width; a multiple of 32."""
    return -(-8 * width // 3 // 32) * 32


GENERATORS.register_variant(
    "dalle_tiny",
    "Build a DALL·E of 10 M parameters for small images.",
    dalle,
    image_size=32,
    width=256,
    num_layers=6,
    num_heads=4,
    image_tokenizer="vqgan_tiny",
    context_length=16,
)
GENERATORS.register_variant(
    "dalle_base",
    "Build a DALL·E of LlamaGen-B's size (Sun et al. 2024, arXiv:2406.06525) for images of 256 pixels.",
    dalle,
    image_size=256,
    width=768,
    num_layers=12,
    num_heads=12,
    image_tokenizer="vqgan_f16",
    context_length=52,
)
