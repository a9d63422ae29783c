"""Each score as a torchmetrics.Metric, alone and in a stranger's LightningModule on two processes of uneven shares."""

import lightning as L
import pytest
import torch
from torch.nn.functional import normalize
from torchmetrics import MetricCollection

import zoo.metrics
from zoo.tasks.image_tokenizer.metrics import image_similarity
from zoo.tasks.text_to_image.metrics.frechet import frechet_distance_of
from zoo.tasks.text_to_image.metrics.inception_score import inception_score
from zoo.tasks.text_to_image.metrics.kernel_distance import kernel_distance
from zoo.tasks.text_to_image.metrics.precision_recall import precision_recall
from zoo.tasks.text_to_image.metrics.r_precision import draw_distractors
from zoo.tasks.text_to_image.metrics.scores import r_precision_scores

COUNT, WIDTH = 45, 12
PROMPTS = [f"商品{place % 40}" for place in range(COUNT)]


def images(seed):
    return torch.randint(256, (COUNT, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def extract(images):
    """Features of a stranger's own: the means of twelve areas."""
    return images.float().reshape(len(images), WIDTH, -1).mean(dim=-1) / 10


GENERATED, TRUE = images(0), images(1)
READ = normalize(extract(TRUE) - 12, dim=-1)


def metrics():
    return {
        "frechet": zoo.metrics.FrechetDistance(extract),
        "kernel": zoo.metrics.KernelDistance(extract, subsets=5, subset_size=20),
        "inception": zoo.metrics.InceptionScore(extract, splits=4),
        "precision_recall": zoo.metrics.PrecisionRecall(extract),
        "psnr": zoo.metrics.PSNR(),
        "ssim": zoo.metrics.SSIM(),
    }


def unit(images):
    return normalize(extract(images) - 12, dim=-1)


def expected():
    """The functional core's."""
    generated, true = extract(GENERATED), extract(TRUE)
    kernel = kernel_distance(generated, true, subsets=5, subset_size=20)
    inception = inception_score(generated, splits=4)
    return {
        "frechet": frechet_distance_of(generated, true),
        "kernel": {"mean": kernel.mean, "std": kernel.deviation},
        "inception": {"mean": inception.mean, "std": inception.deviation},
        "precision_recall": precision_recall(generated, true)._asdict(),
        **{name: value.double().mean().item() for name, value in image_similarity(GENERATED, TRUE).items()},
        "r_precision": r_precision_scores(
            unit(GENERATED), torch.arange(COUNT), PROMPTS, READ, None, draw_distractors(PROMPTS)
        ),
    }


def update(metric, rows):
    name = type(metric).__name__
    if name == "RPrecision":
        metric.update(unit(GENERATED[rows]), rows)
    elif name in ("PSNR", "SSIM"):
        metric.update(GENERATED[rows], TRUE[rows])
    elif name == "InceptionScore":
        metric.update(GENERATED[rows], rows=rows)
    else:
        metric.update(GENERATED[rows], TRUE[rows], rows)


def plain(value):
    return {key: float(each) for key, each in value.items()} if isinstance(value, dict) else float(value)


def all_metrics():
    return {**metrics(), "r_precision": zoo.metrics.RPrecision(PROMPTS, prompt_features=READ)}


@pytest.mark.parametrize("name", [*metrics(), "r_precision"])
def test_a_metric_is_its_functional_core_whatever_the_order_of_batches(name):
    metric = all_metrics()[name]
    for _ in range(2):
        for rows in reversed(torch.arange(COUNT).split(10)):
            update(metric, rows)
        assert plain(metric.compute()) == pytest.approx(expected()[name], abs=1e-12 if name != "r_precision" else 0)
        metric.reset()


def test_features_may_come_in_the_place_of_images_and_sides_apart():
    metric = zoo.metrics.FrechetDistance()
    metric.update(images=extract(GENERATED))
    for batch in extract(TRUE).split(9):
        metric.update(true_images=batch)
    assert float(metric.compute()) == expected()["frechet"]
    with pytest.raises(ValueError, match="with an extractor"):
        metric.update(GENERATED)


def test_by_default_a_metric_is_its_function_by_default():
    generated, true = extract(GENERATED), extract(TRUE)
    for metric, found in (
        (zoo.metrics.KernelDistance(), kernel_distance(generated, true)),
        (zoo.metrics.InceptionScore(), inception_score(generated)),
        (zoo.metrics.PrecisionRecall(), precision_recall(generated, true)),
    ):
        metric.update(generated) if isinstance(metric, zoo.metrics.InceptionScore) else metric.update(generated, true)
        assert list(plain(metric.compute()).values()) == list(found)[:2]
    assert zoo.metrics.KernelDistance().options == {"subsets": 100, "subset_size": 1000, "seed": 2020}
    assert zoo.metrics.InceptionScore().options == {"splits": 10, "seed": 2020}


def test_images_are_numbered_as_they_come():
    metric = zoo.metrics.FrechetDistance()
    for _ in range(2):
        for batch in extract(GENERATED).split(7):
            metric.update(batch)
        for batch in extract(TRUE).split(9):
            metric.update(true_images=batch)
        assert torch.equal(metric.sets.features("generated"), extract(GENERATED))
        assert torch.equal(metric.sets.features("true"), extract(TRUE))
        metric.reset()


def test_processes_number_images_in_turn(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    sets = zoo.metrics.FrechetDistance().sets
    sets.counts["true"] = 2
    assert sets._next_rows("true", 3).tolist() == [7, 10, 13]
    assert sets._next_rows("generated", 2).tolist() == [1, 4]
    assert sets._next_rows("true", 1).dtype == torch.int64


def test_precision_and_recall_are_of_as_many_neighbours_as_asked_for():
    for neighbours in (1, 5):
        metric = zoo.metrics.PrecisionRecall(neighbours=neighbours)
        metric.update(extract(GENERATED), extract(TRUE))
        found = precision_recall(extract(GENERATED), extract(TRUE), neighbours=neighbours)
        assert plain(metric.compute()) == found._asdict()


@pytest.mark.parametrize("features", [torch.ones(3, 2, dtype=torch.int64), torch.ones(3), torch.ones(3, 2, 2)])
def test_what_is_no_features_is_refused(features):
    with pytest.raises(ValueError, match=r"must be \[B, D\] of a floating type"):
        zoo.metrics.FrechetDistance().update(features)


def test_an_image_that_comes_twice_counts_once():
    metric = zoo.metrics.KernelDistance(extract, subsets=5, subset_size=20)
    for rows in (torch.arange(COUNT), torch.arange(7)):
        update(metric, rows)
    assert plain(metric.compute()) == expected()["kernel"]


def test_a_call_takes_a_batch_and_scores_nothing():
    metric = zoo.metrics.KernelDistance(extract, subsets=5, subset_size=20)
    for rows in reversed(torch.arange(COUNT).split(20)):
        assert metric(GENERATED[rows], TRUE[rows], rows=rows) is None
    assert plain(metric.compute()) == expected()["kernel"]
    matching = zoo.metrics.RPrecision(PROMPTS, prompt_features=READ)
    for rows in torch.arange(COUNT).split(20):
        assert matching(unit(GENERATED[rows]), rows=rows) is None
    assert plain(matching.compute()) == expected()["r_precision"]


@pytest.mark.parametrize(
    ("name", "metric", "told", "taken"),
    [
        ("inception", zoo.metrics.FrechetDistance, {"inception": "auto", "features": []}, "first"),
        ("inception", zoo.metrics.InceptionScore, {"inception": "auto", "features": []}, "logits"),
        ("timm:resnet50", zoo.metrics.PrecisionRecall, {"inception": "none", "features": ["timm:resnet50"]}, "first"),
    ],
)
def test_an_extractor_is_found_by_its_name(monkeypatch, name, metric, told, taken):
    class Extractors:
        first = "first"

        def __init__(self, **options):
            assert options == told

        def to(self, device):
            assert device == torch.device("cpu")
            return self

        def extract_features(self, images):
            features = extract(images)
            return {"first": features, "logits": features + torch.arange(float(WIDTH))}

    monkeypatch.setattr("zoo.tasks.text_to_image.metrics.image_sets.FeatureExtractors", Extractors)
    found = metric(name)
    found.update(GENERATED)
    expected = extract(GENERATED) + (torch.arange(float(WIDTH)) if taken == "logits" else 0)
    assert torch.equal(found.sets.features("generated"), expected)


def test_r_precision_takes_a_matcher(matcher_file):
    metric = zoo.metrics.RPrecision(PROMPTS, matcher=str(matcher_file()))
    metric.update(GENERATED, torch.arange(COUNT))
    read = zoo.load(matcher_file()).encode_text(PROMPTS)
    looked = metric.extractors.extract_features(GENERATED)["clip"]
    expected = r_precision_scores(looked, torch.arange(COUNT), PROMPTS, read, None, draw_distractors(PROMPTS))
    assert plain(metric.compute()) == pytest.approx(expected)
    assert list(metric.extractors.by_name) == ["clip"]
    assert metric.extractors.lacking is None  # Inception is not even looked for
    with pytest.raises(ValueError, match="one of both"):
        zoo.metrics.RPrecision(PROMPTS)


class Strangers(L.LightningModule):
    """Somebody's own module: a collection, and R-precision beside it. The first process has three times as much."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.layer = torch.nn.Linear(1, 1)
        self.scores = MetricCollection(metrics())
        self.matching = zoo.metrics.RPrecision(PROMPTS, prompt_features=READ)

    def setup(self, stage):
        torch.set_num_threads(1)  # the parent's thread pool does not survive the fork

    def val_dataloader(self):
        places = [place for place in range(COUNT) if (place % 4 == 3) == (self.global_rank == 1)]
        return torch.utils.data.DataLoader(places, batch_size=8)

    def validation_step(self, rows, batch_idx):
        self.scores.update(images=GENERATED[rows], true_images=TRUE[rows], rows=rows)
        self.matching.update(unit(GENERATED[rows]), rows)

    def on_validation_epoch_end(self):
        values = {**self.scores.compute(), **self.matching.compute()}
        self.log_dict(values, sync_dist=False)
        torch.save(values, self.folder / f"{self.global_rank}.pt")
        self.scores.reset()
        self.matching.reset()


def test_in_a_strangers_module_on_two_processes_of_uneven_shares(tmp_path):
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.validate(Strangers(tmp_path), verbose=False)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    wanted = expected()
    flat = {"frechet": wanted["frechet"], "psnr": wanted["psnr"], "ssim": wanted["ssim"], **wanted["r_precision"]}
    together = ("kernel", "inception", "precision_recall")
    flat |= {f"{name}_{key}": value for name in together for key, value in wanted[name].items()}
    assert first == second
    assert set(first) == set(flat)
    assert plain(first) == pytest.approx(flat, rel=1e-12)
