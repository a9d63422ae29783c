"""Every task, tiny, and a batch that all of them read: what the tests of GPUs train."""

from functools import partial

import lightning as L
import torch
from torch.utils.data import DataLoader

from zoo import CaptioningTask, ImageTokenizerTask, RetrievalTask, TextToImageTask

TEXT = {"width": 32, "num_layers": 1, "num_heads": 2}
TEXTS = ["红色连衣裙", "蓝", "黑色短裤男", "白"]


def retrieval(dropout=0.1, **options):
    return RetrievalTask(
        "timm:test_vit",
        "bert_tiny_chinese",
        image_tower_options={"image_size": 32},
        text_tower_options={**TEXT, "dropout": dropout},
        image_pretrained=False,
        text_pretrained=False,
        embedding_dim=16,
        **options,
    )


def captioning(captioner, **task):
    options = {"image_tower": "timm:test_vit", "image_tower_options": {"image_size": 32}, **TEXT}
    options["decoding"] = {"beams": 2, "max_tokens": 3}
    task |= {"image_pretrained": False, "language_pretrained": False}
    return CaptioningTask(captioner, captioner_options=options, **task)


def text_to_image(generator, options, **task):
    return TextToImageTask(generator, generator_options=options, text_pretrained=False, **task)


def vqgan(**options):
    return ImageTokenizerTask(
        "vqgan_tiny",
        image_tokenizer_options={"num_codes": 32, "width": 32},
        image_size=32,
        perceptual="laplacian",
        discriminator_start=1,
        discriminator_layers=2,
        restart_after=1,
        **options,
    )


TASKS = {  # options of the task → the task
    "retrieval": retrieval,
    "retrieval in chunks": partial(retrieval, chunk_size=2),
    "siglip": partial(retrieval, loss="sigmoid", loss_options={"temperature": 0.1}),
    "unet": partial(text_to_image, "unet_tiny", {"widths": (32,), "text_tower_options": TEXT}),
    "dit": partial(text_to_image, "dit_tiny", {"num_layers": 1, "text_tower_options": TEXT}),
    "dalle": partial(text_to_image, "dalle_tiny", {"width": 32, "num_layers": 1}),
    "vqgan": vqgan,
    "captioning": partial(captioning, "prefix_tiny"),
    "captioning by cross-attention": partial(captioning, "encoder_decoder_tiny"),
}


def batch():
    rows = torch.arange(4)
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = {"image_id": rows, "query_id": rows, "positives": rows[:, None], "row": rows, "image_index": rows}
    return {"image": images, "text": TEXTS, **ids}


def fit(make, folder, accelerator, *, steps=3, precision="32-true", ckpt_path=None, **trainer):
    """Train a task on one batch; the trained task."""
    torch.manual_seed(0)
    task = make()
    if getattr(getattr(task, "generator", None), "image_tokenizer", None) is not None:
        task._read_image_tokenizer = lambda: "random"  # trained weights are wanted; random ones do here
    options = {"callbacks": [], "enable_progress_bar": False, "logger": False} | trainer
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=steps,
        precision=precision,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    data = L.LightningDataModule()
    data.train_dataloader = lambda: DataLoader([batch()] * steps, batch_size=None)
    trainer.fit(task, datamodule=data, ckpt_path=ckpt_path)
    return task
