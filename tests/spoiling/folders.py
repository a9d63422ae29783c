"""``data check``: folders in MUGE's formats, a line or file of which is spoiled."""

import json

from spoiling import ACCEPTED, EITHER, SAME, Area, Input, at, refused
from spoiling.changes import CHANGES, join, noisy, split
from spoiling.encoded import images_of, line_of, no_base64, no_image, other_base64, other_image
from spoiling.records import BLANKS, HALF, NO_IDS, NO_TEXTS, as_well, broken, dumped, key_twice, misspelled, no_object

TASKS = {
    "retrieval": "Multimodal_Retrieval",
    "text_to_image": "ECommerce-T2I",
    "captioning": "ECommerce-IC",
}
RENAMED = {"query_id": "text_id", "query_text": "text", "item_ids": "image_ids"}

# What comes of the changes that are not refused, by the kind of file.
TAKEN = {
    "images": dict.fromkeys(("no_last_line_end", "another_order", "spaces_behind"), SAME),
    "json": dict.fromkeys(("no_last_line_end", "another_order", "spaces_behind", "tab_behind", "space_before"), SAME)
    | {"doubly_encoded": ACCEPTED},
    "texts": dict.fromkeys(("no_last_line_end", "another_order", "spaces_behind", "tab_behind"), SAME)
    | {"doubly_encoded": ACCEPTED},
}
NOT_FOR = {"images": {"typographic_quotes"}, "json": {"names_of_columns"}, "texts": {"typographic_quotes"}}


def outcome(place, out, err):
    """What is printed, but for the time."""
    return out


def said(out, err):
    """Errors as words have them, of JSON too."""
    if not out.startswith("{"):
        return out + err
    errors = json.loads(out)["errors"]
    places = [at(error["file"], error["line"]) for error in errors]
    return "\n".join(f"{place} {error['kind']} {error['message']}" for place, error in zip(places, errors, strict=True))


CHECK = Area("data check", 34, outcome, said=said)


def make(root):
    """Take the valid folders below ``root``, of which every split has texts of its own; and Chinese-CLIP's."""
    for task, folder in TASKS.items():
        files = {f"data/{folder}/{path.name}": path.read_bytes() for path in (root / folder).iterdir()}
        CHECK.bases[task] = Input(["data", "check", task, "data", "--json"], files)
    files = {}
    for name, data in CHECK.bases["retrieval"].files.items():
        if name.endswith("answers.jsonl"):
            continue
        for old, new in RENAMED.items():
            data = data.replace(f'"{old}"'.encode(), f'"{new}"'.encode())
        files[name.replace("MR_", "").replace("queries", "texts")] = data
    CHECK.bases["cn_clip"] = Input(["data", "check", "retrieval", "data", "--json"], files)


def kind_of(name):
    if name.endswith(".jsonl"):
        return "json"
    return "texts" if ".txt." in name else "images"


def chosen(given, random, kind=None, *, labelled=False):
    """A file of a kind; ``labelled``: whose lines name their images or hold references."""
    names = [name for name, data in given.files.items() if data and kind in (None, kind_of(name))]
    if labelled:
        names = [name for name in names if "_test" not in name and "/test" not in name or "answers" in name]
    return random.choice(sorted(names)) if names else None


def by_change(name, change):
    def spoil(given, random):
        file = chosen(given, random)
        kind = kind_of(file)
        if name in NOT_FOR[kind]:
            return None
        before = given.files[file]
        given.files[file], line = change(before, random, 1)
        return SAME if given.files[file] == before else TAKEN[kind].get(name) or refused(at(file, line))

    return spoil


for each, function in CHANGES.items():
    CHECK.add(each, by_change(each, function))


def spoils_a_line(kind, *bases, verdict=None, labelled=False):
    """Register what becomes of one line of a file of that kind; refused, if nothing else is said."""

    def register(change):
        def spoil(given, random):
            file = chosen(given, random, kind, labelled=labelled)
            if file is None:
                return None
            lines = split(given.files[file])
            place = random.randrange(len(lines))
            line = change(lines[place], random)
            if line is None:
                return None
            lines[place] = line
            given.files[file] = join(lines)
            return verdict or refused(at(file, place + 1))

        CHECK.add(change.__name__, spoil, bases)
        return change

    return register


# --- images ------------------------------------------------------------------------------------------------------

for function in (no_base64, no_image):
    spoils_a_line("images")(function)
spoils_a_line("images", verdict=ACCEPTED)(other_image)


@CHECK.spoils()
def another_spelling_of_base64(given, random):
    file = chosen(given, random, "images")
    lines = split(given.files[file])
    place = random.randrange(len(lines))
    lines[place] = other_base64(lines[place], random)
    given.files[file] = join(lines)
    return refused(at(file, place + 1)) if lines[place].endswith(b"\r") else SAME


@spoils_a_line("images")
def no_column_of_images(line, random):
    token, _, encoded = line.partition(b"\t")
    return random.choice([token, encoded, token + b" " + encoded, token + b"," + encoded, token + b"\\t" + encoded])


@spoils_a_line("images")
def a_column_too_many(line, random):
    token, _, encoded = line.partition(b"\t")
    return random.choice([line + b"\t1", token + b"\t\t" + encoded, token + b"\tred\t" + encoded, b"0\t" + line])


@spoils_a_line("images")
def columns_in_another_order(line, random):
    token, _, encoded = line.partition(b"\t")
    return encoded + b"\t" + token


@spoils_a_line("images", "retrieval", "cn_clip")
def no_number_as_id(line, random):
    token, _, encoded = line.partition(b"\t")
    number = token.decode()
    wrong = random.choice(
        [
            *("", " ", "-" + number, "+" + number, number + ".0", number + "e0", "0x" + number, f'"{number}"'),
            *(
                f"'{number}'",
                number + " ",
                "1" * 19,
                "9" * 400,
                "一千",
                "１２３",
                "½",
                "²",
                "a" + number,
                "nan",
                "None",
            ),
            *("1_000", "1,000", "true", f"[{number}]", f"{number}.jpg", f"id{number}", "١٢٣"),
        ]
    )
    return wrong.encode() + b"\t" + encoded


@spoils_a_line("images", "text_to_image", "captioning")
def no_id_of_an_image(line, random):
    token, _, encoded = line.partition(b"\t")
    return (
        random.choice([b"", b"a" * 129, "长".encode() * 200, token[:-1], token.upper() + b"A", b"\xff\xfe"])
        + b"\t"
        + encoded
    )


@CHECK.spoils("text_to_image", "captioning")
def image_lost(given, random):
    """The line that is wrong is the text's, which has no image."""
    file = chosen(given, random, "images")
    lines = split(given.files[file])
    token, _ = images_of(lines.pop(random.randrange(len(lines))))
    given.files[file] = join(lines)
    return refused(file.rpartition("/")[2], token.decode())


@CHECK.spoils("retrieval", "cn_clip")
def named_image_lost(given, random):
    file = chosen(given, random, "images")
    lines = split(given.files[file])
    token, _ = images_of(lines.pop(random.randrange(len(lines))))
    given.files[file] = join(lines)
    unanswered = "test" in file and not any("answers" in name for name in given.files)
    return ACCEPTED if unanswered else refused(file.rpartition("/")[2], token.decode())


@CHECK.spoils()
def image_of_another_split(given, random):
    """The same id in two splits."""
    one, other = random.sample(
        sorted(name for name, data in given.files.items() if data and kind_of(name) == "images"), 2
    )
    line = random.choice(split(given.files[one]))
    given.files[other] += line + b"\n"
    return refused(line.partition(b"\t")[0].decode())


@CHECK.spoils("retrieval", "cn_clip")
def image_that_nobody_names(given, random):
    file = chosen(given, random, "images")
    lines = split(given.files[file])
    given.files[file] += line_of(b"77777", images_of(lines[0])[1]) + b"\n"
    return ACCEPTED


@CHECK.spoils("text_to_image", "captioning")
def image_without_a_text(given, random):
    file = chosen(given, random, "images")
    lines = split(given.files[file])
    given.files[file] += line_of(b"f" * 32, images_of(lines[0])[1]) + b"\n"
    return refused(at(file, len(lines) + 1), "f" * 32)


# --- JSON --------------------------------------------------------------------------------------------------------

for function in (broken, no_object, key_twice):
    spoils_a_line("json")(function)
spoils_a_line("json", verdict=SAME)(as_well)


def spoils_a_record(*bases, verdict=None, labelled=False):
    """As ``spoils_a_line``, of the object that a line of JSON holds, which is changed or given anew."""

    def register(change):
        def on_a_line(line, random):
            record = json.loads(line)
            changed = change(record, random)
            return None if changed is False else dumped(record if changed is None else changed)

        on_a_line.__name__ = change.__name__
        return spoils_a_line("json", *bases, verdict=verdict, labelled=labelled)(on_a_line)

    return register


def key_of(record, part):
    """The name of a record's id, text or images in its schema."""
    names = {
        "id": ("query_id", "text_id", "image_id"),
        "text": ("query_text", "text"),
        "items": ("item_ids", "image_ids"),
    }
    return next((name for name in names[part] if name in record), None)


@spoils_a_record()
def id_of_another_type(record, random):
    key = key_of(record, "id")
    wrong = [value for value in NO_IDS if not (key == "image_id" and value == "")]
    if key != "image_id":
        wrong += [str(record[key]), f"{record[key]}", 1 << 63, -(1 << 63) - 1, 10**30, float(record[key]), "１０１"]
    else:
        wrong += [7, 0, -1]
    record[key] = random.choice(wrong)


@spoils_a_record()
def key_lost(record, random):
    required = [key_of(record, part) for part in ("id", "text") if key_of(record, part)]
    if key_of(record, "id") == "image_id" and "text" in record:
        required = ["image_id"]  # a caption without references is one of a test split
    del record[random.choice(required)]


@spoils_a_record()
def key_misspelled(record, random):
    key = key_of(record, "id") if key_of(record, "id") == "image_id" else key_of(record, random.choice(["id", "text"]))
    return misspelled(record, key, random)


@spoils_a_record("retrieval", "cn_clip", labelled=True)
def images_lost(record, random):
    key = key_of(record, "items")
    return random.choice([misspelled(record, key, random), {k: v for k, v in record.items() if k != key}])


@spoils_a_record("captioning", labelled=True)
def references_lost(record, random):
    return random.choice([misspelled(record, "text", random), {"image_id": record["image_id"]}])


@spoils_a_record("retrieval", "cn_clip")
def text_that_is_none(record, random):
    record[key_of(record, "text")] = random.choice([*NO_TEXTS, *BLANKS])


@spoils_a_record("retrieval", "cn_clip")
def text_of_half_characters(record, random):
    record[key_of(record, "text")] = random.choice([HALF, f"红{HALF}色", "\udc9f", HALF * 3])


@spoils_a_record("captioning", labelled=True)
def references_that_are_none(record, random):
    record["text"] = random.choice(
        [
            *("红色", "", None, 5, True, {}, {"0": "红色"}, [], [[]], [["红色"]], [None], [5], [{}], [True]),
            *(["红色", blank] for blank in BLANKS),
            *([value] for value in NO_TEXTS),
            *(["红色", value] for value in NO_TEXTS),
            [HALF],
            ["红色", f"红{HALF}"],
        ]
    )


@spoils_a_record("retrieval", "cn_clip", labelled=True)
def images_that_are_no_list_of_ids(record, random):
    key = key_of(record, "items")
    first = record[key][0]
    record[key] = random.choice(
        [
            *(first, str(first), None, True, {}, {"0": first}, [], [str(first)], [float(first)], [[first]], [None]),
            *([True], [False], [first, None], [first, "x"], [1 << 63], [10**30], [{}], "", f"[{first}]", [first, 1.5]),
            *([float("nan")], [float("inf")], [first, [first]]),
        ]
    )


@spoils_a_record("retrieval", "cn_clip", labelled=True)
def images_that_are_not_there(record, random):
    key = key_of(record, "items")
    record[key] = random.choice(
        [[0], [-record[key][0]], [*record[key], 424242], [10**18], list(range(50)), [-(1 << 63)]]
    )


@spoils_a_record("retrieval", "cn_clip", verdict=ACCEPTED, labelled=True)
def image_named_twice(record, random):
    key = key_of(record, "items")
    record[key] = record[key] * random.randint(2, 40)


@spoils_a_record("retrieval", "cn_clip")
def kind_that_is_no_text(record, random):
    record["kind"] = random.choice([5, True, [], {}, ["name"], 1.5])


@spoils_a_record("retrieval", "cn_clip", verdict=EITHER)
def texts_that_are_odd(record, random):
    record[key_of(record, "text")] = random.choice(
        [
            "x" * 1_000_000,
            "红" * 100_000,
            "\0",
            "\x07红",
            "红\u2028色",
            "\u202e红色",
            "👩‍👩‍👧" * 50,
            "\ufeff红色",
            "红\n色",
            "\ufffd",
            "\u200b",
        ]
    )


@CHECK.spoils()
def array_in_the_place_of_lines(given, random):
    file = chosen(given, random, "json")
    if file is None:
        return None
    records = [json.loads(line) for line in split(given.files[file])]
    whole = random.choice([records, {"data": records}, {str(place): record for place, record in enumerate(records)}])
    given.files[file] = json.dumps(whole, indent=random.choice([None, 0, 2]), ensure_ascii=False).encode()
    return refused(at(file, 1))


@CHECK.spoils()
def objects_over_several_lines(given, random):
    file = chosen(given, random, "json")
    if file is None:
        return None
    lines = split(given.files[file])
    given.files[file] = join(json.dumps(json.loads(line), indent=1, ensure_ascii=False).encode() for line in lines)
    return refused(at(file, 1))


@CHECK.spoils("retrieval", "cn_clip", "captioning")
def id_of_another_line(given, random):
    file = chosen(given, random, "json")
    records = [json.loads(line) for line in split(given.files[file])]
    one, other = sorted(random.sample(range(len(records)), 2))
    key = key_of(records[0], "id")
    records[other][key] = records[one][key]
    given.files[file] = join(map(dumped, records))
    return refused(at(file, other + 1))


@CHECK.spoils("retrieval", "captioning", "cn_clip")
def line_of_another_split(given, random):
    """The same id, and the same text, in two splits."""
    train, valid = (
        next(name for name in given.files if kind_of(name) == "json" and split in name) for split in ("train", "valid")
    )
    given.files[valid] += random.choice(split(given.files[train])) + b"\n"
    return refused(at(valid, len(split(given.files[valid]))))


@CHECK.spoils("retrieval", "captioning", "cn_clip")
def files_exchanged(given, random):
    """Texts where images should be, and the other way round."""
    texts, images = chosen(given, random, "json", labelled=True), chosen(given, random, "images")
    given.files[texts], given.files[images] = given.files[images], given.files[texts]
    return refused(at(texts, 1), at(images, 1))


@CHECK.spoils("retrieval")
def keys_of_both_schemas(given, random):
    file = chosen(given, random, "json", labelled=True)
    lines = split(given.files[file])
    place = random.randrange(len(lines))
    lines[place] = lines[place].replace(b'"query_id"', b'"text_id"')
    given.files[file] = join(lines)
    return refused(at(file, place + 1))


# --- TSV of texts ------------------------------------------------------------------------------------------------


@spoils_a_line("texts", "text_to_image")
def no_column_of_texts(line, random):
    token, _, text = line.partition(b"\t")
    return random.choice([token, text, token + b" " + text, token + b"," + text, token + b"\\t" + text])


@spoils_a_line("texts", "text_to_image")
def tab_in_a_text(line, random):
    token, _, text = line.partition(b"\t")
    return random.choice([token + b"\t" + text + b"\t1", b"0\t" + line, token + b"\t" + text + b"\t" + text])


@spoils_a_line("texts", "text_to_image")
def no_text(line, random):
    return line.partition(b"\t")[0] + b"\t" + random.choice(BLANKS).replace("\n", "").encode()


@spoils_a_line("texts", "text_to_image")
def id_that_no_image_has(line, random):
    token, _, text = line.partition(b"\t")
    return random.choice([b"", b" ", token.upper() + b"0", token[1:], b"a" * 129, b'"%s"' % token]) + b"\t" + text


@spoils_a_line("texts", "text_to_image", verdict=EITHER)
def characters_that_are_odd(line, random):
    odd = ["\0", "\x07", "\u2028", "\x85", "\x0b", "\x1c", "\ufeff", "\u202e", "x" * 100_000, "👩‍👩‍👧", "\r"]
    return line + random.choice(odd).encode() + b"x"


# --- files -------------------------------------------------------------------------------------------------------


def may_be_missing(file):
    """MUGE gives no images of the test prompts, and no answers; without those nothing more is asked of the queries."""
    return "answers" in file or "T2I_test.img" in file


@CHECK.spoils()
def file_missing(given, random):
    file = chosen(given, random)
    del given.files[file]
    return ACCEPTED if may_be_missing(file) else refused(file.rpartition("/")[2])


@CHECK.spoils()
def file_renamed(given, random):
    file = chosen(given, random)
    folder, _, name = file.rpartition("/")
    other = random.choice([f"{name}.bak", f"{name}.gz", name.upper(), f"copy of {name}", name.replace("_", "-")])
    given.files[f"{folder}/{other}"] = given.files.pop(file)
    return ACCEPTED if may_be_missing(file) else refused(name)


@CHECK.spoils()
def folder_in_the_place_of_a_file(given, random):
    file = chosen(given, random)
    given.files[file] = None
    return EITHER if may_be_missing(file) else refused(file.rpartition("/")[2])


@CHECK.spoils()
def all_files_empty(given, random):
    given.files.update({name: b"" for name, data in given.files.items() if data})
    return refused("empty_file")


@CHECK.spoils()
def files_that_nobody_asked_for(given, random):
    folder = next(iter(given.files)).rpartition("/")[0]
    given.files[f"{folder}/{random.choice(['README.md', '.DS_Store', 'notes.txt', 'cache.npy'])}"] = b"\0hello"
    given.files[f"{folder}/sub/x.tsv"] = b"x"
    return SAME


@CHECK.spoils()
def other_texts_file_too(given, random):
    """Bytes of a second file of the same split that is read in no case, or which one is not clear."""
    file = next((name for name in given.files if ".txt.tsv" in name), None)
    if file is None:
        return None
    given.files[file.replace(".txt.", ".text.")] = given.files[file]
    return EITHER


@CHECK.spoils()
def bytes_at_random(given, random):
    """No one can say what is wrong: no traceback, and nothing else."""
    file = chosen(given, random)
    given.files[file] = noisy(given.files[file], random, 20, (b"\\", random.randbytes(8)))
    return EITHER


# --- words -------------------------------------------------------------------------------------------------------


def words(*variants, verdict=None):
    """Register other words in the place of the valid ones: each of ``variants`` gives them, and what is named."""

    def spoil(given, random):
        make_words, *named = random.choice(variants)
        given.words = make_words(given.words)
        return verdict or refused(*named)

    return spoil


def task(name):
    return lambda words: [*words[:2], name, *words[3:]]


def root(path):
    return lambda words: [*words[:3], path, *words[4:]]


def more(*added):
    return lambda words: [*words, *added]


CHECK.add(
    "no_such_task",
    words(
        *((task(name), name) for name in ("captions", "t2i", "Retrieval", "retreival", "-", "image_tokenizer", "图")),
        (task(""), "''"),
    ),
)
CHECK.add(
    "no_such_folder",
    words(
        *(
            (root(path), path)
            for path in ("nowhere", "data/nowhere", "/nowhere", "~no_such_user/data", "$NOT_SET/data")
        ),
        *((root(path), path) for path in ("${NOT_SET}", "数据", "a" * 300, "data/*", "/dev/null", "Data")),
        (root("data\n"), "data"),
        *((root(path), "neither a folder") for path in (".", "", "/")),
    ),
)
CHECK.add(
    "no_such_option",
    words(
        (more("--jsn"), "--jsn"),
        (more("--JSON"), "--JSON"),
        (more("--json=maybe"), "--json"),
        (more("more"), "more"),
        (more("--root", "data"), "--root"),
        (more("-x"), "-x"),
        (lambda words: words[:3], "root"),
        (lambda words: words[:2], "task"),
        (lambda words: [*words[:2], "data", "retrieval", "--json"], "data"),
        (lambda words: ["data", "chek", *words[2:]], "chek"),
        (lambda words: ["dta", *words[1:]], "dta"),
        (lambda words: ["data", "--json", *words[2:4]], "choose from"),
    ),
)
CHECK.add(
    "other_words_for_it",
    words(
        (root("./data"),),
        (root("data/"),),
        (root("data/../data"),),
        (root("$PWD/data"),),
        (root("data//"),),
        (more("--json"),),
        (lambda words: [*words[:2], "--json", *words[2:4]],),
        verdict=ACCEPTED,
    ),
)


@CHECK.spoils()
def file_as_root(given, random):
    file = chosen(given, random)
    given.words[3] = file
    return refused(file)


@CHECK.spoils()
def empty_folder(given, random):
    given.words[3] = "empty"
    return refused("empty")


@CHECK.spoils()
def folder_of_another_task(given, random):
    others = [folder for folder in TASKS.values() if f"data/{folder}/" not in str(list(given.files))]
    given.files = {name.replace(name.split("/")[1], others[0]): data for name, data in given.files.items() if data}
    return refused("data")


@CHECK.spoils()
def words_for_people(given, random):
    """Errors in words in the place of JSON: of many alike, the first few."""
    given.words.remove("--json")
    file = chosen(given, random)
    lines = split(given.files[file])
    place = random.randrange(len(lines))
    lines[place] = b"no tab and no object"
    given.files[file] = join(lines)
    return refused(at(file, place + 1), "Fix them")
