"""What can become of a line of JSON: other keys, other values, other brackets."""

import json

HALF = "\ud83d"
NO_TEXTS = [5, 0, 1.5, None, True, False, {}, {"zh": "红色"}, ["红色"], []]
NO_IDS = [None, 1.5, 3.0, True, False, [], [1], {}, {"id": 1}, "", float("nan"), float("inf")]
BLANKS = ["", " ", "\t", "\n", "\u3000", "\u3000 \u2003"]


def dumped(record):
    """As MUGE writes a line; half characters by escapes."""
    return json.dumps(record, ensure_ascii=HALF in str(record)).encode("utf-8", "backslashreplace")


def broken(line, random):
    """A line that is no JSON any more."""
    text = line.decode()
    key = text.split('"')[1]
    return random.choice(
        [
            text[:-1],
            text[1:],
            text[:-1] + ",}",
            text + ",",
            text + text,
            text + " x",
            text[:-1] + "]",
            text.replace('"', "'"),
            text.replace(f'"{key}"', key, 1),
            text.replace(":", "=", 1),
            text.replace(":", "：", 1),
            text.replace(",", "，", 1) if "," in text else text + "，",
            text.replace('", "', '" "', 1) if '", "' in text else text[:-1],
            text.replace("{", '{"a": 01, ', 1),
            text.replace("{", '{"a": .5, ', 1),
            text.replace("{", '{"a": +1, ', 1),
            text.replace("{", '{"a": 0x1F, ', 1),
            text.replace("{", '{"a": None, ', 1),
            text.replace("{", '{"a": True, ', 1),
            text.replace("{", '{"a": １, ', 1),
            text.replace("{", '{"a": undefined, ', 1),
            text.replace("{", '{"a": "\t", ', 1),
            text.replace("{", '{"a": "\\x41", ', 1),
            text.replace("{", '{"a": "\\u12", ', 1),
            text.replace("{", '{"a": ' + "9" * 5000 + ", ", 1),  # more digits than Python reads
            text.replace("{", '{"a": ' + "[" * 100_000 + ", ", 1),
            "[" * 100_000 + "]" * 100_000,
            text + " // a comment",
            f"// {text}",
            f"{text};",
        ]
    ).encode()


def no_object(line, random):
    """A line of JSON that is no object."""
    return random.choice([b"[%s]", b"[[%s]]", b"null", b"1", b'"a"', b"true", b"[]", b"NaN", b"-Infinity"]).replace(
        b"%s", line
    )


def as_well(line, random):
    """Another spelling of the same object."""
    record = json.loads(line)
    items = list(record.items())
    random.shuffle(items)
    key = random.choice(list(record))
    escaped = json.dumps(record).replace(f'"{key}"', '"' + "".join(f"\\u{ord(c):04x}" for c in key) + '"', 1)
    return random.choice(
        [
            json.dumps(record).encode(),
            json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(),
            json.dumps(dict(items), ensure_ascii=False).encode(),
            json.dumps(record | {"a key more": [1, {"b": None}]}, ensure_ascii=False).encode(),
            escaped.encode(),
            b"  " + line + b" \t ",
        ]
    )


def key_twice(line, random):
    """An object that gives a key twice: which one counts?"""
    record = json.loads(line)
    key = random.choice(list(record))
    other = random.choice([record[key], 7, "红色", [1]])
    return b"{" + json.dumps(key).encode() + b": " + dumped(other) + b", " + line.lstrip()[1:]


def misspelled(record, key, random):
    """The object with another key in the place of this one."""
    others = {
        key.upper(),
        key.title(),
        f" {key}",
        f"{key} ",
        key.replace("_", ""),
        key.replace("_", "-"),
        f"{key}s",
        "",
    }
    wrong = random.choice(sorted(others - {key}))
    return {wrong if name == key else name: value for name, value in record.items()}
