"""``python -m zoo score captioning``: scores with their protocol, every error with its place, without torch."""

import json
import subprocess
import sys
import time

import pytest

from zoo.cli.score import main
from zoo.data.formats import write_captions
from zoo.errors import UserError
from zoo.io import write_json_lines
from zoo.tasks.captioning.metrics.ngrams import CaptionReferences, DocumentFrequencies, Tokenization

REFERENCES = {"a1": ["时尚短裤", "夏季短裤"], "b2": ["NEW 连衣裙！"], "c3": ["手机壳", "保护手机壳"]}
CAPTIONS = {"c3": "手机壳", "a1": "时尚短裤", "b2": "new连衣裙"}
SIGNATURE = "tokens:muge|case:kept|punctuation:kept|df:targets.jsonl|refs:all"


@pytest.fixture
def files(tmp_path):
    """Answers and predictions of three images, in different orders."""
    targets, predictions = tmp_path / "targets.jsonl", tmp_path / "predictions.jsonl"
    write_captions(targets, REFERENCES.items())
    write_json_lines(predictions, ({"image_id": id_, "text": text} for id_, text in CAPTIONS.items()))
    return targets, predictions


@pytest.fixture
def score(files, capsys):
    """Scores the files: exit code, what was printed, what was said on the error stream."""

    def score(*words):
        capsys.readouterr()
        given = ["--targets", str(files[0]), "--predictions", str(files[1]), "--lowercase", "false"]
        code = main(["captioning", *given, *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return score


def result_of(*words, score):
    code, out, _ = score(*words)
    assert code == 0
    return json.loads(out)


def references_of(**options):
    cut = Tokenization(**options).tokenize
    references = CaptionReferences([[cut(text) for text in texts] for texts in REFERENCES.values()])
    return references, [cut(CAPTIONS[id_]) for id_ in REFERENCES]


def percent(scores):
    return pytest.approx({name: 100 * value for name, value in scores.items()})


def test_scores_control_ceiling_and_protocol_are_printed(score):
    references, captions = references_of()
    code, out, err = score()
    result = json.loads(out)
    assert code == 0
    ours = references.score(captions).corpus
    varied = {"distinct1": 100, "distinct2": 100, "different": 100, "empty": 0, "repetition": 0}
    assert result["metrics"] == pytest.approx({name: 100 * value for name, value in ours.items()} | varied)
    assert result["shuffled"] == percent(references.score(captions, rows=[1, 2, 0]).corpus)
    ceiling = result["human_ceiling"]
    assert (ceiling.pop("images"), ceiling.pop("rounds")) == (2, 2)
    assert ceiling == percent(references.human_ceiling().scores)
    protocol = result["protocol"]
    assert (protocol["signature"], protocol["images"], protocol["references"]) == (SIGNATURE, 3, 5)
    assert protocol["targets"].startswith("targets.jsonl, SHA-256 ")
    assert err.startswith(f"CIDEr-D {100 * ours['cider']:.2f} (BLEU-4 ")


def test_case_and_punctuation_change_scores_and_signature(score):
    result = result_of("--lowercase", "true", "--punctuation", "false", score=score)
    references, captions = references_of(lowercase=True, punctuation=False)
    assert result["metrics"]["cider"] == pytest.approx(100 * references.score(captions).corpus["cider"])
    assert result["metrics"]["bleu1"] > result_of(score=score)["metrics"]["bleu1"]
    assert result["protocol"]["signature"] == "tokens:muge|case:lower|punctuation:dropped|df:targets.jsonl|refs:all"


def test_case_is_dropped_unless_it_is_kept(files, score, capsys):
    result = result_of("--lowercase", "true", score=score)
    assert main(["captioning", "--targets", str(files[0]), "--predictions", str(files[1])]) == 0
    assert json.loads(capsys.readouterr().out) == result


def test_max_references_scores_against_the_first(score):
    result = result_of("--max_references", 1, score=score)
    cut = Tokenization().tokenize
    references = CaptionReferences([[cut(texts[0])] for texts in REFERENCES.values()])
    ours = references.score([cut(CAPTIONS[id_]) for id_ in REFERENCES]).corpus
    assert result["metrics"]["cider"] == pytest.approx(100 * ours["cider"])
    assert result["protocol"]["references"] == 3
    assert result["protocol"]["signature"].endswith("|refs:first 1")
    with pytest.raises(UserError, match="--max_references is 0: give 1 or more"):
        score("--max_references", 0)


def test_document_frequencies_are_counted_in_a_caption_file_or_read(score, tmp_path):
    train, counts = tmp_path / "IC_train.jsonl", tmp_path / "train.json"
    texts = {"x": ["短裤", "裙"], "y": ["短裤"], "z": ["手机"]}
    write_captions(train, texts.items())
    cut = Tokenization().tokenize
    frequencies = DocumentFrequencies.of([[cut(text) for text in own] for own in texts.values()])
    frequencies.write(counts, tokenization=Tokenization())
    counted, read = (result_of("--document_frequencies", path, score=score) for path in (train, counts))
    assert counted["metrics"] == read["metrics"]
    assert counted["metrics"]["cider"] != result_of(score=score)["metrics"]["cider"]
    assert counted["protocol"]["signature"].endswith("|df:IC_train.jsonl|refs:all")


def test_frequencies_of_a_split_without_references_are_refused(score, tmp_path):
    write_captions(tmp_path / "IC_test.jsonl", [("x", [])])
    with pytest.raises(UserError, match=r"IC_test.jsonl:1: image x has no text; give a split with references"):
        score("--document_frequencies", tmp_path / "IC_test.jsonl")
    with pytest.raises(UserError, match="none.jsonl: there is no such file"):
        score("--document_frequencies", tmp_path / "none.jsonl")


def test_one_image_has_neither_control_nor_ceiling(score, files):
    write_captions(files[0], [("a1", ["短裤"])])
    write_json_lines(files[1], [{"image_id": "a1", "text": "短裤"}])
    result = result_of(score=score)
    assert (result["shuffled"], result["human_ceiling"]) == (None, None)


def test_the_images_scores_are_written_in_the_order_of_the_answers(score, tmp_path):
    path = tmp_path / "new" / "images.jsonl"
    result_of("--per_image", path, score=score)
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [record["image_id"] for record in records] == list(REFERENCES)
    references, captions = references_of()
    scores = references.score(captions).captions
    for place, record in enumerate(records):
        assert record.pop("text") == CAPTIONS[record.pop("image_id")]
        assert record == pytest.approx({name: 100 * values[place] for name, values in scores.items()})


def test_the_output_is_what_is_printed(score, tmp_path):
    output = tmp_path / "score.json"
    _, out, _ = score("--output", output)
    assert output.read_text("utf-8") + "\n" == out


def test_errors_are_listed_and_nothing_is_written(score, files, tmp_path):
    with files[1].open("a", encoding="utf-8") as file:
        file.write('{"image_id": "c3", "text": "壳"}\n{"image_id": "d4", "text": ["鞋"]}\n')
    code, out, err = score("--output", tmp_path / "score.json", "--per_image", tmp_path / "images.jsonl")
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        f"{files[1]}:4: image c3: the id is already on line 1; ids are unique: take one of the lines out",
        f"{files[1]}:5: image d4: text is a JSON list; write the caption as a string",
        f"{files[1]}:5: image d4: is not among the answers; take the line out",
        "The submission is not valid: 3 error(s).",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "targets.jsonl"]


def test_what_the_rules_leave_open_is_told(score, files):
    write_json_lines(files[1], [{"image_id": id_, "text": ""} for id_ in REFERENCES])
    code, out, err = score()
    assert code == 0
    assert json.loads(out)["metrics"]["cider"] == 0
    assert err.startswith("note: 3 captions are empty; they score 0: a1, b2, c3\n")


@pytest.mark.parametrize("option", ["--output", "--per_image"])
@pytest.mark.parametrize("place", [0, 1])
def test_an_input_is_never_overwritten(score, files, option, place):
    before = files[place].read_bytes()
    with pytest.raises(UserError, match=f"{option} .* is one of the .*; give it a name of its own"):
        score(option, files[place])
    assert files[place].read_bytes() == before


def test_the_two_outputs_are_two_files(score, tmp_path):
    with pytest.raises(UserError, match="--per_image .* is one of the other files"):
        score("--output", tmp_path / "x.json", "--per_image", tmp_path / "x.json")


@pytest.mark.parametrize("option", ["--output", "--per_image"])
def test_an_output_that_cannot_be_written_is_named(score, files, option):
    with pytest.raises(UserError, match=f"{option} .* cannot be written"):
        score(option, files[0] / "x.json")
    with pytest.raises(UserError, match=f"{option} .* is a folder; name a file in it"):
        score(option, files[0].parent)


def test_torch_is_not_imported_and_a_split_of_muges_size_takes_seconds(tmp_path):
    targets, predictions = tmp_path / "targets.jsonl", tmp_path / "predictions.jsonl"
    texts = [f"{chr(0x4E00 + row)}时尚百搭{row}夏季短裤{chr(0x5E00 + row)}" for row in range(5_000)]
    write_captions(targets, ((str(row), [f"{text}{place}" for place in range(10)]) for row, text in enumerate(texts)))
    write_json_lines(predictions, ({"image_id": str(row), "text": text} for row, text in enumerate(texts)))
    code = (
        "import sys; from zoo.__main__ import main; "
        f"words = ['--targets', {str(targets)!r}, '--predictions', {str(predictions)!r}]; "
        "assert main(['score', 'captioning', *words]) == 0; "
        "assert 'torch' not in sys.modules"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert time.perf_counter() - start < 15  # three seconds on an idle machine
    assert json.loads(done.stdout)["human_ceiling"]["images"] == 5_000
