"""``bench step``: a training step against cn-clip's and open_clip's; what Lightning's loop costs over a bare one."""

import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands.bench_data import CONTEXT, SIZE, queries
from zoo.commands.bench_report import Rates, Row, interleave, protocol, report, require
from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.interfaces import PairBatch
    from zoo.tasks import RetrievalTask

WANTED = 1.2
LOOP_STEPS = 20
WANTED_LOOP = 0.97  # Lightning costs at most 3 %
VISION_WIDTH, PATCH, TEXT_WIDTH, EMBEDDING = 768, 16, 768, 512
HEADS = 12


def run(*, batch_size: int, steps: int, precision: str, layers: int, blocks: int, output: str | None) -> None:
    """Measure, print, write.

    Args:
        batch_size: Pairs of a step.
        steps: Steps of a block that are timed.
        precision: ``bf16-mixed``, ``32-true`` or ``auto``.
        layers: Transformer layers of all towers.
        blocks: Blocks of each contender.
        output: Where the JSON goes.
    """
    require({"cn_clip": "cn-clip", "open_clip": "open-clip-torch"}, bench="bench step")
    if not 1 <= layers <= 12:
        raise UserError(f"--layers is {layers}: the towers have 12; give 1 to 12")
    import torch

    from zoo.hardware import best_precision

    precision = best_precision() if precision == "auto" else precision
    torch.manual_seed(0)
    batches = make_batches(batch_size, steps + 1)
    task = our_task(layers)
    lengths = [task.text_tower.tokenizer(batch["text"], context_length=CONTEXT)[0].shape[1] for batch in batches]
    facts = protocol(
        packages=("lightning", "timm", "transformers", "cn-clip", "open-clip-torch"),
        model=f"ViT-B/16 at {SIZE} px and RoBERTa base, {layers} layers each, random weights, dropout 0.1 in the text",
        step="forward, loss, backward, AdamW; ours normalises and tokenises in the step, the peers' inputs are ready",
        texts=f"8–15 tokens; ours padded to the longest of the batch ({lengths}), the peers' to {CONTEXT}",
        batch_size=batch_size,
        precision=f"{precision} for all",
        threads=torch.get_num_threads(),
        loop="Trainer.fit with logger, learning rate monitor, progress bar and collapse alarm; bare: the same task,"
        " batches, AdamW and schedule; the two take turns, step by step",
        blocks=f"{blocks} of {steps} steps each, after one step that is not timed; of the loops {LOOP_STEPS} of a step",
    )
    step = our_step(task, precision)  # like the peers' it keeps its AdamW over the blocks
    loops = loop_rates(task, step, batches[0], precision)  # while the memory is not yet full of peers
    contenders = {
        "ours": lambda: bare_block(step, batches),
        "cn-clip": peer_block(cn_clip_step(layers, precision), batches),
        "open_clip": peer_block(open_clip_step(layers, precision), batches),
    }
    rates = interleave(contenders, blocks=blocks, what="bench step")
    rates |= loops
    unit = "samples/s"
    rows = [
        Row("step", unit, rates, "ours", "cn-clip", WANTED),
        Row("step", unit, rates, "ours", "open_clip", WANTED),
        Row("loop", unit, rates, "Lightning's loop", "bare loop", WANTED_LOOP),
    ]
    report("step", rows, facts, output=output)


def make_batches(batch_size: int, count: int) -> "list[PairBatch]":
    """Random pictures with texts of MUGE's lengths, as the data module hands them over."""
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


def our_task(layers: int) -> "RetrievalTask":
    """``RetrievalTask`` with its default towers, cut to so many layers."""
    from zoo.tasks import RetrievalTask

    task = RetrievalTask(image_pretrained=False, text_pretrained=False)
    task.image_tower.model.blocks = task.image_tower.model.blocks[:layers]
    task.text_tower.encoder.encoder.layer = task.text_tower.encoder.encoder.layer[:layers]
    return task.train()


def our_step(task: "RetrievalTask", precision: str) -> "Callable[[PairBatch], None]":
    """A bare loop's step of our task, with the optimiser and the schedule that Lightning would be given."""
    import torch

    from zoo.losses.contrastive import MAX_LOGIT_SCALE, clip_loss
    from zoo.optim import parameter_groups, warmup_cosine

    settings = task.hparams
    optimizer = torch.optim.AdamW(
        parameter_groups(task, settings["weight_decay"]),
        lr=settings["learning_rate"],
        betas=settings["betas"],
        eps=settings["eps"],
    )
    schedule = warmup_cosine(optimizer, settings["warmup_steps"], 1000)

    def step(batch: "PairBatch") -> None:
        optimizer.zero_grad()
        with autocast(precision):
            images, texts = task.encode_image(batch["image"]), task.encode_text(batch["text"])
            scale = task.logit_scale.exp()
            loss = clip_loss(images, texts, scale, image_ids=batch["image_id"], query_ids=batch["query_id"])
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            task.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    return step


def bare_block(step: Callable[[Any], None], batches: list[Any]) -> float:
    """Samples a second of a loop over the batches; the first, which makes AdamW's state, is not timed."""
    step(batches[0])
    start = time.perf_counter()
    for batch in batches[1:]:
        step(batch)
    return _rate(batches, start)


def loop_rates(task: "RetrievalTask", step: "Callable[[PairBatch], None]", batch: "PairBatch", precision: str) -> Rates:
    """Samples a second of ``Trainer.fit`` and of a bare loop's step, in turns: what slows one slows the other.

    Lightning's time is that from the start of a step to the start of the next, with all that it does between; the bare
    steps are taken at those starts and left out of it.
    """
    import lightning as L
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader

    from zoo.callbacks.collapse import CollapseAlarm
    from zoo.callbacks.progress import ProgressBar
    from zoo.data.loading import whole_batch
    from zoo.messages import quiet_libraries

    seconds: dict[str, list[float]] = {"Lightning's loop": [], "bare loop": []}

    class Turns(L.Callback):
        since = 0.0

        def on_train_batch_start(self, trainer: L.Trainer, *rest: Any) -> None:
            seconds["Lightning's loop"].append(time.perf_counter() - self.since)
            since = time.perf_counter()
            step(batch)  # the first makes its AdamW's state
            seconds["bare loop"].append(time.perf_counter() - since)
            task.zero_grad()  # as our task leaves it for Lightning's next step
            self.since = time.perf_counter()

    quiet_libraries()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    print("bench step: the loops, in turns", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="cpu",
            precision=precision,  # type: ignore[arg-type]
            max_steps=LOOP_STEPS + 2,
            logger=CSVLogger(folder),
            callbacks=[Turns(), ProgressBar(), LearningRateMonitor("step"), CollapseAlarm()],
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        batches: Any = [batch] * (LOOP_STEPS + 2)
        trainer.fit(task, train_dataloaders=DataLoader(batches, batch_size=None, collate_fn=whole_batch))
    # The first entry is the time before training, the second that of a step that makes AdamW's state.
    return {name: [len(batch["text"]) / value for value in values[2:]] for name, values in seconds.items()}


# --- peers -----------------------------------------------------------------------------------------------------------


def peer_block(step: Callable[..., None], batches: "list[PairBatch]") -> Callable[[], float]:
    """A peer's block over the same pairs: pictures normalised and texts turned into ids beforehand."""
    import torch

    from zoo.registry import IMAGE_TOWERS
    from zoo.towers.tokenizer import BertChineseTokenizer

    with torch.device("meta"):  # for its mean and deviation only
        tower = IMAGE_TOWERS.build("vit_base_patch16_clip_quickgelu_224")
    tokenizer = BertChineseTokenizer()

    def ids(texts: list[str]) -> "Tensor":
        short = tokenizer(texts, context_length=CONTEXT)[0]
        return torch.nn.functional.pad(short, (0, CONTEXT - short.shape[1]))

    ready = [(tower.normalise(batch["image"]).contiguous(), ids(batch["text"])) for batch in batches]
    return lambda: bare_block(lambda pair: step(*pair), ready)


def cn_clip_step(layers: int, precision: str) -> "Callable[[Tensor, Tensor], None]":
    """cn-clip's ViT-B/16 with its optimiser; its loss is the mean of both directions' cross-entropy."""
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


def open_clip_step(layers: int, precision: str) -> "Callable[[Tensor, Tensor], None]":
    """open_clip's ViT-B/16 (QuickGELU) with its transformers text tower, a BERT of RoBERTa's size, and its loss."""
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
    return peer_step(model.train(), lambda images, texts: clip_loss(*model(images, texts)[:3]), precision)


def peer_step(
    model: Any, loss: "Callable[[Tensor, Tensor], Tensor]", precision: str
) -> "Callable[[Tensor, Tensor], None]":
    """A step of a peer's model in a bare loop, with AdamW as ours."""
    import torch

    from zoo.optim import parameter_groups

    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3), lr=5e-5, betas=(0.9, 0.98), eps=1e-6)

    def step(images: "Tensor", texts: "Tensor") -> None:
        optimizer.zero_grad()
        with autocast(precision):
            value = loss(images, texts)
        value.backward()
        optimizer.step()

    return step


def autocast(precision: str) -> Any:
    """What a precision means in a bare loop on a CPU."""
    import torch

    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed")


def _rate(batches: list[Any], start: float) -> float:
    seconds = time.perf_counter() - start
    first = batches[0]
    size = len(first["text"] if isinstance(first, dict) else first[0])
    return size * (len(batches) - 1) / seconds
