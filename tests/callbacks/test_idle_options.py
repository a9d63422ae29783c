"""What an option that another makes idle says when training begins."""

from types import SimpleNamespace

import lightning as L
import pytest

import zoo
from zoo.callbacks.run import SayIdleOptions


class Data(L.LightningDataModule):
    batch_size = 16


RESNET = {"image_tower": "timm:test_vit", "image_tower_options": {"image_size": 32}}
RETRIEVAL = {**RESNET, "text_tower": "bert_tiny_chinese", "text_tower_options": {"num_layers": 1}, "embedding_dim": 16}
TINY = {"captioner": "encoder_decoder_tiny", "captioner_options": {**RESNET, "num_layers": 1}}
DALLE = {"num_layers": 1, "image_tokenizer_options": {"num_codes": 64}}
UNET = {"text_tower_options": {"num_layers": 1}}


def said(capsys, task, data, given, **trainer):
    """What is said of a task and a data module whose options are these."""
    trainer = SimpleNamespace(
        **{"datamodule": data, "is_global_zero": True, "max_epochs": 2, "estimated_stepping_batches": 8, **trainer}
    )
    task.trainer = trainer
    SayIdleOptions(given).on_fit_start(trainer, task)
    return capsys.readouterr().err.splitlines()


def said_of(capsys, name, options, **trainer):
    task = getattr(zoo, name)(**options)
    return said(capsys, task, Data(), {"model": {"init_args": options}}, **trainer)


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        ({"finetuning": {"lora_alpha": 32.0}}, ["model.finetuning.lora_alpha 32.0 has no effect: lora_rank is 0"]),
        ({"finetuning": {"lora_alpha": 16.0}}, []),  # its default
        (
            {"finetuning": {"image_trainable_layers": 0, "text_trainable_layers": 0, "layer_decay": 0.9}},
            ["model.finetuning.layer_decay 0.9 has no effect: both towers are frozen"],
        ),
        ({"finetuning": {"image_trainable_layers": 0, "layer_decay": 0.9}}, []),
        ({"chunk_size": 16}, ["model.chunk_size 16 has no effect: a batch has 16 pairs"]),
        ({"chunk_size": 8}, []),
        (
            {"init_from": "runs/clip", "image_pretrained": False, "text_pretrained": "auto"},
            ["model.image_pretrained false has no effect: all weights are those of init_from, runs/clip"],
        ),
        ({"init_from": "auto:OFA-Sys/x", "image_pretrained": False}, []),  # where it cannot be had
        (
            {"evaluation": {"monitor": None, "mode": "min"}},
            ['model.evaluation.mode "min" has no effect: monitor is null'],
        ),
    ],
)
def test_retrieval(capsys, options, idle):
    assert said_of(capsys, "RetrievalTask", {**RETRIEVAL, **options}) == idle


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        ({"reward": {"learning_rate": 1e-5}}, ["model.reward.learning_rate 1e-05 has no effect: samples is 0"]),
        (
            {"reward": {"samples": 2, "learning_rate": 1e-5}},
            ["model.reward.learning_rate 1e-05 has no effect: from_epoch is 0, and model.learning_rate is that of all"],
        ),
        (
            {"reward": {"samples": 2, "from_epoch": 2}},
            ["model.reward.samples 2 has no effect: it begins in epoch 2, and the training has 2, from 0 on"],
        ),
        ({"reward": {"samples": 2, "from_epoch": 1, "learning_rate": 1e-5}}, []),
        (
            {"captioner_options": {**TINY["captioner_options"], "decoding": {"beams": 1, "length_penalty": 0.5}}},
            ["model.captioner_options.decoding.length_penalty 0.5 has no effect: beams is 1"],
        ),
        ({"captioner_options": {**TINY["captioner_options"], "decoding": {"length_penalty": 0.5}}}, []),
        ({"captioner_options": {**TINY["captioner_options"], "decoding": {"beams": 1, "length_penalty": 1.0}}}, []),
        ({"image_learning_rate": 1e-5}, []),
    ],
)
def test_captioning(capsys, options, idle):
    assert said_of(capsys, "CaptioningTask", {**TINY, **options}) == idle


def test_the_learning_rate_of_a_frozen_tower(capsys):
    options = {**TINY, "image_learning_rate": 1e-5}
    task = zoo.CaptioningTask(**options)
    task.captioner.image_tower.requires_grad_(False)
    assert said(capsys, task, Data(), {"model": {"init_args": options}}) == [
        "model.image_learning_rate 1e-05 has no effect: nothing of the captioner's image_tower is trained"
    ]


@pytest.mark.parametrize(
    ("generator", "sampling", "idle"),
    [
        ("dalle_tiny", {"temperature": 0.0, "top_k": 5}, ["top_k 5 has no effect: temperature is 0, which takes the"]),
        ("dalle_tiny", {"top_k": 1, "top_p": 0.5}, ["top_p 0.5 has no effect: top_k is 1"]),
        ("dalle_tiny", {"top_k": 5, "top_p": 0.5}, []),
        ("unet_tiny", {"guidance": 1.0, "guidance_until": 0.5}, ["guidance_until 0.5 has no effect: guidance is 1,"]),
        ("unet_tiny", {"guidance": 2.0, "guidance_until": 0.0}, ["guidance 2.0 has no effect: guidance_until is 0,"]),
        ("unet_tiny", {"guidance": 2.0, "guidance_until": 0.5}, []),
    ],
)
def test_sampling(capsys, generator, sampling, idle):
    parts = DALLE if generator == "dalle_tiny" else UNET
    lines = said_of(
        capsys, "TextToImageTask", {"generator": generator, "generator_options": {**parts, "sampling": sampling}}
    )
    assert len(lines) == len(idle)
    for line, words in zip(lines, idle, strict=True):
        assert line.startswith(f"model.generator_options.sampling.{words}")


def test_published_weights_of_a_part_that_is_not_there(capsys):
    options = {"generator": "dalle_tiny", "generator_options": DALLE, "text_pretrained": True}
    assert said_of(capsys, "TextToImageTask", options) == [
        "model.text_pretrained true has no effect: the model has no such part"
    ]


@pytest.mark.parametrize(
    ("start", "idle"),
    [
        (None, ["model.discriminator_width 32 has no effect: there is no discriminator: it is never asked"]),
        (
            8,
            [
                "model.discriminator_width 32 has no effect: there is no discriminator: it would begin at step 8, when"
                " training has ended",
                "model.discriminator_start 8 has no effect: training has ended by then",
            ],
        ),
        (7, []),
    ],
)
def test_a_discriminator_that_never_begins(capsys, start, idle):
    options = {
        **{"image_tokenizer": "vqgan_tiny", "image_tokenizer_options": {"num_codes": 64}, "image_size": 32},
        **{
            "discriminator_start": start,
            "discriminator_width": 32,
            "discriminator_layers": 2,
            "perceptual": "laplacian",
        },
    }
    lines = said_of(capsys, "ImageTokenizerTask", options)
    assert [line for line in lines if "_layers" not in line] == idle


def test_what_the_data_make_idle_is_said_once_when_training_begins(zoo_main, workplace):
    flags = (
        "--data.group_size",
        "8",
        "--data.augment_on",
        "worker",
        "--data.flip",
        "1",
    )
    code, _, err = zoo_main("fit", "--config", "experiments/tiny.yaml", *flags, "--trainer.max_epochs", "0")
    assert code == 0
    assert [line for line in err.splitlines() if "no effect" in line] == [
        'data.augment_on "worker" has no effect: auto_augment is false',
    ]  # its queries of a colour name several images: they are groups


def test_data_without_groups_and_images_of_one_reference(capsys, muge_root):
    retrieval = zoo.RetrievalDataModule(str(muge_root), group_size=8, batch_size=4)
    assert "data.group_size" not in retrieval.idle_options()
    singles = zoo.RetrievalDataModule(str(muge_root), group_size=8, batch_size=4)
    opened = singles.open("train")
    opened.answers = [query for query in opened.answers if len(query.item_ids) == 1]
    opened.queries = opened.answers
    assert singles.idle_options()["data.group_size"].startswith("the data label no groups")
    captions = zoo.CaptioningDataModule(str(muge_root), captions_per_image=2, max_references=1)
    assert captions.idle_options() == {"data.captions_per_image": "no image has more than one reference"}
    assert zoo.CaptioningDataModule(str(muge_root), captions_per_image=2).idle_options() == {}
