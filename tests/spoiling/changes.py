"""What can become of a text file, whatever its format: changed bytes and the line that is wrong then, if it is one."""

import codecs
import gzip

CHANGES = {}  # by name: ``change(data, random, first)`` gives bytes and a line, or None; ``first``: the first to change


def change(function):
    CHANGES[function.__name__] = function
    return function


def split(data):
    return data.removesuffix(b"\n").split(b"\n")


def join(lines):
    return b"\n".join(lines) + b"\n"


def noisy(data, random, most, others=(), end=None):
    """Bytes of which up to ``most`` places, before ``end``, are changed, left out or have others put in."""
    data = bytearray(data)
    for _ in range(random.randint(1, most)):
        place = random.randrange(min(len(data), end or len(data)))
        meant = [b"\n", b"\t", b'"', b",", b"{", b"]", b"\0", b"\xff", b"", b"\r", *others]
        data[place : place + random.choice([0, 1, 1, 4])] = random.choice([random.randbytes(1), *meant])
    return bytes(data)


def change_a_line(given, file, change, random):
    """Change one of a file's lines; gives its number."""
    lines = split(given.files[file])
    place = random.randrange(len(lines))
    lines[place] = change(lines[place], random)
    given.files[file] = join(lines)
    return place + 1


def on_a_line(spoil):
    """A change of one line, which then is wrong."""

    def changed(data, random, first):
        lines = split(data)
        place = random.randrange(first - 1, len(lines))
        lines[place] = spoil(lines[place], random)
        return join(lines), place + 1

    changed.__name__ = spoil.__name__
    CHANGES[spoil.__name__] = changed
    return spoil


def a_new_line(make):
    """A line between others, which is wrong."""

    def changed(data, random, first):
        lines = split(data)
        place = random.randint(first - 1, len(lines))
        lines.insert(place, make(random))
        return join(lines), place + 1

    changed.__name__ = make.__name__
    CHANGES[make.__name__] = changed
    return make


def inserted(line, place, what):
    return line[:place] + what + line[place:]


# --- encodings ---------------------------------------------------------------------------------------------------


@change
def byte_order_mark(data, random, first):
    return codecs.BOM_UTF8 + data, 1


@change
def utf16(data, random, first):
    return data.decode().encode("utf-16"), 1


@change
def utf16_big_end(data, random, first):
    return codecs.BOM_UTF16_BE + data.decode().encode("utf-16-be"), 1


@change
def utf16_without_mark(data, random, first):
    return data.decode().encode(random.choice(["utf-16-le", "utf-16-be"])), 1


@change
def gb18030(data, random, first):
    return data.decode().encode("gb18030"), 1


@on_a_line
def byte_of_no_text(line, random):
    return inserted(line, random.randrange(1, len(line)), bytes([random.choice([0xC0, 0xFE, 0xFF])]))


@on_a_line
def bytes_of_half_a_surrogate_pair(line, random):
    return inserted(line, random.randrange(1, len(line)), b"\xed\xa0\x80")


@on_a_line
def byte_lost(line, random):
    """Of a character that has several."""
    places = [place for place, byte in enumerate(line) if byte >= 0x80]
    if not places:
        return line
    place = random.choice(places)
    return line[:place] + line[place + 1 :]


@on_a_line
def full_width(line, random):
    return line.decode().translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)}).encode()


@on_a_line
def typographic_quotes(line, random):
    return line.replace(b'"', random.choice("“”＂«").encode())


@change
def doubly_encoded(data, random, first):
    return data.decode().encode().decode("latin-1").encode(), None


# --- line ends ---------------------------------------------------------------------------------------------------


@change
def crlf(data, random, first):
    return data.replace(b"\n", b"\r\n"), 1


@on_a_line
def one_crlf(line, random):
    return line + b"\r"


@change
def cr_alone(data, random, first):
    return data.replace(b"\n", b"\r"), 1


@change
def no_last_line_end(data, random, first):
    return data.removesuffix(b"\n"), None


@change
def blank_line_at_the_end(data, random, first):
    return data + b"\n", len(split(data)) + 1


@change
def blank_lines_at_the_end(data, random, first):
    return data + b"\n" * random.randint(2, 40), len(split(data)) + 1


@a_new_line
def blank_line(random):
    return b""


@a_new_line
def line_of_spaces(random):
    return random.choice([b" ", b"    ", b"\t", b" \t "])


@a_new_line
def line_of_an_ideographic_space(random):
    return "\u3000".encode()


# --- damage ------------------------------------------------------------------------------------------------------


@on_a_line
def nul_at_the_beginning(line, random):
    return b"\0" + line


@a_new_line
def line_of_nuls(random):
    return b"\0" * random.randint(1, 4096)


@change
def nuls_at_the_end(data, random, first):
    return data + b"\0" * random.randint(1, 4096), len(split(data)) + 1


@change
def cut_in_the_last_line(data, random, first):
    lines = split(data)
    lines[-1] = lines[-1][: random.randint(1, len(lines[-1]) // 3)]
    return b"\n".join(lines), len(lines)


@change
def line_end_lost(data, random, first):
    lines = split(data)
    place = random.randrange(first - 1, len(lines) - 1)
    lines[place : place + 2] = [lines[place] + lines[place + 1]]
    return join(lines), place + 1


@change
def line_end_too_many(data, random, first):
    lines = split(data)
    place = random.randrange(first - 1, len(lines))
    middle = len(lines[place]) // 2
    lines[place : place + 1] = [lines[place][:middle], lines[place][middle:]]
    return join(lines), place + 2


@change
def nothing(data, random, first):
    return b"", None


@change
def a_byte_order_mark_alone(data, random, first):
    return codecs.BOM_UTF8, None


@change
def spaces_alone(data, random, first):
    return random.choice([b"\n", b"\n\n\n", b"  \n", b"\r\n\r\n"]), None


@a_new_line
def garbage(random):
    return b"\xff" + bytes(random.choice([code for code in range(256) if code not in b"\r\n\t"]) for _ in range(60))


@a_new_line
def words_of_another_file(random):
    return random.choice([b"hello", b"# a comment", b"---", b"===", b"null", "这是一行说明".encode(), b"<<<<<<< HEAD"])


@a_new_line
def huge_line(random):
    return random.choice([b"x", b"1", b"[", b'"']) * random.randint(1 << 19, 1 << 21)


@change
def another_file(data, random, first):
    page = b"<!DOCTYPE html>\n<html><head><title>404</title></head>\n<body>Not Found</body></html>\n"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    log = b"wget: unable to resolve host address\n"
    return random.choice([page, pointer, log]), 1


@change
def compressed(data, random, first):
    return gzip.compress(data, mtime=0), None


# --- whole lines -------------------------------------------------------------------------------------------------


@change
def line_twice(data, random, first):
    lines = split(data)
    place = random.randrange(first - 1, len(lines))
    again = random.randint(place + 1, len(lines))
    lines.insert(again, lines[place])
    return join(lines), again + 1


@change
def all_twice(data, random, first):
    return data + data, len(split(data)) + 1


@change
def another_order(data, random, first):
    lines = split(data)
    rest = lines[first - 1 :]
    random.shuffle(rest)
    return join(lines[: first - 1] + rest), None


@change
def names_of_columns(data, random, first):
    return b"image_id\tcontent\n" + data, 1


# --- spaces ------------------------------------------------------------------------------------------------------


@on_a_line
def space_before(line, random):
    return random.choice([b" ", b"  "]) + line


@on_a_line
def spaces_behind(line, random):
    return line + b" " * random.randint(1, 9)


@on_a_line
def tab_behind(line, random):
    return line + b"\t"
