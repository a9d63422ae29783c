"""The image tokenizer's data: images of any of MUGE's folders; ECommerce-T2I's are those of text to image."""

import base64
import shutil

import lightning as L
import numpy as np
import pytest
import torch

from zoo.data import images
from zoo.data.tsv import ImageTsv
from zoo.errors import UserError
from zoo.tasks import ImageTokenizerTask
from zoo.tasks.image_tokenizer.data import ImageTokenizerDataModule
from zoo.tasks.text_to_image.data import TextToImageDataModule

FILES = {"Multimodal_Retrieval": "MR_{}_imgs.tsv", "ECommerce-IC": "IC_{}.tsv"}
SMALL = {"image_size": 16, "batch_size": 4, "eval_batch_size": 5, "num_workers": 0}


def module(root, **options):
    data = ImageTokenizerDataModule(str(root), **{**SMALL, **options})
    data.setup("fit")
    return data


def test_where_there_are_several_folders_the_described_images_are_read(muge_root):
    data, expected = module(muge_root, flip=0.5), TextToImageDataModule(str(muge_root), flip=0.5, **SMALL)
    expected.setup("fit")
    assert data.targets("valid") == expected.targets("valid")
    for own, others in ((data.train_dataloader(), expected.train_dataloader()),):
        for batch, other in zip(own, others, strict=True):
            assert torch.equal(batch["image"], other["image"])
            assert torch.equal(batch["flip"], other["flip"])


@pytest.mark.parametrize("folder", FILES)
def test_images_of_the_other_layouts_are_read_without_texts(muge_root, folder):
    data = module(muge_root / folder)
    path = muge_root / folder / FILES[folder].format("valid")
    tsv = ImageTsv(path, int if folder == "Multimodal_Retrieval" else str)
    targets = data.targets("valid")
    assert targets.image_ids == [str(image_id) for image_id in tsv.ids]
    assert targets.texts == []
    (loader,) = data.val_dataloader()
    expected = [images.resize(images.decode(tsv[row]), 16) for row in range(len(tsv))]
    np.testing.assert_array_equal(
        np.concatenate([batch["image"].permute(0, 2, 3, 1).numpy() for batch in loader]), np.stack(expected)
    )
    np.testing.assert_array_equal(data.image("valid", 1), images.decode(tsv[1]))
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert "text" not in batch


def test_some_images_are_evaluated_all_are_compared_with(muge_root):
    data = module(muge_root / "ECommerce-IC", valid_images=3, train_images=2)
    assert data.evaluated_splits("valid") == ["valid", "train"]
    targets = data.targets("valid")
    assert len(targets.rows) == 3 < len(targets.image_ids)
    assert sum(len(batch["row"]) for batch in data.images_loader("valid")) == len(targets.image_ids)
    assert [len(loader.dataset) for loader in data.val_dataloader()] == [3, 2]


def test_broken_images_are_named_or_left_out(muge_root, tmp_path, capsys):
    folder = shutil.copytree(muge_root / "ECommerce-IC", tmp_path / "ECommerce-IC")
    path = folder / "IC_valid.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    image_id = lines[2].split("\t")[0]
    lines[2] = f"{image_id}\t{base64.urlsafe_b64encode(b'no image').decode()}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"IC_valid\.tsv:3"):
        list(module(tmp_path).val_dataloader()[0])
    kept = module(tmp_path, on_error="skip").targets("valid").image_ids
    assert kept == [line.split("\t")[0] for place, line in enumerate(lines) if place != 2]
    assert "leaving out of valid: 1 broken rows" in capsys.readouterr().err


def test_a_folder_of_no_layout_is_refused(tmp_path):
    with pytest.raises(UserError, match="ECommerce-T2I") as error:
        module(tmp_path)
    assert error.value.argument == "root"
    assert error.value.value == str(tmp_path)
    assert error.value.valid == ("ECommerce-T2I", "ECommerce-IC", "Multimodal_Retrieval")


@pytest.mark.parametrize("folder", ["Multimodal_Retrieval", "ECommerce-T2I"])
def test_it_trains_and_evaluates_with_r_precision_where_images_have_descriptions(
    muge_root, tmp_path, matcher_file, capsys, folder
):
    task = ImageTokenizerTask(
        "vqgan_tiny",
        image_tokenizer_options={"num_codes": 32, "width": 32, "multipliers": (1, 1), "patch_size": 1},
        image_size=16,
        perceptual="laplacian",
        discriminator_start=None,
        discriminator_width=8,
        discriminator_layers=1,
        evaluation={"matcher": str(matcher_file()), "inception": "none"},
    )
    trainer = L.Trainer(
        max_epochs=1,
        limit_train_batches=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, ImageTokenizerDataModule(str(muge_root / folder), **SMALL))
    described = folder == "ECommerce-T2I"
    logged = {"val/psnr", "val/ssim", "val/codebook_usage", "val/precision_clip"}
    assert logged <= set(trainer.callback_metrics)
    assert ("val/r_precision" in trainer.callback_metrics) == described
    assert ("have no descriptions of their own" in capsys.readouterr().err) != described
