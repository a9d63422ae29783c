"""``data import``: a table and a folder of images, of which a cell, a line, a file or an option is spoiled."""

import base64
import csv
import hashlib
import io
import json

from tiny import COLOURS, SHAPES, draw

from spoiling import ACCEPTED, EITHER, SAME, Area, Input, at, refused
from spoiling.changes import CHANGES, change_a_line, join, noisy, split
from spoiling.encoded import line_of, no_image, other_image
from spoiling.folders import more, words
from spoiling.records import BLANKS, HALF, as_well, broken, key_twice, misspelled, no_object

TABLES = ("csv", "tsv", "jsonl")
TASK_OF = {"csv": "retrieval", "tsv": "captioning", "jsonl": "text_to_image", "splits": "retrieval"}

# What comes of the changes that are not refused, by the kind of table.
EVERYWHERE = (
    *("byte_order_mark", "utf16", "utf16_big_end", "gb18030", "crlf", "one_crlf", "no_last_line_end"),
    *("blank_line_at_the_end", "blank_lines_at_the_end", "blank_line", "line_of_an_ideographic_space", "spaces_behind"),
    *("space_before", "line_twice"),
)
TAKEN = {
    "csv": dict.fromkeys((*EVERYWHERE, "cr_alone", "tab_behind", "line_of_spaces"), SAME),
    "tsv": dict.fromkeys((*EVERYWHERE, "cr_alone", "line_of_spaces"), SAME),
    "jsonl": dict.fromkeys((*EVERYWHERE, "tab_behind", "all_twice", "line_of_spaces"), SAME),
}
for kind in TABLES:
    TAKEN[kind] |= dict.fromkeys(("another_order", "doubly_encoded"), EITHER)
NOT_FOR = {"csv": {"typographic_quotes"}, "tsv": {"typographic_quotes"}, "jsonl": {"names_of_columns"}}
WITHOUT_A_LINE = {
    "cut_in_the_last_line",
    "line_end_too_many",
    "byte_of_no_text",
    "byte_lost",
    "bytes_of_half_a_surrogate_pair",
    "garbage",
    "huge_line",
}


def outcome(place, out, err):
    """The digests of what was written, but for the names that images had."""
    files = (path for path in (place / "out").rglob("*") if path.is_file() and path.name != "ids.jsonl")
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def leaves(name, accepted):
    """The whole folder, or what was read of the images, to go on from."""
    return name.startswith("out/") if accepted else name in (".out.import/images.part", ".out.import/metadata.json")


def afterwards(place, given):
    """Whether the folder that was written is as good as it should be."""
    from zoo.data.check import check_folder
    from zoo.data.layouts import find_layouts

    report = check_folder(place / "out", find_layouts()[given.words[2]])
    no_train = [error for error in report.errors if error.kind != "missing_file"]
    return "; ".join(map(str, no_train))


IMPORT = Area("data import", 22, outcome, leaves=leaves, afterwards=afterwards, scratch=".out.import/")


def make(root):
    """Make a table of each kind, and one with a column of splits; ``root`` is not needed."""
    images, rows = {"shop/sub": None}, []
    for number, (colour, shape) in enumerate([(colour, shape) for colour in list(COLOURS)[:4] for shape in SHAPES]):
        name = f"{'sub/' if number % 5 == 4 else ''}{number}.{'jpg' if number % 2 else 'png'}"
        images[f"shop/{name}"] = draw(number, colour, shape)
        rows.append((name, f"{colour}{shape}第{number}"))
        if number % 6 == 5:
            rows.append((name, f"又一个{colour}{shape}"))
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([("image", "text"), *rows])
    tables = {
        "csv": buffer.getvalue(),
        "tsv": "".join(f"{name}\t{text}\n" for name, text in [("image", "text"), *rows]),
        "jsonl": "".join(json.dumps({"image": name, "text": text}, ensure_ascii=False) + "\n" for name, text in rows),
    }
    for kind, text in tables.items():
        given = ["data", "import", TASK_OF[kind], "--images", "shop", "--table", f"table.{kind}", "out"]
        IMPORT.bases[kind] = Input(given, {**images, f"table.{kind}": text.encode()})
    parts = {name: ("valid", "test", "train")[min(place, 2)] for place, name in enumerate(dict(rows))}
    text = "image,text,split\n" + "".join(f"{name},{text},{parts[name]}\n" for name, text in rows)
    given = ["data", "import", TASK_OF["splits"], "--images", "shop", "--table", "table.csv", "out"]
    IMPORT.bases["splits"] = Input(given, {**images, "table.csv": text.encode()})


def table_of(given):
    return next(name for name in given.files if name.startswith("table."))


def first_of(table):
    """The first line that is no header."""
    return 1 if table.endswith("jsonl") else 2


def by_change(name, change):
    def spoil(given, random):
        table = table_of(given)
        kind = table.rpartition(".")[2]
        if name in NOT_FOR[kind]:
            return None
        given.files[table], line = change(given.files[table], random, first_of(table))
        return TAKEN[kind].get(name) or refused(at(table, None if name in WITHOUT_A_LINE or line == 1 else line))

    return spoil


for each, function in CHANGES.items():
    IMPORT.add(each, by_change(each, function), TABLES)


def spoils_a_cell(column, *bases, verdict=None):
    """Register what becomes of one cell of a column: the change gives another value, for CSV as it is written."""

    def register(change):
        def spoil(given, random):
            table = table_of(given)
            lines = split(given.files[table])
            place = random.randrange(first_of(table) - 1, len(lines))
            line = lines[place].decode()
            if table.endswith("jsonl"):
                record = json.loads(line)
                value = change(record[column], random)
                if value == record[column]:
                    return None
                lines[place] = json.dumps(record | {column: value}).encode()
            else:
                separator = "\t" if table.endswith("tsv") else ","
                cells = line.split(separator)
                number = ("image", "text", "split").index(column)
                value = change(cells[number], random)
                if value == cells[number] or not isinstance(value, str) or separator in value:
                    return None
                cells[number] = value
                lines[place] = separator.join(cells).encode("utf-8", "surrogatepass")
            given.files[table] = join(lines)
            if callable(verdict):
                return verdict(at(table, place + 1))
            return verdict or refused(at(table, place + 1))

        IMPORT.add(change.__name__, spoil, bases)
        return change

    return register


# --- images ------------------------------------------------------------------------------------------------------


@spoils_a_cell("image")
def image_that_is_not_there(name, random):
    return random.choice(
        [
            *(
                "nothing.jpg",
                name + "x",
                name.upper().replace("SUB", "sub") + "~",
                "sub",
                ".",
                "..",
                "sub/",
                "shop/" + name,
            ),
            *(
                f"../{name}",
                f"../shop/../{name}",
                "/etc/hostname",
                "/nowhere/x.jpg",
                "../table.csv",
                "~/x.jpg",
                "$HOME/x",
            ),
            *(
                f"https://example.com/{name}",
                f"file:///{name}",
                f"s3://bucket/{name}",
                "NULL",
                "None",
                "nan",
                "N/A",
                "-",
            ),
            *(
                "x" * 300 + ".jpg",
                "x/" * 600 + "y.jpg",
                "图" * 200 + ".jpg",
                "a\0b.jpg",
                "con.jpg",
                "*.jpg",
                "?.jpg",
                "`ls`",
            ),
            *(f"{name};{name}", f"{name} ; x", "...", "//", "\\", "\u202e" + name, name.replace(".", "．")),
        ]
    )


@IMPORT.spoils("csv", "tsv", "splits")
def rows_left_out(given, random):
    """What cannot be taken, where rows may be left out."""
    table = table_of(given)
    lines = split(given.files[table])
    for _ in range(random.randint(1, 4)):
        lines.insert(
            random.randint(1, len(lines)), random.choice([b"x", lines[1] + b"," * 9 + b"\t" * 9, b"0.png", b"\0"])
        )
    given.files[table] = join(lines)
    given.words += ["--on_error", "skip"]
    return SAME


@spoils_a_cell("image")
def no_image_named(name, random):
    return random.choice(BLANKS).replace("\n", "").replace("\t", "")


@spoils_a_cell("image", verdict=SAME)
def image_named_otherwise(name, random):
    return random.choice(
        [f"./{name}", f"sub/../{name}", f" {name} ", f".//{name}", f"../shop/{name}", f"sub\\..\\{name}"]
    )


@spoils_a_cell("image", "jsonl")
def image_that_is_no_name(name, random):
    return random.choice(
        [None, 5, 1.5, True, False, [], {}, [name, name], {"path": name}, [[name]], float("nan"), HALF]
    )


@IMPORT.spoils()
def image_file_broken(given, random):
    """A file that is no image; the first line that names it is told."""
    name = random.choice(sorted(name for name, data in given.files.items() if name.startswith("shop/") and data))
    _, _, encoded = no_image(line_of(b"1", given.files[name]), random).partition(b"\t")
    given.files[name] = base64.b64decode(encoded)
    table = table_of(given)
    own = name.removeprefix("shop/")
    line = next(place for place, line in enumerate(split(given.files[table]), 1) if own in line.decode())
    return refused(at(table, line), own)


@IMPORT.spoils()
def image_file_of_another_kind(given, random):
    name = random.choice(sorted(name for name, data in given.files.items() if name.startswith("shop/") and data))
    _, _, encoded = other_image(line_of(b"1", given.files[name]), random).partition(b"\t")
    given.files[name] = base64.b64decode(encoded)
    return ACCEPTED


@IMPORT.spoils()
def image_file_missing(given, random):
    """Or a folder in its place."""
    name = random.choice(sorted(name for name, data in given.files.items() if name.startswith("shop/") and data))
    del given.files[name]
    if random.random() < 0.5:
        given.files[name] = None
    return refused(name.removeprefix("shop/"))


@IMPORT.spoils()
def all_images_missing(given, random):
    for name in [name for name, data in given.files.items() if name.startswith("shop/") and data]:
        del given.files[name]
    return refused(table_of(given))


@IMPORT.spoils()
def files_that_nobody_names(given, random):
    given.files["shop/readme.txt"] = b"hello"
    given.files["shop/sub/broken.jpg"] = b"\xff\xd8"
    return SAME


# --- texts -------------------------------------------------------------------------------------------------------


@spoils_a_cell("text")
def blank_text(text, random):
    return random.choice(BLANKS).replace("\n", "").replace("\t", "")


@spoils_a_cell("text", "jsonl")
def text_that_is_none(text, random):
    return random.choice(
        [None, [], {}, {"zh": text}, [[text]], [None], [text, None], ["", text], [{}], [text, {}], True, False]
        + [float("nan"), float("inf"), HALF, [HALF], text + HALF, [text, [text]], [True]]
    )


@spoils_a_cell("text", verdict=EITHER)
def text_that_is_odd(text, random):
    odd = [
        "\0",
        "\x07",
        "\u2028",
        "\x85",
        "\x0b",
        "\x1c",
        "\ufeff",
        "\u202e",
        "x" * 100_000,
        "👩‍👩‍👧",
        "'",
        "''",
        "%",
        "\\",
        "\\n",
    ]
    return text + random.choice(odd) + "x"


@spoils_a_cell("text", "jsonl", verdict=ACCEPTED)
def several_texts(text, random):
    return random.choice(
        [[text, text + "二"], [text + "\n二", text + "三"], [f"{text}{n}" for n in range(50)], 5, 1.5, "5"]
    )


@spoils_a_cell("text", "csv", verdict=ACCEPTED)
def quoted_text(text, random):
    return random.choice([f'"{text}\n二"', f'"{text} ""大"""', f'"{text}，二"', f'"\r\n{text}二"', f'"{text}\t二"'])


@spoils_a_cell("text", "csv", verdict=SAME)
def quoted_for_nothing(text, random):
    return random.choice([f'"{text}"', f'" {text} "', f'"{text}\n"', f'"\n{text}"'])


@spoils_a_cell("text", "csv", verdict=lambda place: refused("table.csv:"))
def quote_that_does_not_end(text, random):
    return random.choice([f'"{text}', f'"{text}" x', f'"{text}""', f'"{text}"二"'])


@IMPORT.spoils("csv", "tsv", "splits")
def cell_too_many(given, random):
    table = table_of(given)
    lines = split(given.files[table])
    place = random.randrange(1, len(lines))
    separator = b"\t" if table.endswith("tsv") else b","
    cells = lines[place].split(separator)
    cells.insert(random.randint(0, len(cells)), random.choice([b"", b"1", cells[0]]))
    lines[place] = separator.join(cells)
    given.files[table] = join(lines)
    return refused(at(table, place + 1))


@IMPORT.spoils("csv", "tsv", "splits")
def cell_lost(given, random):
    table = table_of(given)
    lines = split(given.files[table])
    place = random.randrange(1, len(lines))
    separator = b"\t" if table.endswith("tsv") else b","
    cells = lines[place].split(separator)
    del cells[random.randrange(len(cells))]
    lines[place] = separator.join(cells)
    given.files[table] = join(lines)
    return refused(at(table, place + 1))


# --- columns and splits ------------------------------------------------------------------------------------------


def header(*variants, verdict=None):
    """Register other first lines of a table."""

    def spoil(given, random):
        table = table_of(given)
        first, *rest = split(given.files[table])
        given.files[table] = join([random.choice(variants)(first), *rest])
        return verdict or refused(table)

    return spoil


def replaced(old, new):
    return lambda line: line.replace(old.encode(), new.encode())


IMPORT.add(
    "column_unknown",
    header(
        *(replaced("image", new) for new in ("", "images/", "id", "a\0", "图片？", "im age")),
        *(replaced("text", new) for new in ("", "words", "0")),
    ),
    ("csv", "tsv", "splits"),
)
IMPORT.add(
    "columns_called_the_same",
    header(replaced("text", "image"), replaced("image", "text"), lambda line: line + line[5:]),
    ("csv",),
)
IMPORT.add(
    "columns_two_of_a_kind",
    header(replaced("split", "caption"), replaced("split", "file"), replaced("split", "图片")),
    ("splits",),
)
IMPORT.add(
    "columns_called_otherwise",
    header(
        *(replaced("image", new) for new in ("Image", " image ", "图片", "FILE_NAME", "file name", "img-path")),
        *(replaced("text", new) for new in ("TEXT", "标题", "caption", " text")),
        verdict=SAME,
    ),
    ("csv", "tsv"),
)


@IMPORT.spoils("csv", "tsv", "splits")
def no_header(given, random):
    table = table_of(given)
    given.files[table] = join(split(given.files[table])[1:])
    return refused(table)


@IMPORT.spoils("csv", "tsv", "splits")
def header_alone(given, random):
    table = table_of(given)
    given.files[table] = split(given.files[table])[0] + random.choice([b"", b"\n", b"\n\n\n"])
    return refused(table)


@IMPORT.spoils("csv", "tsv")
def header_again(given, random):
    """In the middle, as where files were put together."""
    table = table_of(given)
    lines = split(given.files[table])
    place = random.randrange(1, len(lines))
    lines.insert(place, lines[0])
    given.files[table] = join(lines)
    return refused(at(table, place + 1))


@IMPORT.spoils("csv", "tsv")
def another_separator(given, random):
    table = table_of(given)
    old = b"\t" if table.endswith("tsv") else b","
    new = random.choice([b";", b"|", b"\t", "，".encode(), b",", b" ", b":", b"\x01", b"||", b"&", b"  "])
    given.files[table] = given.files[table].replace(old, new)
    known = (b",", b";", b"\t", b"|", "，".encode(), b"||") if table.endswith("csv") else (b"\t",)
    if new == b"||":
        return EITHER
    return SAME if new in known else refused(table)


@IMPORT.spoils("csv", "tsv")
def an_index_before_the_columns(given, random):
    """As pandas writes it: the first column has no name."""
    table = table_of(given)
    separator = b"\t" if table.endswith("tsv") else b","
    lines = split(given.files[table])
    lines = [(b"" if not number else str(number - 1).encode()) + separator + line for number, line in enumerate(lines)]
    given.files[table] = join(lines)
    return SAME


@spoils_a_cell("split", "splits")
def no_split(name, random):
    return random.choice(["", " ", "trian", "0", "train/valid", "all", "训", "TRAIN2", "None", "nan", "train;"])


@spoils_a_cell("split", "splits", verdict=SAME)
def split_called_otherwise(name, random):
    others = {
        "train": ["Train", " train ", "TRAINING", "训练集", "训练"],
        "valid": ["val", "dev", "Validation", "验证", "VALID"],
        "test": ["testing", "Test", "测试集"],
    }
    return random.choice(others[name])


@IMPORT.spoils("splits")
def image_in_two_splits(given, random):
    lines = split(given.files["table.csv"])
    place = random.randrange(1, len(lines))
    name, text, part = lines[place].decode().split(",")
    other = random.choice(sorted({"train", "valid", "test"} - {part}))
    given.files["table.csv"] += f"{name},{random.choice([text, '另一句'])},{other}\n".encode()
    return refused("table.csv:", "take one out")


@IMPORT.spoils("splits")
def text_in_two_splits(given, random):
    lines = split(given.files["table.csv"])
    (name, _, part), (_, text, other) = (line.decode().split(",") for line in random.sample(lines[1:], 2))
    if part == other:
        return None
    given.files["table.csv"] += f"{name},{text},{part}\n".encode()
    return refused("table.csv:", "this text")


# --- JSON --------------------------------------------------------------------------------------------------------


def spoils_a_line(change, verdict=None):
    def spoil(given, random):
        line = change_a_line(given, "table.jsonl", change, random)
        return verdict or refused(at("table.jsonl", line))

    IMPORT.add(change.__name__, spoil, ("jsonl",))


spoils_a_line(broken)
spoils_a_line(no_object)
spoils_a_line(key_twice)
spoils_a_line(as_well, SAME)


@IMPORT.spoils("jsonl")
def key_misspelled(given, random):
    lines = split(given.files["table.jsonl"])
    place = random.randrange(1, len(lines))  # the first line tells the columns
    wrong = misspelled(json.loads(lines[place]), random.choice(["image", "text"]), random)
    lines[place] = json.dumps(wrong, ensure_ascii=False).encode()
    given.files["table.jsonl"] = join(lines)
    return EITHER  # a column of a usual name more may make it unclear which is meant


@IMPORT.spoils("jsonl")
def key_lost(given, random):
    lines = split(given.files["table.jsonl"])
    place = random.randrange(1, len(lines))
    record = json.loads(lines[place])
    del record[random.choice(["image", "text"])]
    lines[place] = json.dumps(record, ensure_ascii=False).encode()
    given.files["table.jsonl"] = join(lines)
    return refused(at("table.jsonl", place + 1))


@IMPORT.spoils("jsonl")
def one_array(given, random):
    records = [json.loads(line) for line in split(given.files["table.jsonl"])]
    given.files["table.jsonl"] = json.dumps(records, indent=random.choice([None, 0, 4]), ensure_ascii=False).encode()
    return SAME


@IMPORT.spoils("jsonl")
def one_array_that_is_broken(given, random):
    records = [json.loads(line) for line in split(given.files["table.jsonl"])]
    text = json.dumps(records, indent=random.choice([None, 2]), ensure_ascii=False)
    given.files["table.jsonl"] = random.choice(
        [
            text[:-1],
            text[: len(text) // 2],
            text[:-1] + ",]",
            text + "]",
            text + text,
            text.replace("}", "", 1),
            text[1:],
        ]
    ).encode()
    return refused("table.jsonl")


@IMPORT.spoils("jsonl")
def columns_in_the_place_of_rows(given, random):
    records = [json.loads(line) for line in split(given.files["table.jsonl"])]
    columns = {key: [record[key] for record in records] for key in ("image", "text")}
    by_index = {key: dict(enumerate(values)) for key, values in columns.items()}
    given.files["table.jsonl"] = json.dumps(random.choice([columns, by_index, {"data": records}])).encode()
    return refused("table.jsonl")


# --- words -------------------------------------------------------------------------------------------------------


def option(name, *values):
    """Words with an option more, and its name."""
    return [(more(f"--{name}", value), name) for value in values]


def instead(place, value):
    return lambda words: [*words[:place], value, *words[place + 1 :]]


IMPORT.add(
    "number_out_of_range",
    words(
        *option("valid", "-0.1", "1", "1.5", "nan", "inf", "-inf", "1e9", "abc", "", "0,1", "10%", "null", "[0.1]"),
        *option("test", "-1", "1.0", "nan", "x", "0.95"),
        *option("seed", "1.5", "x", "", "nan", "1e3", "[1]"),
        *option("max_size", "0", "-5", "1.5", "x", "nan", "inf", ""),
        (more("--valid", "0.6", "--test", "0.6"), "--valid"),
        (more("--valid", "0.5", "--test", "0.5"), "--valid"),
    ),
    TABLES,
)
IMPORT.add(
    "wrong_option",
    words(
        *option("on_error", "skp", "", "ignore", "Raise", "true"),
        *option("image_column", "nope", "", "Image"),
        *option("text_column", "nope", "文本", "0"),
        *option("split_column", "split", "nope", ""),
        *option("attributes", "nope", "", "text", "image"),
        (more("--imges", "x"), "--imges"),
        (more("--valid"), "--valid"),
        (more("more"), "more"),
        (more("--split_column", "text", "--valid", "0.2"), "--split_column"),
        (more("-v"), "-v"),
    ),
    TABLES,
)
IMPORT.add(
    "wrong_table",
    words(
        *(
            (instead(6, path), path)
            for path in ("nowhere.csv", "shop", "shop/0.png", "/nowhere/x.csv", "~no_such_user/t.csv", "$NOT_SET/t.csv")
        ),
        *((instead(6, path), "--table") for path in ("", ".", "table", "/dev/null")),
        (lambda words: [*words[:5], *words[7:]], "table"),
    ),
)
IMPORT.add(
    "wrong_images",
    words(
        *(
            (instead(4, path), path)
            for path in ("nowhere", "shop/0.png", "/nowhere", "~no_such_user/shop", "$NOT_SET", "${NOT_SET}/x")
        ),
        (lambda words: [*words[:3], *words[5:]], "--images"),
        (instead(4, "shop/sub"), "table."),
        (instead(4, "empty"), "empty"),
    ),
)
IMPORT.add(
    "wrong_place",
    words(
        *(
            (instead(7, path), path)
            for path in (
                "shop",
                "shop/0.png",
                "shop/0.png/out",
                "shop/sub/..",
                "~no_such_user/out",
                "$NOT_SET/out",
                "/proc/out",
                "/dev/null",
                "a" * 300,
            )
        ),
        *((instead(7, path), "there") for path in (".", "", "..", "/")),
        (lambda words: words[:7], "out"),
        (more("other"), "other"),
    ),
)
IMPORT.add(
    "wrong_task",
    words(
        *((instead(2, name), name) for name in ("captions", "t2i", "Retrieval", "image_tokenizer")),
        (lambda words: ["data", "import"], "task"),
    ),
)
IMPORT.add(
    "same_words_otherwise",
    words(
        (instead(4, "./shop/"),),
        (instead(4, "$PWD/shop"),),
        (instead(7, "out/"),),
        (instead(7, "./sub/../out"),),
        (more("--seed", "0"),),
        (more("--seed=0"),),
        (more("--seed", "7", "--seed", "0"),),
        (more("--valid", "0.1", "--test", "0.1"),),
        (more("--valid", "０.１"),),
        (more("--on_error", "skip"),),
        (more("--max_size", "100000"),),
        (more("--image_column", "image", "--text_column", "text"),),
        verdict=SAME,
    ),
    TABLES,
)
IMPORT.add(
    "other_words",
    words(
        (more("--max_size", "1"),),
        (more("--max_size", "7"),),
        (more("--seed", "-1"),),
        (more("--seed", "1" * 30),),
        (more("--valid", "0", "--test", "0"),),
        (more("--valid", "1e-9"),),
        (more("--valid", "0.7"),),
        verdict=ACCEPTED,
    ),
    TABLES,
)


@IMPORT.spoils(*TABLES)
def place_that_is_there(given, random):
    given.files[random.choice(["out/x.txt", "out/MR_train_imgs.tsv", "out/.hidden", "out/sub/x"])] = b"precious"
    return refused("out", "there already")


@IMPORT.spoils(*TABLES)
def file_in_the_place(given, random):
    given.files["out"] = b"precious"
    return refused("out", "there already")


@IMPORT.spoils(*TABLES)
def empty_folder_in_the_place(given, random):
    given.files["out"] = None
    return SAME


@IMPORT.spoils(*TABLES)
def what_another_import_left(given, random):
    """Of other images, or nothing that can be read: the import begins anew."""
    given.files[".out.import/images.part"] = random.choice(
        [b"", b"\0" * 99, b'["0.png", "1", "x"]\tAAAA\n', b"{}\n", b"\xff\t\n"]
    )
    given.files[".out.import/metadata.json"] = random.choice(
        [b"", b"{}", b"null", b"\xff\xfe", b'{"version": 1}', b"[" * 9999]
    )
    return SAME


@IMPORT.spoils(*TABLES)
def table_named_otherwise(given, random):
    table = table_of(given)
    kind = table.rpartition(".")[2]
    other = random.choice(
        [f"table.{kind.upper()}", "table.txt", "table.xlsx", f"table.{kind}.gz", "table", "table.parquet", "table.json"]
    )
    given.files[other] = given.files.pop(table)
    given.words[6] = other
    return SAME if other.lower() == table else refused(other)


@IMPORT.spoils(*TABLES)
def bytes_at_random(given, random):
    table = table_of(given)
    given.files[table] = noisy(given.files[table], random, 12, (random.randbytes(6),))
    return EITHER
