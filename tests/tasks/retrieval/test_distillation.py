"""Learning from a teacher: which of its embeddings a batch is given, when they are made, what is learnt of them."""

import csv
import os

import numpy as np
import pytest
import tiny
import torch
import yaml
from torch.nn.functional import normalize

import zoo
from zoo.core.weights import read_torch
from zoo.errors import UserError
from zoo.tasks.retrieval.distillation import (
    DistillationOptions,
    TeacherEmbeddings,
    divergence,
    with_width,
)


def unit(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_divergence_is_that_of_the_softmaxes_over_the_keys():
    student, teacher, keys = unit(5, 8), unit(5, 8, seed=1), unit(30, 8, seed=2)
    own, wanted = (torch.softmax(20 * side.double() @ keys.double().T, dim=1) for side in (student, teacher))
    expected = (wanted * (wanted / own).log()).sum(dim=1).mean()
    assert divergence(student, teacher, keys, 20) == pytest.approx(float(expected), rel=1e-5)
    assert divergence(teacher, teacher, keys, 20) == pytest.approx(0, abs=1e-6)


def test_a_batch_is_held_against_the_embeddings_of_its_ids():
    queries, images = unit(3, 4), unit(2, 4, seed=1)
    teacher = TeacherEmbeddings(np.array([5, 7, 30]), queries, np.array([100, 2000]), images, scale=10)
    batch = {"query_id": torch.tensor([30, 5]), "image_id": torch.tensor([2000, 2000])}
    of_images, of_texts = teacher.of(batch)
    assert torch.equal(of_images, images[[1, 1]])
    assert torch.equal(of_texts, queries[[2, 0]])
    assert teacher.loss(of_images, of_texts, batch) == pytest.approx(0, abs=1e-6)
    other = unit(2, 4, seed=5)
    sides = divergence(other, of_images, queries, 10), divergence(other, of_texts, images, 10)
    assert teacher.loss(other, other, batch) == pytest.approx(float(sum(sides) / 2))


def test_a_wider_space_holds_the_same_cosines_and_a_narrower_one_most_of_them():
    basis = torch.linalg.qr(torch.randn(12, 5, generator=torch.Generator().manual_seed(0)))[0]  # 5 of 12 dimensions
    queries, images = unit(40, 5) @ basis.T, unit(30, 5, seed=1) @ basis.T
    for width in (12, 20, 5):
        *narrow, axes = with_width(queries, images, width)
        assert [side.shape[1] for side in narrow] == [width, width]
        assert (axes is None) == (width >= 12)
        torch.testing.assert_close(narrow[0] @ narrow[1].T, queries @ images.T)
    *few, axes = with_width(queries, images, 3)
    assert all(torch.equal(*pair) for pair in zip(few, with_width(queries, images, 3, axes), strict=False))
    assert torch.corrcoef(torch.stack([(few[0] @ few[1].T).flatten(), (queries @ images.T).flatten()]))[0, 1] > 0.8
    torch.testing.assert_close(few[0].norm(dim=1), torch.ones(40))


@pytest.fixture
def begun(tmp_path, muge_root, monkeypatch):
    """Trains a student by the command: ``rows = begun("--trainer.max_epochs 1")``; the teacher is ``teacher.ckpt``."""
    from zoo.__main__ import main

    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tiny.write_matcher("teacher.ckpt", seed=3, embedding_dim=24, image_tower_options={"image_size": 48})
    experiment = yaml.safe_load(tiny.EXPERIMENT.replace("ROOT", str(muge_root)))
    experiment["model"]["init_args"]["distillation"] = {"teacher": "teacher.ckpt", "weight": 1.0}
    experiment["data"]["init_args"]["num_workers"] = 2
    (tmp_path / "_base.yaml").write_text("trainer: {use_distributed_sampler: false, num_sanity_val_steps: 0}\n")
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(experiment))

    def train(words, runs="runs"):
        assert main(["fit", "--config", "student.yaml", "--runs", runs, *words.split()]) == 0
        file = max((tmp_path / runs).glob("student/*/metrics.csv"))
        return list(csv.DictReader(file.open()))

    return train


def column(rows, name):
    return [float(row[name]) for row in rows if row[name]]


def test_a_student_learns_what_its_teacher_says(begun, tmp_path, muge_root):
    apart = column(begun("--trainer.max_epochs 12 --model.learning_rate 0.01"), "train/distillation")
    assert np.mean(apart[-3:]) < 0.7 * np.mean(apart[:3])
    (file,) = (tmp_path / "cache" / "teachers").glob("*.pt")
    queries, images = read_torch(file)
    teacher = zoo.load("teacher.ckpt")
    data = zoo.RetrievalDataModule(str(muge_root), image_size=48, num_workers=0)
    data.setup("fit")
    named = {query.query_id: query.text for query in data._training[0].queries}
    texts = [named[query_id] for query_id in np.unique(data.training_pairs()[:, 0])]
    torch.testing.assert_close(queries.float(), teacher.encode_text(texts), rtol=0, atol=1e-3)  # kept in fp16
    assert images.shape == (24, 24)
    assert "teacher" not in " ".join(zoo.load("runs/student").state_dict())


def test_the_teacher_is_asked_once_and_again_only_for_other_images(begun, tmp_path, muge_root, monkeypatch):
    from zoo.tasks.retrieval import distillation

    asked = []
    embed = distillation.embed_training
    monkeypatch.setattr(
        distillation, "embed_training", lambda *args, **options: asked.append(1) or embed(*args, **options)
    )
    first = column(begun("--trainer.max_epochs 1"), "train/loss")
    assert column(begun("--trainer.max_epochs 1", runs="again"), "train/loss") == first
    assert len(asked) == 1
    tiny.write_muge(tmp_path / "other")
    images = tmp_path / "other" / "Multimodal_Retrieval" / "MR_train_imgs.tsv"
    os.utime(images, ns=(0, 1))
    begun(f"--trainer.max_epochs 1 --data.root {tmp_path / 'other'}", runs="third")
    assert len(asked) == 2
    contents = torch.load("teacher.ckpt", weights_only=True)
    contents["hyper_parameters"]["text_tower_options"]["context_length"] = 4  # the same weights, other embeddings
    torch.save(contents, "teacher.ckpt")
    begun("--trainer.max_epochs 1", runs="fourth")
    assert len(asked) == 3


def test_a_resumed_training_repeats_an_uninterrupted_one(begun, tmp_path, monkeypatch):
    words = "--trainer.max_epochs 3 --save_every 1 --model.embedding_dim 8 --trainer.callbacks+ interrupt.Interrupt"
    whole = begun(words, runs="whole")
    monkeypatch.setenv("INTERRUPT", "raise forward 4 all")
    with pytest.raises(ArithmeticError):
        begun(words, runs="part")
    monkeypatch.delenv("INTERRUPT")
    monkeypatch.setattr(torch.linalg, "eigh", None)  # the axes are those of the beginning, whatever computes now
    resumed = begun("--ckpt_path last", runs="part")
    assert column(resumed, "train/distillation") == column(whole, "train/distillation")


def test_null_leaves_the_teacher_out(begun):
    assert not any(
        "train/distillation" in row for row in begun("--trainer.max_epochs 1 --model.distillation.teacher null")
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model.distillation.teacher nothing.ckpt", "model.distillation.teacher nothing.ckpt: there is no such"),
        ("--model.distillation.weight 0", "model.distillation.weight is 0.0"),
    ],
)
def test_what_is_no_teacher_is_said(begun, capsys, words, said):
    from zoo.__main__ import main

    assert main(["fit", "--config", "student.yaml", *words.split()]) != 0
    assert said in capsys.readouterr().err


def test_a_weight_without_a_teacher_is_idle():
    assert DistillationOptions(weight=3.0).idle() == {"weight": "there is no teacher"}
    with pytest.raises(UserError):
        DistillationOptions(weight=-1)
