"""``score``: submissions and answers of three tasks, a line or option of which is spoiled.

What MUGE's evaluator of retrieval accepts is known; ``official_score`` says it of any two files. Of the other tasks the
mutators say it.
"""

import json
import re

from spoiling import ACCEPTED, EITHER, SAME, Area, Input, Verdict, at, refused
from spoiling.changes import CHANGES, change_a_line, join, noisy, split
from spoiling.encoded import images_of, line_of, no_base64, no_image, other_base64, saved
from spoiling.folders import more, words
from spoiling.records import BLANKS, HALF, NO_IDS, NO_TEXTS, as_well, broken, dumped, key_twice, misspelled, no_object
from spoiling.tables import instead, option

SHOWN_ALIKE = 5  # errors alike that are told one by one


def outcome(place, out, err):
    """The numbers and how they were measured, but for the names and hashes of the files."""
    return re.sub(r"SHA-256 \w+", "", out)


def leaves(name, accepted):
    return name == "score.json"


RETRIEVAL = Area("score retrieval", 14, lambda place, out, err: json.loads(out).get("score"), leaves=leaves)
IMAGES = Area("score text_to_image", 4, outcome, leaves=leaves)
CAPTIONS = Area("score captioning", 10, outcome, leaves=leaves)


def make(root, matcher):
    """Take the answers of the validation splits below ``root``, and predict something; ``matcher`` is a checkpoint."""
    folder = root / "Multimodal_Retrieval"
    targets = (folder / "MR_valid_queries.jsonl").read_bytes()
    ids = [int(images_of(line)[0]) for line in split((folder / "MR_valid_imgs.tsv").read_bytes())]
    queries = [json.loads(line) for line in split(targets)]
    predictions = [query | {"item_ids": ids[place % 3 :][:10]} for place, query in enumerate(queries)]
    files = {"targets.jsonl": targets, "predictions.jsonl": join(map(dumped, predictions))}
    names = ["--targets", "targets.jsonl", "--predictions", "predictions.jsonl"]
    RETRIEVAL.bases["muge"] = Input(["score", "retrieval", *names], files)
    keys = ((b"query_id", b"text_id"), (b"query_text", b"text"), (b"item_ids", b"image_ids"))
    renamed = {}
    for name, data in files.items():
        for old, new in keys:
            data = data.replace(b'"%s"' % old, b'"%s"' % new)
        renamed[name] = data
    RETRIEVAL.bases["cn_clip"] = Input(["score", "retrieval", *names, "--output", "score.json"], renamed)

    targets = (root / "ECommerce-IC" / "IC_valid.jsonl").read_bytes()
    said = [json.loads(line) for line in split(targets)]
    others = said[1:] + said[:1]
    predictions = [one | {"text": other["text"][0]} for one, other in zip(said, others, strict=True)]
    files = {"targets.jsonl": targets, "predictions.jsonl": join(map(dumped, predictions))}
    CAPTIONS.bases["captions"] = Input(["score", "captioning", *names], files)

    data = {f"data/ECommerce-T2I/{path.name}": path.read_bytes() for path in (root / "ECommerce-T2I").iterdir()}
    lines = [images_of(line) for line in split(data["data/ECommerce-T2I/T2I_val.img.tsv"])]
    generated = join(line_of(token, saved(image, "PNG", size=(32, 32))) for token, image in lines[::-1])
    names = ["--targets", "data", "--predictions", "T2I_val.tsv", "--matcher", str(matcher), "--inception", "none"]
    IMAGES.bases["images"] = Input(["score", "text_to_image", *names], data | {"T2I_val.tsv": generated})


def official_score(targets, predictions):
    """What MUGE's ``evaluation.py`` and that of cn-clip give of two files: MeanRecall, or None where they refuse."""
    try:
        schema = ("text_id", "image_ids") if b'"text_id"' in targets else ("query_id", "item_ids")
        truth = {record[schema[0]]: record[schema[1]] for record in _records(targets)}
        guess = {}
        for record in _records(predictions):
            query, images = record[schema[0]], record[schema[1]]
            whole = isinstance(images, list) and len(images) == 10 and all(isinstance(image, int) for image in images)
            if not isinstance(query, int) or not whole or len(set(images)) < 10:
                return None
            guess[query] = images
        hits = {
            k: sum(any(image in guess[query][:k] for image in set(images)) for query, images in truth.items())
            for k in (1, 5, 10)
        }
        r1, r5, r10 = (hits[k] / len(truth) for k in (1, 5, 10))
        return (r1 + r5 + r10) / 3.0 * 100
    except (KeyError, TypeError, ValueError, ZeroDivisionError, RecursionError):
        return None


def _records(data):
    """The objects of a file, as ``open`` and ``json`` read them."""
    for line in data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n"):
        record = json.loads(line.strip())
        if not isinstance(record, dict):
            raise TypeError
        yield record


# --- retrieval ---------------------------------------------------------------------------------------------------


def judged(given, *named):
    """The official verdict on an input's two files; ``named``: what a refusal has to name."""
    score = official_score(given.files["targets.jsonl"], given.files["predictions.jsonl"])
    return refused(*named) if score is None else Verdict("accepted", result=score)


def retrieval_by_change(name, change):
    def spoil(given, random):
        file = random.choice(["targets.jsonl", "predictions.jsonl"])
        if name == "compressed" or (name == "names_of_columns"):
            return None
        given.files[file], line = change(given.files[file], random, 1)
        if file == "predictions.jsonl" and name == "nothing":
            return judged(given, "targets.jsonl:1:", "no prediction")
        return judged(given, at(file, None if name.startswith("utf16") else line))

    return spoil


for each, function in CHANGES.items():
    RETRIEVAL.add(each, retrieval_by_change(each, function))


def spoils_a_prediction(change):
    """Register what becomes of a line of the predictions or of the targets; the official evaluator judges."""

    def spoil(given, random):
        file = random.choice(["predictions.jsonl", "predictions.jsonl", "targets.jsonl"])
        change_a_line(given, file, change, random)
        return judged(given, ".jsonl:")  # the line itself, or that of an answer which has no prediction then

    RETRIEVAL.add(change.__name__, spoil)
    return change


for function in (broken, no_object, key_twice, as_well):
    spoils_a_prediction(function)


def of_a_record(change):
    """As a change of a line."""

    def on_a_line(line, random):
        record = json.loads(line)
        keys = ("text_id", "image_ids") if "text_id" in record else ("query_id", "item_ids")
        return dumped(change(record, random, *keys) or record)

    on_a_line.__name__ = change.__name__
    return on_a_line


@spoils_a_prediction
@of_a_record
def query_of_another_type(record, random, query, images):
    id_ = record[query]
    record[query] = random.choice([*NO_IDS, str(id_), float(id_), -id_, 1 << 70, 10**30, 0, f" {id_}", "１"])


@spoils_a_prediction
@of_a_record
def query_of_another_number(record, random, query, images):
    record[query] += random.choice([1, -1, 1000])


@spoils_a_prediction
@of_a_record
def key_lost(record, random, query, images):
    return {key: value for key, value in record.items() if key != random.choice([query, images])}


@spoils_a_prediction
@of_a_record
def key_misspelled(record, random, query, images):
    return misspelled(record, random.choice([query, images]), random)


@spoils_a_prediction
@of_a_record
def text_lost(record, random, query, images):
    return {key: value for key, value in record.items() if key in (query, images)}


@spoils_a_prediction
@of_a_record
def another_schema(record, random, query, images):
    other = {"query_id": "text_id", "item_ids": "image_ids", "text_id": "query_id", "image_ids": "item_ids"}
    return {other.get(key, key): value for key, value in record.items()}


@spoils_a_prediction
@of_a_record
def another_count(record, random, query, images):
    record[images] = random.choice(
        [record[images][:9], [*record[images], 424242], record[images] * 2, [], record[images][:1], list(range(1000))]
    )


@spoils_a_prediction
@of_a_record
def images_that_are_no_list(record, random, query, images):
    first = record[images][0]
    record[images] = random.choice(
        [None, first, str(record[images]), {}, {"0": first}, True, 1.5, "", [record[images]]]
    )


@spoils_a_prediction
@of_a_record
def image_that_is_no_number(record, random, query, images):
    place = random.randrange(len(record[images]))
    first = record[images][place]
    record[images][place] = random.choice(
        [*(str(first), float(first), first + 0.5, None, True, False, [first], {}, "", float("nan"), float("inf"), "１")]
    )


@spoils_a_prediction
@of_a_record
def image_again(record, random, query, images):
    record[images][-1] = record[images][0]


@spoils_a_prediction
@of_a_record
def images_in_another_order(record, random, query, images):
    random.shuffle(record[images])


@spoils_a_prediction
@of_a_record
def image_that_is_unknown(record, random, query, images):
    record[images][random.randrange(len(record[images]))] = random.choice([0, -1, 424242, 1 << 64, 10**40])


@spoils_a_prediction
@of_a_record
def text_of_anything(record, random, query, images):
    key = "query_text" if query == "query_id" else "text"
    record[key] = random.choice([*NO_TEXTS, *BLANKS, HALF, "x" * 100_000])


@RETRIEVAL.spoils()
def line_lost(given, random):
    file = random.choice(["targets.jsonl", "predictions.jsonl"])
    lines = split(given.files[file])
    for _ in range(random.choice([1, 1, 3, len(lines) - 1, len(lines)])):
        del lines[random.randrange(len(lines))]
    given.files[file] = join(lines) if lines else b""
    return judged(given, "targets.jsonl")


@RETRIEVAL.spoils()
def one_array(given, random):
    file = random.choice(["targets.jsonl", "predictions.jsonl"])
    records = [json.loads(line) for line in split(given.files[file])]
    given.files[file] = json.dumps(records, indent=random.choice([None, 2]), ensure_ascii=False).encode()
    return refused(file)


@RETRIEVAL.spoils()
def another_split(given, random):
    """Predictions of other queries."""
    records = [json.loads(line) for line in split(given.files["predictions.jsonl"])]
    key = "text_id" if "text_id" in records[0] else "query_id"
    given.files["predictions.jsonl"] = join(dumped(record | {key: record[key] + 100_000}) for record in records)
    return refused("targets.jsonl", str(records[0][key]))


@RETRIEVAL.spoils()
def no_answers(given, random):
    """The test split's queries as targets."""
    records = [json.loads(line) for line in split(given.files["targets.jsonl"])]
    key = "image_ids" if "image_ids" in records[0] else "item_ids"
    given.files["targets.jsonl"] = join(dumped({k: v for k, v in record.items() if k != key}) for record in records)
    return refused(at("targets.jsonl", 1), key)


@RETRIEVAL.spoils()
def bytes_at_random(given, random):
    file = random.choice(["targets.jsonl", "predictions.jsonl"])
    given.files[file] = noisy(given.files[file], random, 6, (b"1", b" ", b"-"))
    return judged(given, file)


# --- captions ----------------------------------------------------------------------------------------------------

TAKEN = dict.fromkeys(
    ("crlf", "one_crlf", "no_last_line_end", "another_order", "spaces_behind", "tab_behind", "space_before"), SAME
) | {"doubly_encoded": ACCEPTED}


def captions_by_change(name, change):
    def spoil(given, random):
        file = random.choice(["targets.jsonl", "predictions.jsonl"])
        if name == "names_of_columns":
            return None
        given.files[file], line = change(given.files[file], random, 1)
        if name == "another_order" and file == "targets.jsonl":
            return ACCEPTED  # sums in another order
        if name == "nothing" and file == "predictions.jsonl":
            return refused("targets.jsonl:1:", "no prediction")
        return TAKEN.get(name) or refused(at(file, line))

    return spoil


for each, function in CHANGES.items():
    CAPTIONS.add(each, captions_by_change(each, function))


def spoils_a_caption(verdict=None, file=None):
    """Register what becomes of a line of the captions' files."""

    def register(change):
        def spoil(given, random):
            name = file or random.choice(["targets.jsonl", "predictions.jsonl"])
            line = change_a_line(given, name, change, random)
            return verdict or refused(at(name, line))

        CAPTIONS.add(change.__name__, spoil)
        return change

    return register


def of_a_caption(change):
    def on_a_line(line, random):
        record = json.loads(line)
        return dumped(change(record, random) or record)

    on_a_line.__name__ = change.__name__
    return on_a_line


for function in (broken, no_object, key_twice):
    spoils_a_caption()(function)
spoils_a_caption(SAME)(as_well)


@spoils_a_caption()
@of_a_caption
def id_of_another_type(record, random):
    record["image_id"] = random.choice([*NO_IDS, 7, 0])


@spoils_a_caption()
@of_a_caption
def caption_key_lost(record, random):
    key = random.choice(["image_id", "text"])
    return random.choice([{k: v for k, v in record.items() if k != key}, misspelled(record, key, random)])


@spoils_a_caption()
@of_a_caption
def caption_of_half_characters(record, random):
    record["text"] = [HALF] if isinstance(record["text"], list) else random.choice([HALF, record["text"] + HALF])


@spoils_a_caption(file="predictions.jsonl")
@of_a_caption
def caption_that_is_none(record, random):
    record["text"] = random.choice(NO_TEXTS)


@spoils_a_caption(file="targets.jsonl")
@of_a_caption
def references_that_are_none(record, random):
    record["text"] = random.choice(
        [*("红色", "", None, 5, True, {}, [], [[]], [None], [5], [{}]), *([blank] for blank in BLANKS), ["红色", ""]]
    )


@spoils_a_caption(ACCEPTED, file="predictions.jsonl")
@of_a_caption
def caption_that_is_odd(record, random):
    record["text"] = random.choice(
        [
            *BLANKS,
            "[UNK]",
            "红" * 10_000,
            "。。。",
            "x",
            "\0",
            "\u202e",
            "👩‍👩‍👧",
            "\n\n",
            "ＡＢＣ１２３",
            "a" * 100_000,
        ]
    )


@CAPTIONS.spoils()
def prediction_lost(given, random):
    lines = split(given.files["predictions.jsonl"])
    lost = [lines.pop(random.randrange(len(lines))) for _ in range(random.choice([1, 1, 3, len(lines) - 1]))]
    given.files["predictions.jsonl"] = join(lines)
    return refused("targets.jsonl:", json.loads(lost[0])["image_id"] if len(lost) <= SHOWN_ALIKE else "more like this")


@CAPTIONS.spoils()
def prediction_too_many(given, random):
    lines = split(given.files["predictions.jsonl"])
    given.files["predictions.jsonl"] += (
        dumped({"image_id": random.choice(["f" * 32, "x", "猫"]), "text": "红色"}) + b"\n"
    )
    return refused(at("predictions.jsonl", len(lines) + 1))


@CAPTIONS.spoils()
def answer_lost(given, random):
    """A prediction is one too many then."""
    lines = split(given.files["targets.jsonl"])
    lost = lines.pop(random.randrange(len(lines)))
    given.files["targets.jsonl"] = join(lines)
    return refused("predictions.jsonl:", json.loads(lost)["image_id"])


@CAPTIONS.spoils()
def id_in_capitals(given, random):
    lines = split(given.files["predictions.jsonl"])
    record = json.loads(lines[0])
    given.files["predictions.jsonl"] = join([dumped(record | {"image_id": record["image_id"].upper()}), *lines[1:]])
    return refused(at("predictions.jsonl", 1), at("targets.jsonl", None))


@CAPTIONS.spoils()
def captions_as_one_value(given, random):
    file = random.choice(["targets.jsonl", "predictions.jsonl"])
    records = [json.loads(line) for line in split(given.files[file])]
    by_id = {record["image_id"]: record["text"] for record in records}
    whole = random.choice([records, by_id, {"annotations": records}])
    given.files[file] = json.dumps(whole, indent=random.choice([None, 2]), ensure_ascii=False).encode()
    return refused(at(file, 1))


@CAPTIONS.spoils()
def caption_bytes_at_random(given, random):
    file = random.choice(["targets.jsonl", "predictions.jsonl"])
    given.files[file] = noisy(given.files[file], random, 6, (b"1", b" ", b"-"))
    return EITHER


@CAPTIONS.spoils()
def frequencies_of_a_broken_file(given, random):
    """``--document_frequencies``: a caption file, or counts."""
    name, data = random.choice(
        [
            ("counts.json", b""),
            ("counts.json", b"{}"),
            ("counts.json", b"[]"),
            ("counts.json", b"null"),
            ("counts.json", b'{"images": -1}'),
            ("counts.json", b'{"images": 3, "counts": {}}'),
            ("counts.json", b"\xff\xfe"),
            ("counts.json", b"[" * 99_999),
            ("counts.jsonl", b""),
            ("counts.jsonl", b"{}\n"),
            ("counts.jsonl", b'{"image_id": "a"}\n'),
            ("counts.jsonl", b'{"image_id": "a", "text": []}\n'),
            ("counts.jsonl", b'{"image_id": "a", "text": "x"}\n'),
            ("counts.jsonl", b"\0\0\0\n"),
        ]
    )
    given.files[name] = data
    given.words += ["--document_frequencies", name]
    return refused(name)


CAPTIONS.add(
    "wrong_number",
    words(
        *option("max_references", "0", "-1", "1.5", "x", "nan", ""),
        *option("lowercase", "maybe", "2", "", "null"),
        *option("punctuation", "nein", "x", "[]"),
    ),
)
CAPTIONS.add(
    "wrong_file",
    words(
        *option("document_frequencies", "nowhere.jsonl", "nowhere.json", "empty", "/nowhere/x.jsonl", "$NOT_SET/x"),
        *option(
            "per_image", "targets.jsonl", "predictions.jsonl", "empty", "/proc/x.jsonl", "targets.jsonl/x", "$NOT_SET/x"
        ),
        (more("--per_image", "score.json", "--output", "score.json"), "per_image"),
    ),
)


# --- images ------------------------------------------------------------------------------------------------------

IMAGES_TAKEN = dict.fromkeys(
    (
        *("crlf", "one_crlf", "no_last_line_end", "another_order", "spaces_behind"),
        *("gb18030", "doubly_encoded", "byte_lost"),
    ),
    SAME,
)


def images_by_change(name, change):
    def spoil(given, random):
        if name == "typographic_quotes":
            return None
        given.files["T2I_val.tsv"], line = change(given.files["T2I_val.tsv"], random, 1)
        return IMAGES_TAKEN.get(name) or refused(at("T2I_val.tsv", line))

    return spoil


for each, function in CHANGES.items():
    IMAGES.add(each, images_by_change(each, function))


def spoils_an_image(verdict=None):
    def register(change):
        def spoil(given, random):
            line = change_a_line(given, "T2I_val.tsv", change, random)
            return verdict or refused(at("T2I_val.tsv", line))

        IMAGES.add(change.__name__, spoil)
        return change

    return register


spoils_an_image()(no_base64)
spoils_an_image()(no_image)
spoils_an_image(SAME)(other_base64)


@spoils_an_image()
def image_of_another_mode(line, random):
    token, data = images_of(line)
    mode = random.choice(["L", "RGBA", "P", "1", "LA"])
    return line_of(token, saved(data, "PNG", mode))


@spoils_an_image()
def image_of_another_format(line, random):
    token, data = images_of(line)
    return line_of(token, saved(data, random.choice(["WEBP", "GIF", "BMP", "TIFF"])))


@spoils_an_image()
def image_of_another_size(line, random):
    token, data = images_of(line)
    size = random.choice([(32, 31), (31, 32), (1, 1), (64, 64), (16, 16), (32, 320)])
    return line_of(token, saved(data, "PNG", size=size))


@spoils_an_image(ACCEPTED)
def image_of_one_colour(line, random):
    token, data = images_of(line)
    return line_of(token, saved(saved(data, "PNG", size=(1, 1)), random.choice(["PNG", "JPEG"]), size=(32, 32)))


@spoils_an_image()
def id_of_no_prompt(line, random):
    token, _, encoded = line.partition(b"\t")
    return random.choice([b"", b"x", token.upper() + b"0", token[1:], b"a" * 129, b"\xff"]) + b"\t" + encoded


@spoils_an_image()
def columns_that_are_not_two(line, random):
    token, _, encoded = line.partition(b"\t")
    return random.choice([token, encoded, line + b"\t1", token + b"\t\t" + encoded, token + b" " + encoded])


@IMAGES.spoils()
def image_lost(given, random):
    lines = split(given.files["T2I_val.tsv"])
    lost = [lines.pop(random.randrange(len(lines))) for _ in range(random.choice([1, 1, 3, len(lines) - 1]))]
    given.files["T2I_val.tsv"] = join(lines)
    named = images_of(lost[0])[0].decode() if len(lost) <= SHOWN_ALIKE else "more like this"
    return refused("T2I_val.tsv:", named)


@IMAGES.spoils()
def all_of_another_size(given, random):
    size = random.choice([(16, 16), (64, 64), (1, 1)])
    lines = [images_of(line) for line in split(given.files["T2I_val.tsv"])]
    given.files["T2I_val.tsv"] = join(line_of(token, saved(data, "PNG", size=size)) for token, data in lines)
    return ACCEPTED


@IMAGES.spoils()
def all_not_square(given, random):
    lines = [images_of(line) for line in split(given.files["T2I_val.tsv"])]
    given.files["T2I_val.tsv"] = join(line_of(token, saved(data, "PNG", size=(32, 20))) for token, data in lines)
    return refused(at("T2I_val.tsv", 1), "not square")


@IMAGES.spoils()
def true_images_broken(given, random):
    """Of the data, which the images are held against."""
    file = "data/ECommerce-T2I/T2I_val.img.tsv"
    lines = split(given.files[file])
    place = random.randrange(len(lines))
    lines[place] = random.choice([no_base64, no_image])(lines[place], random)
    given.files[file] = join(lines)
    return refused(at(file, place + 1))


@IMAGES.spoils()
def prompts_broken(given, random):
    file = "data/ECommerce-T2I/T2I_val.txt.tsv"
    lines = split(given.files[file])
    place = random.randrange(len(lines))
    lines[place] = random.choice(
        [lines[place].split(b"\t")[0], b"\tred", b"x", lines[place][:32] + b"\t ", b"\xff\t\xff"]
    )
    given.files[file] = join(lines)
    return refused(at(file, place + 1))


@IMAGES.spoils()
def distractors_broken(given, random):
    tokens = [images_of(line)[0].decode() for line in split(given.files["T2I_val.tsv"])]
    records = [{"image_id": token, "distractors": [other for other in tokens if other != token]} for token in tokens]
    record = random.choice(records)
    wrong = random.choice(
        [
            {"image_id": 5, "distractors": []},
            {"image_id": record["image_id"]},
            {"image_id": record["image_id"], "distractors": "x"},
            {"image_id": record["image_id"], "distractors": [1]},
            {"image_id": record["image_id"], "distractors": ["x"]},
            {"image_id": record["image_id"], "distractors": [record["image_id"]]},
            {"image_id": record["image_id"], "distractors": []},
            {"image_id": record["image_id"], "distractors": record["distractors"][:1] * 2},
            {"image_id": record["image_id"], "distractors": record["distractors"][:5]},
            {"image_id": "x", "distractors": record["distractors"]},
            {"image_id": None, "distractors": None},
            [],
        ]
    )
    lines = [dumped(wrong if each is record else each) for each in records]
    if random.random() < 0.3:
        lines = random.choice([[b""], [b"x"], lines[:5], lines + lines[:1], [b"\xff"], [b"[" * 9999], [b"\0"]])
    given.files["distractors.jsonl"] = join(lines)
    given.words += ["--distractors", "distractors.jsonl"]
    return EITHER if lines == [dumped(each) for each in records] else refused("distractors.jsonl")


@IMAGES.spoils()
def note_beside_broken(given, random):
    """``T2I_val.json``, in which ``predict`` says what chose the images."""
    given.files["T2I_val.json"] = random.choice(
        [b"", b"{}", b"[]", b"null", b"5", b'{"sampling": null}', b'{"sampling": []}', b"\xff\xfe", b"[" * 99_999, b"{"]
    )
    return refused("T2I_val.json")


IMAGES.add(
    "wrong_option",
    words(
        *option("split", "val", "trian", "", "all"),
        *option("reference", "val", "x"),
        *option("batch_size", "0", "-3", "1.5", "x", "nan", ""),
        *option("features", "timm:nope", "nope", "timm:", "transformers:x"),
        *option("inception", "nowhere.pth", "data", "T2I_val.tsv", ""),
        *option("matcher", "nowhere.ckpt", "T2I_val.tsv", "data", "$NOT_SET/x.ckpt"),
        *((more("--distractors", path), path) for path in ("nowhere.jsonl", "data", "$NOT_SET/x")),
        *option("output", "T2I_val.tsv", "data/ECommerce-T2I/T2I_val.img.tsv", "data/ECommerce-T2I/T2I_train.txt.tsv"),
    ),
)
IMAGES.add(
    "other_words",
    words(
        (more("--batch_size", "5"),),
        (more("--split", "valid"),),
        (more("--reference", "train"),),
        (more("--output", "score.json"),),
        (instead(3, "data/ECommerce-T2I"),),
        verdict=ACCEPTED,
    ),
)


@IMAGES.spoils()
def file_named_otherwise(given, random):
    """The name tells the split."""
    other = random.choice(
        ["T2I_valid.tsv", "predictions.tsv", "t2i_val.tsv", "T2I_test_val.tsv", "T2I_.tsv", "T2I_val"]
    )
    given.files[other] = given.files.pop("T2I_val.tsv")
    given.words[5] = other
    return ACCEPTED if other == "T2I_val" else refused(other, "--split")


# --- words of all three ------------------------------------------------------------------------------------------

for area, first, second in (
    (RETRIEVAL, "targets.jsonl", "predictions.jsonl"),
    (CAPTIONS, "targets.jsonl", "predictions.jsonl"),
    (IMAGES, "data", "T2I_val.tsv"),
):
    area.add(
        "files_that_are_not_there",
        words(
            *(
                (instead(3, path), path)
                for path in ("nowhere", "/nowhere/x", "~no_such_user/x", "$NOT_SET/x", "b" * 300)
            ),
            *(
                (instead(5, path), path)
                for path in ("T2I_val_nowhere", "/nowhere/x", "~no_such_user/x", "$NOT_SET/x", "empty")
            ),
            *((instead(place, ""), "") for place in (3, 5)),
        ),
    )
    area.add(
        "options_that_are_not_there",
        words(
            *((more(*wrong), wrong[0]) for wrong in (["--target", "x"], ["--outptu", "x"], ["-o", "x"], ["more"])),
            (more("--output"), "--output"),
            (more("--targets"), "--targets"),
            (lambda words: [*words[:2], *words[4:]], "targets"),
            (lambda words: [*words[:4], *words[6:]], "predictions"),
            (lambda words: ["score", "retrievl", *words[2:]], "retrievl"),
            (lambda words: ["score", *words[2:]], "--targets"),
            (lambda words: ["scroe", *words[1:]], "scroe"),
        ),
    )
    area.add(
        "output_that_cannot_be",
        words(
            *(
                (more("--output", path), "--output")
                for path in (second, "empty", f"{second}/x", "/proc/x/y", f"./{second}")
            ),
            *((more("--output", path), path) for path in ("$NOT_SET/x.json", "~no_such_user/x.json")),
            (more("--output", "c" * 300), "--output"),
            (more("--output", ""), "--output"),
        ),
    )
    area.add(
        "same_words_otherwise",
        words(
            (instead(3, f"./{first}"),),
            (instead(3, f"$PWD/{first}"),),
            (lambda words: [*words[:2], f"--targets={words[3]}", *words[4:]],),
            (lambda words: [*words[:2], *words[4:6], *words[2:4], *words[6:]],),
            (lambda words: [*words[:2], "--targets", "nowhere", *words[2:]],),
            (more("--output", "score.json"),),
            (more("--output=score.json"),),
            verdict=SAME,
        ),
    )
