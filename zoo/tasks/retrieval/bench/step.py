"""``bench step``: a training step against cn-clip's and open_clip's; what Lightning's loop costs over a bare one."""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.core.bench.harness import Precision, Row, interleave, protocol, report, require, run_bench
from zoo.core.bench.loop import LOOP_STEPS, WANTED_LOOP, bare_step, chosen_precision, loop_rates
from zoo.core.bench.samples import SIZE, queries
from zoo.errors import invalid
from zoo.tasks.retrieval.bench.data import CONTEXT

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.tasks import RetrievalTask
    from zoo.tasks.retrieval.contracts import PairBatch

WANTED = 1.2
VISION_WIDTH, PATCH, TEXT_WIDTH, EMBEDDING = 768, 16, 768, 512
HEADS = 12


def main(argv: list[str]) -> int:
    """Run ``bench step``."""
    return run_bench("step", measure, argv)


def measure(
    *,
    batch_size: int = 16,
    steps: int = 1,
    precision: Precision = "auto",
    layers: int = 12,
    blocks: int = 5,
    output: str | None = None,
) -> None:
    """Measure the samples a second of a training step of ViT-B/16 and RoBERTa base at 224 px.

    Forward, loss, backward, AdamW, against cn-clip's and open_clip's models. Then what Lightning's loop costs over a
    bare one. About five minutes on two cores.

    Args:
        batch_size: Pairs of a step.
        steps: Steps of a block that are timed.
        precision: Precision of all contenders; auto: bf16-mixed where the processor computes in bfloat16.
        layers: Transformer layers of all towers, 1 to 12: fewer for a quick look.
        blocks: Blocks of each contender.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: There are not so many layers, or a peer is not installed.
    """
    require({"cn_clip": "cn-clip", "open_clip": "open-clip-torch"}, bench="bench step")
    if not 1 <= layers <= 12:
        raise invalid("--layers", layers, "the towers have 12; give 1 to 12")
    import torch

    from zoo.callbacks.progress import RunProgressBar
    from zoo.tasks.retrieval.collapse_alarm import CollapseAlarm

    chosen = chosen_precision(precision)
    torch.manual_seed(0)
    batches = make_batches(batch_size, steps + 1)
    ours = our_task(layers)
    lengths = [ours.text_tower.tokenizer(batch["text"], context_length=CONTEXT)[0].shape[1] for batch in batches]
    metadata = protocol(
        packages=("lightning", "timm", "transformers", "cn-clip", "open-clip-torch"),
        model=f"ViT-B/16 at {SIZE} px and RoBERTa base, {layers} layers each, random weights, dropout 0.1 in the text",
        step="forward, loss, backward, AdamW; ours normalises and tokenises in the step, the peers' inputs are ready",
        texts=f"8–15 tokens; ours padded to the longest of the batch ({lengths}), the peers' to {CONTEXT}",
        batch_size=batch_size,
        precision=f"{chosen} for all",
        threads=torch.get_num_threads(),
        loop="Trainer.fit with logger, learning rate monitor, progress bar and collapse alarm; bare: the same task,"
        " batches, AdamW and schedule; the two take turns, step by step",
        blocks=f"{blocks} of {steps} steps each, after one step that is not timed; of the loops {LOOP_STEPS} of a step",
    )
    step = bare_step(
        ours, lambda batch: matching_loss(ours, batch), chosen
    )  # like the peers' it keeps its AdamW over the blocks
    loops = loop_rates(
        ours, step, batches[0], chosen, callbacks=[RunProgressBar(), CollapseAlarm()]
    )  # while the memory is not yet full of peers
    contenders = {
        "ours": lambda: bare_block(step, batches),
        "cn-clip": peer_block(cn_clip_step(layers, chosen), batches),
        "open_clip": peer_block(open_clip_step(layers, chosen), batches),
    }
    rates = interleave(contenders, blocks=blocks, what="bench step")
    rates |= loops
    unit = "samples/s"
    rows = [
        Row("step", unit, rates, "ours", "cn-clip", WANTED),
        Row("step", unit, rates, "ours", "open_clip", WANTED),
        Row("loop", unit, rates, "Lightning's loop", "bare loop", WANTED_LOOP),
    ]
    report("step", rows, metadata, output=output)


def make_batches(batch_size: int, count: int) -> "list[PairBatch]":
    """Make random images with texts of MUGE's lengths, as the data module hands them over."""
    import torch

    texts = queries(batch_size * count)
    return [
        {
            "image": torch.randint(0, 256, (batch_size, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2),
            "text": texts[start : start + batch_size],
            "image_id": torch.arange(start, start + batch_size),
            "query_id": torch.arange(start, start + batch_size),
        }
        for start in range(0, batch_size * count, batch_size)
    ]


# --- ours ------------------------------------------------------------------------------------------------------------


def our_task(layers: int, **options: Any) -> "RetrievalTask":
    """Build ``RetrievalTask`` with its default towers, cut to so many layers."""
    from zoo.tasks import RetrievalTask

    task = RetrievalTask(image_pretrained=False, text_pretrained=False, **options)
    task.image_tower.model.blocks = task.image_tower.model.blocks[:layers]
    task.text_tower.encoder.encoder.layer = task.text_tower.encoder.encoder.layer[:layers]
    return task.train()


def matching_loss(task: "RetrievalTask", batch: "PairBatch") -> "Tensor":
    """Compute the loss of retrieval on one process."""
    from zoo.tasks.retrieval.losses.functional import clip_loss

    texts = task._in_chunks(task.encode_text, batch["text"])
    images = task._in_chunks(task.encode_image, batch["image"])
    scale = task.loss.logit_scale.exp()
    return clip_loss(images, texts, scale, image_ids=batch["image_id"], query_ids=batch["query_id"])


def bare_block(step: Callable[[Any], None], batches: list[Any]) -> float:
    """Measure the samples a second of a loop over the batches; the first, which makes AdamW's state, is not timed."""
    step(batches[0])
    start = time.perf_counter()
    for batch in batches[1:]:
        step(batch)
    return _rate(batches, start)


# --- peers -----------------------------------------------------------------------------------------------------------


def peer_block(step: Callable[..., None], batches: "list[PairBatch]") -> Callable[[], float]:
    """Build a peer's block over the same pairs: images normalised and texts turned into ids beforehand."""
    import torch

    from zoo.models.tokenizer import BertChineseTokenizer
    from zoo.registry import IMAGE_TOWERS

    with torch.device("meta"):  # for its mean and deviation only
        tower = IMAGE_TOWERS.build("vit_base_patch16_clip_quickgelu_224")
    tokenizer = BertChineseTokenizer()

    def ids(texts: list[str]) -> "Tensor":
        short = tokenizer(texts, context_length=CONTEXT)[0]
        return torch.nn.functional.pad(short, (0, CONTEXT - short.shape[1]))

    ready = [(tower.normalise(batch["image"]).contiguous(), ids(batch["text"])) for batch in batches]
    return lambda: bare_block(lambda pair: step(*pair), ready)


def cn_clip_step(layers: int, precision: str) -> "Callable[[Tensor, Tensor], None]":
    """Build a step of cn-clip's ViT-B/16 with its optimiser; its loss is the mean of both directions' cross-entropy."""
    import torch
    from cn_clip.clip.model import CLIP
    from torch.nn.functional import cross_entropy

    model = CLIP(
        embed_dim=EMBEDDING,
        image_resolution=SIZE,
        vision_layers=layers,
        vision_width=VISION_WIDTH,
        vision_patch_size=PATCH,
        vocab_size=21128,
        text_attention_probs_dropout_prob=0.1,
        text_hidden_act="gelu",
        text_hidden_dropout_prob=0.1,
        text_hidden_size=TEXT_WIDTH,
        text_initializer_range=0.02,
        text_intermediate_size=4 * TEXT_WIDTH,
        text_max_position_embeddings=512,
        text_num_attention_heads=HEADS,
        text_num_hidden_layers=layers,
        text_type_vocab_size=2,
    )
    model.bert.pooler = None  # unused; its gradient would be none

    def loss(images: "Tensor", texts: "Tensor") -> "Tensor":
        image_features, text_features, scale = model(images, texts)
        logits = scale * image_features @ text_features.t()
        targets = torch.arange(len(logits))
        return (cross_entropy(logits, targets) + cross_entropy(logits.t(), targets)) / 2

    return peer_step(model.train(), loss, precision)


def open_clip_step(layers: int, precision: str, device: Any = "cpu") -> "Callable[[Tensor, Tensor], None]":
    """Build a step of open_clip's ViT-B/16 (QuickGELU) with its BERT of RoBERTa's size, and its loss, on a device."""
    from open_clip.loss import ClipLoss
    from open_clip.model import CustomTextCLIP

    text = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": 21128,
        "hidden_size": TEXT_WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * TEXT_WIDTH,
        "pad_token_id": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(text), encoding="utf-8")
        model = CustomTextCLIP(
            embed_dim=EMBEDDING,
            quick_gelu=True,
            vision_cfg={"image_size": SIZE, "layers": layers, "width": VISION_WIDTH, "patch_size": PATCH},
            text_cfg={
                "hf_model_name": folder,
                "hf_model_pretrained": False,
                "hf_pooler_type": "cls_last_hidden_state_pooler",
                "hf_proj_type": "linear",
            },
        )
    clip_loss = ClipLoss()
    return peer_step(model.to(device).train(), lambda images, texts: clip_loss(*model(images, texts)[:3]), precision)


def peer_step(
    model: Any, loss: "Callable[[Tensor, Tensor], Tensor]", precision: str
) -> "Callable[[Tensor, Tensor], None]":
    """Build a step of a peer's model in a bare loop, with AdamW as ours."""
    import torch

    from zoo.core.optim import parameter_groups
    from zoo.core.precision import autocast

    device = next(model.parameters()).device
    fused = True if device.type == "cuda" else None
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3), lr=5e-5, betas=(0.9, 0.98), eps=1e-6, fused=fused)

    def step(images: "Tensor", texts: "Tensor") -> None:
        optimizer.zero_grad()
        with autocast(precision, device):
            value = loss(images, texts)
        value.backward()
        optimizer.step()

    return step


def _rate(batches: list[Any], start: float) -> float:
    seconds = time.perf_counter() - start
    first = batches[0]
    size = len(first["text"] if isinstance(first, dict) else first[0])
    return size * (len(batches) - 1) / seconds
