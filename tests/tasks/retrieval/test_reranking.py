"""Rerankers: scores held against transformers' own logits, recall against a plain sorting, one process against two."""

import json

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from tiny_vlm import CLASSES, write_vlm
from transformers import AutoModelForImageTextToText, AutoProcessor

import zoo
from zoo.core.export import export
from zoo.data.images import resize
from zoo.errors import UserError
from zoo.models.vlm import QWEN
from zoo.tasks.retrieval.evaluation import RetrievalEvaluationOptions
from zoo.tasks.retrieval.metrics import RetrievalRecall
from zoo.tasks.retrieval.ranking import reranked
from zoo.tasks.retrieval.reranking import load_reranker

TINY = ("--config", "experiments/tiny.yaml")
QUERY = "红色方块"


def photos(count, size=40):
    coarse = np.random.default_rng(0).integers(0, 255, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(image).resize((size, size + 8), Image.Resampling.NEAREST) for image in coarse]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """Writes a vision-language model that can answer yes or no: ``folder = judge("qwen3_vl")``; read only."""
    made = {}

    def write(family="qwen3_vl"):
        if family not in made:
            size = CLASSES[family][1]
            folder = write_vlm(tmp_path_factory.mktemp(family) / "model", family, largest=size)
            processor = AutoProcessor.from_pretrained(folder)
            processor.tokenizer.add_tokens(["yes", "no"])
            processor.save_pretrained(folder)
            made[family] = folder
        return made[family]

    return write


@torch.no_grad()
def own_scores(folder, query, images, size):
    """The logit of yes less that of no by transformers alone, in the form of Qwen3-VL-Reranker's published code."""
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    yes, no = (processor.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    judging = (
        "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
        'Note that the answer can only be "yes" or "no".'
    )
    instruction = "<Instruct>: Retrieve images or text relevant to the user's query."
    scores = []
    for image in images:
        square = Image.fromarray(resize(np.array(image), size))
        texts = [{"type": "text", "text": text} for text in (instruction, "<Query>:", query, "\n<Document>:")]
        chat = [
            {"role": "system", "content": [{"type": "text", "text": judging}]},
            {"role": "user", "content": [*texts, {"type": "image", "image": square}]},
        ]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        logits = model(**processor.apply_chat_template(chat, **options)).logits[0, -1]
        scores.append(logits[yes] - logits[no])
    return torch.stack(scores)


@pytest.mark.parametrize("family", QWEN)
def test_a_vision_language_model_scores_as_transformers_does(judge, family):
    images = photos(18)  # more than it reads at a time
    reranker = load_reranker(judge(family))
    found = reranker.score(QUERY, images)
    expected = own_scores(judge(family), QUERY, images, reranker.image_size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert found.dtype == torch.float32
    assert len(found.unique()) > 10
    assert reranker.score(QUERY, []).shape == (0,)
    assert torch.equal(reranker.score("红色<|image_pad|>", images[:1]), reranker.score("红色 ", images[:1]))


def test_a_retrieval_model_scores_by_its_cosines(matcher_file):
    reranker, task = load_reranker(matcher_file()), zoo.load(matcher_file())
    expected = task.encode_image(photos(3)) @ task.encode_text([QUERY])[0]
    assert torch.equal(reranker.score(QUERY, photos(3)), expected)
    assert reranker.score(QUERY, []).shape == (0,)


def test_an_exported_captioner_is_no_reranker(judge, tmp_path):
    export(judge(), tmp_path / "captioner", kind="safetensors")
    with pytest.raises(UserError, match="it is of CaptioningTask, which scores no images for a query"):
        load_reranker(tmp_path / "captioner")


def test_a_model_without_yes_and_no_is_refused(tmp_path):
    write_vlm(tmp_path / "model", "qwen3_vl")
    with pytest.raises(UserError, match="its tokenizer has no token 'yes'"):
        load_reranker(tmp_path / "model")


def test_a_model_without_weights_is_refused(judge, tmp_path):
    for file in judge().iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="its weights cannot be had"):
        load_reranker(tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_equal_scores_keep_the_order_of_the_file(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.stack([torch.randperm(30, generator=generator)[:8] for _ in range(6)])
    scores = torch.randint(3, rows.shape, generator=generator).float()
    for own, given, found in zip(rows.tolist(), scores.tolist(), reranked(rows, scores).tolist(), strict=True):
        pairs = zip(given, own, strict=True)
        assert found == [row for _, row in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))]


@pytest.mark.parametrize("scores", [torch.zeros(2, 2), torch.tensor([[0.0, 1.0, torch.nan]] * 2)])
def test_scores_that_cannot_sort_are_refused(scores):
    with pytest.raises(ValueError, match=r"must be \[2, 3\], all finite"):
        reranked(torch.zeros(2, 3, dtype=torch.int64), scores)


def plain_recall(ranking, positives):
    """Recall of lists of image ids, best first."""
    pairs = zip(ranking, positives, strict=True)
    first = [next((k for k, image in enumerate(own) if image in true), 10**9) for own, true in pairs]
    return {f"recall@{k}": 100 * sum(rank < k for rank in first) / len(first) for k in (1, 5, 10)}


@pytest.mark.parametrize("top", [1, 3, 12, 40])
def test_images_behind_the_first_keep_their_places(top):
    generator = torch.Generator().manual_seed(top)
    queries, images = (torch.randn(count, 4, generator=generator) for count in (25, 40))
    image_ids, query_ids = [*range(100, 140)], [*range(25)]
    positives = [tuple((100 + torch.randperm(40, generator=generator)[:2]).tolist()) for _ in query_ids]
    groups = ["长" if number % 3 else "短" for number in query_ids]
    metric = RetrievalRecall(
        query_ids=query_ids, image_ids=image_ids, positives=positives, groups=groups, complete_labels=True
    )
    metric.update(torch.tensor(query_ids), queries, side="query")
    metric.update(torch.tensor(image_ids), images, side="image")
    before = metric.compute()
    scores = torch.randint(4, (25, top), generator=generator).float()
    whole, first = metric.ranking(40)[1].tolist(), metric.ranking(top)[1].tolist()
    ranking = []
    for own, given, rest in zip(first, scores.tolist(), whole, strict=True):
        best = sorted(zip(given, own, strict=True), key=lambda pair: (-pair[0], pair[1]))
        ranking.append([image for _, image in best] + rest[top:])
    found = metric.compute_reranked(scores)
    for name, value in plain_recall(ranking, positives).items():
        assert found[f"{name}/reranked"] == pytest.approx(value)
    short = [place for place, group in enumerate(groups) if group == "短"]
    expected = plain_recall([ranking[place] for place in short], [positives[place] for place in short])
    assert found["recall@5/reranked/短"] == pytest.approx(expected["recall@5"])
    hits = [len({*own[:10]} & {*true}) for own, true in zip(ranking, positives, strict=True)]
    assert found["precision@10/reranked"] == pytest.approx(100 * np.mean(hits) / 10)
    assert {name.replace("/reranked", "") for name in found} == before.keys()
    assert metric.compute() == before
    if top >= 12:
        own = metric.compute_reranked(metric.ranking(top)[2])  # by its own scores: nothing changes
        assert {name.replace("/reranked", ""): value for name, value in own.items()} == before


def expected_numbers(reranker, first, root, top):
    """Recall of the test split once a reranker has sorted the first images, from scores of single queries."""
    data = zoo.RetrievalDataModule(str(root), image_size=first.image_size)
    targets = data.targets("test")
    gallery = [Image.fromarray(data.image("test", number)) for number in targets.image_ids]
    scores = first.encode_text(targets.texts) @ first.encode_image(gallery).T
    ranking = []
    for text, own in zip(targets.texts, scores, strict=True):
        order = own.argsort(descending=True, stable=True)
        rows = order[:top].sort().values
        again = reranker.score(text, [gallery[row] for row in rows])
        best = rows[again.argsort(descending=True, stable=True)]
        ranking.append([targets.image_ids[row] for row in [*best, *order[top:]]])
    return plain_recall(ranking, targets.positives)


@pytest.mark.parametrize("kind", ["retrieval", "vision-language"])
def test_the_command_logs_both_recalls(zoo_main, muge_root, matcher_file, judge, workplace, only_run, kind):
    code, _, err = zoo_main("fit", *TINY)
    assert code == 0, err
    other, run = matcher_file(seed=1) if kind == "retrieval" else judge(), only_run(workplace)
    assert zoo_main("test")[0] == 0
    plain = json.loads((run / "test.json").read_text())["metrics"]
    options = ("--model.evaluation.rerank", other, "--model.evaluation.rerank_top", 6)
    code, out, err = zoo_main("test", *options)
    assert code == 0, err
    contents = json.loads((run / "test.json").read_text())
    assert contents["metrics"] == contents["metrics"] | plain  # what they were
    for name, value in expected_numbers(load_reranker(other), zoo.load(run), muge_root, 6).items():
        assert contents["metrics"][f"test/{name}/reranked"] == pytest.approx(value, abs=1e-4)
    assert contents["metrics"]["test/mean_recall/reranked"] != plain["test/mean_recall"]
    assert (contents["protocol"]["reranker"], contents["protocol"]["reranked"]) == (str(other), 6)
    assert "│ reranked " in out


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("kind", ["retrieval", "vision-language"])
def test_two_processes_log_what_one_does(zoo_process, tmp_path, muge_root, matcher_file, judge, kind):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.yaml").write_text(tiny.EXPERIMENT.replace("ROOT", str(muge_root)))
    (tmp_path / "experiments" / "_base.yaml").write_text("trainer: {use_distributed_sampler: false}\n")
    other = matcher_file(seed=1) if kind == "retrieval" else judge()
    model = tiny.write_matcher(tmp_path / "model.ckpt")
    words = ("test", *TINY, "--ckpt_path", "null", "--model.init_from", model, "--model.evaluation.rerank", other)
    found = []
    for processes in (1, 2):
        code, _, err = zoo_process(
            tmp_path, *words, "--model.evaluation.rerank_top", 5, "--runs", f"runs{processes}", processes=processes
        )
        assert code == 0, err
        (file,) = tmp_path.glob(f"runs{processes}/**/test.json")
        found.append(json.loads(file.read_text())["metrics"])
    assert found[0] == found[1]
    assert "test/mean_recall/reranked" in found[0]


def test_a_reranker_that_is_not_there_is_said(zoo_main):
    words = ("--ckpt_path", "null", "--model.evaluation.rerank", "nowhere.ckpt")
    code, _, err = zoo_main("test", *TINY, *words)
    assert code == 1
    assert "model.evaluation.rerank nowhere.ckpt: there is no such checkpoint" in err


def test_options_of_reranking():
    with pytest.raises(UserError) as error:
        RetrievalEvaluationOptions(rerank_top=0)
    assert (error.value.argument, error.value.value) == ("model.evaluation.rerank_top", 0)
    assert RetrievalEvaluationOptions().idle() == {"rerank_top": "there is no reranker"}
    assert RetrievalEvaluationOptions(rerank="model.ckpt").idle() == {}
