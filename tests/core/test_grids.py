"""The contact sheet is looked at by its pixels: frames where the true pictures are, Chinese that is Chinese."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from zoo.core import grids as module
from zoo.core.grids import GridRow, font, font_file, image_grid, wrap
from zoo.errors import UserError

GREEN = (0x12, 0x91, 0x4A)
SIZE = 64


def solid(colour, height=40, width=40):
    return np.full((height, width, 3), colour, dtype=np.uint8)


def cell(column, row=0, heights=(SIZE, SIZE)):
    """The upper left corner of a picture's square."""
    header = module.line_height(module.NOTE_SIZE) + module.ROW_GAP // 2 + 4
    top = module.MARGIN + header + sum(heights[:row]) + row * module.ROW_GAP
    return module.MARGIN + module.TEXT_WIDTH + 2 * module.GAP + column * (SIZE + module.GAP), top


def drawn(text, size=40):
    mask = font(size, 400).getmask(text)
    return np.asarray(mask).reshape(mask.size[::-1])


def test_true_pictures_are_framed_and_others_are_not():
    hits = [[False, True, False], [True, False, True]]
    rows = [GridRow("红色连衣裙", [solid((200, 30, 30))] * 3, own, "first true picture at 2") for own in hits]
    pixels = np.asarray(image_grid(rows, image_size=SIZE))
    for row, own in enumerate(hits):
        for column, hit in enumerate(own):
            x, y = cell(column, row)
            frame = pixels[y - 3, x + SIZE // 2], pixels[y + SIZE + 2, x + SIZE // 2], pixels[y + SIZE // 2, x - 3]
            assert all(tuple(pixel) == (GREEN if hit else (255, 255, 255)) for pixel in frame)
            assert tuple(pixels[y + SIZE // 2, x + SIZE // 2]) == (200, 30, 30)


def test_pictures_keep_their_proportions_order_and_transparency():
    wide, clear = Image.fromarray(solid((0, 0, 255), 20, 80)), Image.new("RGBA", (9, 9), (0, 0, 0, 0))
    grey = np.full((8, 8), 90, dtype=np.uint8)
    pixels = np.asarray(image_grid([GridRow("图", [wide, clear, grey], [False] * 3)], image_size=SIZE))
    middle, upper = [], []
    for column in range(3):
        x, y = cell(column)
        middle.append(tuple(pixels[y + SIZE // 2, x + SIZE // 2].tolist()))
        upper.append(tuple(pixels[y + 4, x + SIZE // 2].tolist()))
    assert middle == [(0, 0, 255), (255, 255, 255), (90, 90, 90)]
    assert upper == [(255, 255, 255), (255, 255, 255), (90, 90, 90)]


def test_rows_may_have_fewer_pictures_and_longer_texts():
    short = GridRow("短", [solid((1, 2, 3))], [True])
    long = GridRow(
        "男女童纯棉短裤夏季新款" * 20, [solid((1, 2, 3))] * 10, [False] * 10, "no true picture in the first 10"
    )
    one, both = image_grid([short], image_size=SIZE), image_grid([short, long], image_size=SIZE)
    assert both.width == one.width + 9 * (SIZE + module.GAP)
    assert both.height > one.height + SIZE + module.ROW_GAP  # the long text has made room
    assert both.mode == "RGB"


def test_chinese_is_drawn_as_chinese():
    missing = drawn("\U0010ffff")  # no font has it
    glyphs = [drawn(character) for character in "红裙男鞋童装帽，：（"]
    for glyph in glyphs:
        assert glyph.any()
        assert glyph.shape != missing.shape or not np.array_equal(glyph, missing)
    assert len({glyph.tobytes() for glyph in glyphs}) == len(glyphs)


def test_two_queries_give_two_sheets_and_the_same_query_one():
    sheets = [image_grid([GridRow(text, [solid((9, 9, 9))], [False])]).tobytes() for text in ("红裙", "男鞋", "红裙")]
    assert sheets[0] != sheets[1]
    assert sheets[0] == sheets[2]


def test_the_font_is_the_wheels_simplified_chinese_in_pillows_own_layout():
    face = font(20, 500)
    assert Path(face.path) == font_file()
    assert font_file().parent.name == "manimgx_fonts_cjk"
    assert face.getname()[0] == "Noto Sans CJK SC"
    assert face.layout_engine == ImageFont.Layout.BASIC
    assert not np.array_equal(np.asarray(font(20, 900).getmask("红")), np.asarray(font(20, 100).getmask("红")))


def test_without_the_wheel_the_fix_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install manimgx-fonts-cjk"):
        font_file.__wrapped__()


@pytest.mark.parametrize(
    "text", ["男女童纯棉短裤2021夏季新款宝宝帅气五分裤", "a pair of red shoes for running", "x" * 90, "裙，" * 30, "鞋"]
)
def test_wrapped_lines_fit_and_lose_nothing(text):
    face = font(20, 400)
    lines = wrap(text, face, 120, lines=99)
    assert all(face.getlength(line) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_words_stay_whole_punctuation_never_opens_a_line_and_space_is_single():
    face = font(20, 400)
    assert wrap("red \n\t shoes for   running", face, 110) == ["red shoes", "for running"]
    assert not any(line.startswith("，") for line in wrap("连衣裙，" * 12, face, 125))
    assert wrap("  ", face, 100) == []


def test_a_text_of_too_many_lines_ends_in_an_ellipsis():
    face = font(20, 400)
    lines = wrap("裙" * 200, face, 100, lines=3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert face.getlength(lines[-1]) <= 100


def test_faulty_rows_are_named():
    with pytest.raises(ValueError, match="rows is empty"):
        image_grid([])
    with pytest.raises(ValueError, match="'裙' has 2 images but 1 hits"):
        image_grid([GridRow("裙", [solid((0, 0, 0))] * 2, [True])])
