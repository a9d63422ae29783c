import io

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.formats import write_image_tsv
from zoo.data.images import decode, encode_base64
from zoo.errors import FileError
from zoo.tasks.text_to_image.contracts import GenerationTargets
from zoo.tasks.text_to_image.submission_files import T2ISubmission

IDS = [f"{number:032x}" for number in (7, 3, 9, 1, 5, 8)]
GOLD = GenerationTargets(
    "test", "tiny", IDS, [f"描述{id_[-1]}" for id_ in IDS], list(range(len(IDS))), has_images=False
)
STRANGER = "f" * 32


def picture(seed=0, *, size=(16, 16), mode="RGB", kind="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(encoded, kind)
    return encoded.getvalue()


PICTURES = {id_: picture(seed, kind="JPEG" if seed % 2 else "PNG") for seed, id_ in enumerate(IDS)}


def line(id_, data=None):
    return id_.encode() + b"\t" + encode_base64(PICTURES[id_] if data is None else data)


@pytest.fixture
def submission(tmp_path):
    """Writes lines and opens them."""

    def submission(lines, end=b"\n"):
        path = tmp_path / "T2I_test.tsv"
        path.write_bytes(b"".join(one + end for one in lines))
        return T2ISubmission(path, GOLD)

    return submission


def told(submission):
    """Line, or 0, and message of each error."""
    errors = submission.check()
    assert all(error.file == str(submission.path) for error in errors)
    return [(error.line or 0, error.message) for error in errors]


def test_pictures_come_in_the_gold_s_order_whatever_the_file_s(tmp_path):
    path = tmp_path / "T2I_test.tsv"
    write_image_tsv(path, ((id_, PICTURES[id_]) for id_ in sorted(IDS)))
    submission = T2ISubmission(path, GOLD)
    batches = list(submission.batches(batch_size=4))
    assert [len(batch["text"]) for batch in batches] == [4, 2]
    assert torch.cat([batch["row"] for batch in batches]).tolist() == list(range(6))
    assert [text for batch in batches for text in batch["text"]] == GOLD.texts
    assert [id_ for batch in batches for id_ in batch["image_id"]] == IDS
    pixels = torch.cat([batch["image"] for batch in batches])
    assert pixels.shape == (6, 3, 16, 16)
    assert pixels.dtype == torch.uint8
    for id_, one in zip(IDS, pixels, strict=True):
        np.testing.assert_array_equal(one.permute(1, 2, 0), decode(PICTURES[id_]))
    assert submission.errors == []
    assert submission.image_size == 16


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_whole_file_has_no_errors(submission, end):
    whole = submission(map(line, IDS), end)
    assert whole.check() == []
    whole.path.write_bytes(whole.path.read_bytes().removesuffix(end))
    assert T2ISubmission(whole.path, GOLD).check() == []


def test_the_url_safe_alphabet_is_read(submission):
    lines = [line(id_).translate(bytes.maketrans(b"+/", b"-_")) for id_ in IDS]
    assert submission(lines).check() == []


def truncated(id_, share=0.6):
    return PICTURES[id_][: int(len(PICTURES[id_]) * share)]


ERRORS = {
    "duplicate": ([*map(line, IDS), line(IDS[1])], [(7, f"image {IDS[1]}: the id is already on line 2")]),
    "missing": (map(line, IDS[:-1]), [(0, f"image {IDS[-1]}: is missing")]),
    "unknown": (
        [*map(line, IDS), line(STRANGER, picture())],
        [(7, f"image {STRANGER}: no prompt of the test split has this id")],
    ),
    "no tab": ([*map(line, IDS), b"no tab here"], [(7, 'no tab after "no tab here"')]),
    "tabs": (
        [line(IDS[0]) + b"\t", line(IDS[1]).replace(b"\t", b"\t\t"), *map(line, IDS[2:])],
        [(1, f"image {IDS[0]}: 2 tabs"), (2, f"image {IDS[1]}: 2 tabs")],
    ),
    "blank": ([*map(line, IDS), b" "], [(7, "is blank; take it out")]),
    "byte order mark": ([b"\xef\xbb\xbf" + line(IDS[0]), *map(line, IDS[1:])], [(1, "begins with a byte order mark")]),
    "bad base64": ([IDS[0].encode() + b"\tA$AA", *map(line, IDS[1:])], [(1, f"image {IDS[0]}: not base64")]),
    "empty picture": ([line(IDS[0], b""), *map(line, IDS[1:])], [(1, f"image {IDS[0]}: an empty image")]),
    "no picture": ([line(IDS[0], b"text"), *map(line, IDS[1:])], [(1, f"image {IDS[0]}: not an image: 4 bytes")]),
    "truncated PNG": (
        [line(IDS[0], truncated(IDS[0])), *map(line, IDS[1:])],
        [(1, f"image {IDS[0]}: an image that cannot be decoded")],
    ),
    "truncated JPEG": (
        [line(IDS[0]), line(IDS[1], truncated(IDS[1], 0.9)), *map(line, IDS[2:])],
        [(2, f"image {IDS[1]}: an image that cannot be decoded")],
    ),
    "other size": (
        [*map(line, IDS[:3]), line(IDS[3], picture(size=(8, 8))), *map(line, IDS[4:])],
        [(4, f"image {IDS[3]}: 8 × 8 pixels; most of this file's images have 16 × 16")],
    ),
    "not square": (
        [*map(line, IDS[:3]), line(IDS[3], picture(size=(16, 12))), *map(line, IDS[4:])],
        [(4, f"image {IDS[3]}: 16 × 12 pixels, not square")],
    ),
    "other kind": (
        [*map(line, IDS[:3]), line(IDS[3], picture(kind="WEBP")), *map(line, IDS[4:])],
        [(4, f"image {IDS[3]}: a WEBP, not a PNG or JPEG")],
    ),
    **{
        f"mode {mode}": (
            [*map(line, IDS[:2]), line(IDS[2], picture(mode=mode, kind=kind)), *map(line, IDS[3:])],
            [(3, f"image {IDS[2]}: its mode is {mode}, not RGB")],
        )
        for mode, kind in (("RGBA", "PNG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"))
    },
    "an id that is not UTF-8": (
        [*map(line, IDS), b"\xff" + line(IDS[0])],
        [(7, f"image \\xff{IDS[0]}: the id is not UTF-8")],
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_told_with_its_line_and_id_and_nothing_else(submission, name):
    lines, expected = ERRORS[name]
    came = told(submission(lines))
    assert [number for number, _ in came] == [number for number, _ in expected]
    for (_, words), (_, beginning) in zip(came, expected, strict=True):
        assert beginning in words


def test_all_errors_of_a_file_are_told_and_the_sound_pictures_come(submission):
    broken = submission(
        [
            b"\xef\xbb\xbf" + line(IDS[0], picture(size=(8, 4), mode="L")),  # 1: three errors
            line(IDS[1]),
            b"no tab",  # 3
            line(IDS[1], truncated(IDS[1], 0.9)),  # 4: twice, and cut short
            line(IDS[2]),
            line(STRANGER, truncated(IDS[0])),  # 6: unknown, and cut short
            line(IDS[3], truncated(IDS[2])),  # 7
            line(IDS[4], b"?"),  # 8
        ]
    )
    at_once = len(broken.errors)
    rows = [row for batch in broken.batches() for row in batch["row"].tolist()]
    assert rows == [1, 2]
    assert [number for number, _ in told(broken)] == [0, 1, 1, 1, 3, 4, 4, 6, 6, 7, 8]
    assert at_once == len(broken.errors) - 3


def test_an_empty_file_is_one_error(submission):
    empty = submission([])
    assert [(error.line, error.kind) for error in empty.check()] == [(None, "empty_file")]
    assert empty.image_size is None


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileError, match="is not there; give a .tsv file") as raised:
        T2ISubmission(tmp_path / "T2I_test.tsv", GOLD)
    assert raised.value.kind == "missing_file"


def test_many_pictures_and_threads_keep_the_order(tmp_path):
    ids = [f"{number:032x}" for number in range(300)]
    targets = GenerationTargets("test", "many", ids, ids, list(range(300)), has_images=False)
    write_image_tsv(tmp_path / "x.tsv", ((id_, picture(number, size=(4, 4))) for number, id_ in enumerate(ids)))
    submission = T2ISubmission(tmp_path / "x.tsv", targets)
    pixels = torch.cat([batch["image"] for batch in submission.batches(batch_size=7, num_workers=5)])
    for number in (0, 6, 7, 150, 299):
        np.testing.assert_array_equal(pixels[number].permute(1, 2, 0), decode(picture(number, size=(4, 4))))
    next(submission.batches(num_workers=2)).clear()  # a reader may stop early


def test_a_file_in_utf16_is_one_error(submission):
    path = submission(map(line, IDS)).path
    path.write_bytes(path.read_text().encode("utf-16"))
    assert [(error.line, error.kind) for error in T2ISubmission(path, GOLD).check()] == [(1, "not_utf8")]
