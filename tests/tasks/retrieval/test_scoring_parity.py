"""``score`` against the evaluator that cn-clip packages, run as its script, on random and adversarial files."""

import copy
import importlib.util
import json
import random
import re
import runpy
import sys
from pathlib import Path

import pytest

from zoo.tasks.retrieval.scoring import evaluate_retrieval

pytestmark = pytest.mark.parity

KEYS = {"cn_clip": ("text_id", "image_ids"), "muge": ("query_id", "item_ids")}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The packaged evaluator, and MUGE's own, which differs from it in these names only."""
    spec = importlib.util.find_spec("cn_clip.eval.evaluation")
    packaged = Path(spec.origin)
    text = packaged.read_text(encoding="utf-8")
    names = {"text_id": "query_id", "Text_id": "Query_id", "image_id": "item_id", "topk images": "products"}
    for old, new in names.items():
        text = text.replace(old, new)
    muge = tmp_path_factory.mktemp("muge") / "evaluation.py"
    muge.write_text(text, encoding="utf-8")
    return {"cn_clip": packaged, "muge": muge}


def official(script, targets, predictions, folder):
    output = folder / "official.json"
    output.unlink(missing_ok=True)
    arguments, sys.argv = sys.argv, [str(script), str(targets), str(predictions), str(output)]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = arguments
    return output.read_text(encoding="utf-8")


# What the official first message means, in our kinds of errors; the first pattern that fits decides.
KINDS = [
    (r"^Cannot parse this line", {"malformed_json", "blank_line", "byte_order_mark"}),
    (r"^There exists one line not containing the predicted", {"missing_key"}),
    (r"^There exists one line not containing", {"missing_key", "wrong_type"}),  # or the line is no object
    (r"has wrong number of predicted", {"wrong_count"}),
    (r"has duplicate .* in your prediction", {"repeated_image"}),
    (r"have no prediction in your submission", {"no_prediction"}),
    (r"^The submission file is not found!$|^\d+$", {"missing_file"}),  # or the number of an OSError
    (r"^float division by zero$", {"empty_file"}),
    (r"^(query_id|item_ids|text_id|image_ids)$", {"missing_key"}),  # of a KeyError
    (r"line \d+ column \d+|recursion|^Exceeds the limit", {"malformed_json", "blank_line", "byte_order_mark"}),
    (r"", {"wrong_type"}),
]


def compare(script, targets, predictions, folder):
    """Both verdicts are the same: byte for byte when valid, with a first error of the same kind when not."""
    theirs, ours = official(script, targets, predictions, folder), evaluate_retrieval(targets, predictions)
    if ours.result["success"]:
        assert json.dumps(ours.result) == theirs
        return True
    expected = json.loads(theirs)
    assert not expected["success"]
    assert {key: ours.result[key] for key in ("score", "scoreJson")} == {"score": 0, "scoreJson": {}}
    message = str(expected["errorMsg"])
    if message == "utf-8":  # the official reader decodes ahead: a bad byte hides the errors before it in its block
        assert "not_utf8" in {error.kind for error in ours.errors}
    else:
        assert ours.errors[0].kind in next(kinds for pattern, kinds in KINDS if re.search(pattern, message)), message
    return False


def make_pair(generator, schema, queries=None):
    """A targets file's and a valid submission's entries."""
    query_key, image_key = KEYS[schema]
    queries = generator.choice([1, 2, 5, 30]) if queries is None else queries
    ids = generator.sample(range(100_000), queries)
    targets = [
        {query_key: query, image_key: generator.sample(range(60), generator.choice([0, 1, 2, 6]))} for query in ids
    ]
    predictions = [{query_key: query, image_key: generator.sample(range(60), 10)} for query in ids]
    generator.shuffle(predictions)
    return targets, predictions


STRANGE = [
    None, True, False, 0, 1, -1, 1.0, 1.5, float("nan"), float("inf"), "", "7", "text_id", "query_id", [], [1], [[1]],
    {}, {"a": 1}, 10**30, "鞋\ud800", ["text_id"], ["query_id"],
]  # fmt: skip


def strange(generator):
    return copy.deepcopy(generator.choice(STRANGE))


def mutate_entry(generator, entry, schema, others):
    """Spoil one parsed line, or not: some of these are accepted."""
    query_key, image_key = KEYS[schema]
    images = entry.get(image_key)
    choice = generator.randrange(13)
    if choice == 0 and entry:
        entry.pop(generator.choice(list(entry)))
    elif choice == 1:
        entry[generator.choice([query_key, image_key])] = strange(generator)
    elif choice == 2 and isinstance(images, list) and images:
        images[generator.randrange(len(images))] = strange(generator)
    elif choice == 3 and isinstance(images, list) and images:
        images[generator.randrange(len(images))] = images[0]
    elif choice == 4 and isinstance(images, list) and images:
        images.pop()
    elif choice == 5 and isinstance(images, list):
        images.append(generator.choice([77, "77", 3.0]))
    elif choice == 6 and isinstance(entry.get(query_key), int):
        entry[query_key] += 200_000  # a query that is not asked; its own is missing
    elif choice == 7:
        entry["extra"] = strange(generator)
    elif choice == 8 and others:
        entry[query_key] = generator.choice(others).get(query_key)  # a query twice
    elif choice == 9:
        return strange(generator)
    elif choice == 10 and isinstance(entry.get(query_key), int):
        entry[query_key] = generator.choice([float, str, bool])(entry[query_key])
    elif choice == 11 and len(others) > 5:  # a file of few lines would be in the other schema
        other = KEYS["muge" if schema == "cn_clip" else "cn_clip"]
        return {other[0]: entry.get(query_key), other[1]: images}
    elif choice == 12 and isinstance(images, list) and images:
        images[:] = [generator.choice([float, str])(image) for image in images if isinstance(image, int)]
    return entry


BREAKS = [
    "", "   ", "\ufeff", "{", "]", "nonsense", "\u3000", "\x1c", "\x00", "[" * 100_000, "9" * 5_000, "NaN", "{}", "[]",
    '{"text_id": 1, "text_id": 2}', "\u2028",
]  # fmt: skip


def to_bytes(generator, entries, spoil):
    """A file of the entries; spoiled, with a broken line, odd line ends, a mark at the start or bytes not UTF-8."""
    lines = [json.dumps(entry, ensure_ascii=generator.random() < 0.5) for entry in entries]
    ending = "\n"
    choice = generator.randrange(9) if spoil else 9
    if choice == 0:
        lines.insert(generator.randrange(len(lines) + 1), generator.choice(BREAKS))
    elif choice == 1:
        ending = generator.choice(["\r\n", "\r", "\x0b", "\u2028", "\n\n"])
    elif choice == 2:
        lines[0] = "\ufeff" + lines[0]
    elif choice == 3:
        lines = [generator.choice([" {} ", "\u3000{}\t", "{}\x85"]).format(line) for line in lines]
    elif choice == 4:
        lines[generator.randrange(len(lines))] += generator.choice([",", "}", " {}"])
    data = ending.join(lines).encode("utf-8", "replace") + generator.choice([b"\n", b""])
    if choice == 5:
        place = generator.randrange(len(data) + 1)
        data = data[:place] + generator.choice([b"\xff", b"\xe4\xb8", b"\x00"]) + data[place:]
    elif choice == 6:
        data = data[: generator.randrange(len(data) + 1)]
    return data


@pytest.mark.parametrize("schema", ["cn_clip", "muge"])
def test_valid_submissions_score_equal_to_the_last_digit(schema, scripts, tmp_path):
    generator = random.Random(schema)
    targets, predictions = tmp_path / "targets.jsonl", tmp_path / "predictions.jsonl"
    for _ in range(150):
        truth, guess = make_pair(generator, schema, generator.choice([1, 3, 7, 29, 97, 301]))
        targets.write_bytes(to_bytes(generator, truth, spoil=False))
        predictions.write_bytes(to_bytes(generator, guess, spoil=False))
        assert compare(scripts[schema], targets, predictions, tmp_path)


@pytest.mark.parametrize("schema", ["cn_clip", "muge"])
@pytest.mark.parametrize("spoiled", ["predictions", "targets", "both"])
def test_spoiled_files_are_judged_alike(schema, spoiled, scripts, tmp_path):
    generator = random.Random(f"{schema} {spoiled}")
    targets, predictions = tmp_path / "targets.jsonl", tmp_path / "predictions.jsonl"
    verdicts = []
    for _ in range(400):
        truth, guess = make_pair(generator, schema)
        for name, entries in (("targets", truth), ("predictions", guess)):
            if spoiled in (name, "both"):
                for _ in range(generator.choice([0, 1, 1, 2, 5])):
                    place = generator.randrange(len(entries))
                    if isinstance(entries[place], dict):
                        others = [entry for entry in entries if isinstance(entry, dict)]
                        entries[place] = mutate_entry(generator, entries[place], schema, others)
                if generator.random() < 0.1:
                    entries.pop(generator.randrange(len(entries)))
        spoil = {name: spoiled in (name, "both") and generator.random() < 0.4 for name in ("targets", "predictions")}
        targets.write_bytes(to_bytes(generator, truth, spoil["targets"]) if truth else b"")
        predictions.write_bytes(to_bytes(generator, guess, spoil["predictions"]) if guess else b"")
        verdicts.append(compare(scripts[schema], targets, predictions, tmp_path))
    assert 20 < sum(verdicts) < 380  # both verdicts were tried


def test_undecodable_bytes_in_a_long_file(scripts, tmp_path):
    """Whatever else is wrong, before the bad byte or behind it."""
    generator = random.Random(0)
    targets, predictions = tmp_path / "targets.jsonl", tmp_path / "predictions.jsonl"
    for _ in range(60):
        truth, guess = make_pair(generator, "cn_clip", 400)
        guess[generator.randrange(400)]["image_ids"].pop()
        data = to_bytes(generator, guess, spoil=False)
        place = generator.randrange(len(data))
        targets.write_bytes(to_bytes(generator, truth, spoil=False))
        predictions.write_bytes(data[:place] + b"\xff" + data[place:])
        assert not compare(scripts["cn_clip"], targets, predictions, tmp_path)


@pytest.mark.parametrize(
    "missing", ["targets", "predictions", "both", "targets is a folder", "predictions is a folder"]
)
def test_missing_files_and_folders(missing, scripts, tmp_path):
    targets, predictions = tmp_path / "targets.jsonl", tmp_path / "predictions.jsonl"
    truth, guess = make_pair(random.Random(0), "cn_clip")
    for path, entries in ((targets, truth), (predictions, guess)):
        if missing == f"{path.stem} is a folder":
            path.mkdir()
        elif missing not in (path.stem, "both"):
            path.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    assert not compare(scripts["cn_clip"], targets, predictions, tmp_path)
