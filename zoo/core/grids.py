"""Texts with the images found or drawn for them, as one image; Chinese is legible also without a system font."""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from zoo.errors import UserError

MARGIN = 24
GAP = 12  # between images
ROW_GAP = 26
TEXT_WIDTH = 300
TEXT_LINES = 6  # a longer query ends in an ellipsis
FRAME = 5
QUERY_SIZE, NOTE_SIZE = 24, 18
BACKGROUND, RULE, BORDER = "#ffffff", "#e6e8eb", "#d5d9de"
INK, PALE, TRUE, MISSED = "#16191d", "#717880", "#12914a", "#b4481e"


@dataclass(frozen=True)
class GridRow:
    """One query of an image grid."""

    text: str
    images: Sequence[np.ndarray | Image.Image]  # best first: [H, W, 3] or [H, W] uint8, or PIL images, any size
    hits: Sequence[bool]  # whether each image is a true one
    note: str = ""  # a word on the row, such as the rank of the first true image


def image_grid(rows: Sequence[GridRow], *, image_size: int = 128, titles: Sequence[str] | None = None) -> Image.Image:
    """Draw one line a query: its text, then its images, best first, the true ones framed in green.

    Long texts are wrapped; images keep their proportions and stand on white. Fonts and line breaks are Pillow's basic
    layout with Noto Sans CJK from the wheel ``manimgx-fonts-cjk``, so a grid is the same on every system.

    Args:
        rows: The queries, at least one.
        image_size: Side of the square that each image is fitted into, pixels.
        titles: What stands above the columns; by default their numbers.

    Returns:
        The image grid in RGB, about 1,750 pixels wide for ten images.

    Raises:
        ValueError: There is no row, or a row has not one hit for each image.
        UserError: The font is not installed.
    """
    if not rows:
        raise ValueError("rows is empty; an image grid needs at least one query.")
    for row in rows:
        if len(row.images) != len(row.hits):
            raise ValueError(f"the row {row.text!r} has {len(row.images)} images but {len(row.hits)} hits.")
    columns = max(len(row.images) for row in rows)
    texts = [wrap(row.text, font(QUERY_SIZE, 500), TEXT_WIDTH) for row in rows]
    notes = [wrap(row.note, font(NOTE_SIZE, 400), TEXT_WIDTH) for row in rows]
    heights = [max(image_size, _text_height(*lines)) for lines in zip(texts, notes, strict=True)]
    header = line_height(NOTE_SIZE) + ROW_GAP // 2 + 4
    left = MARGIN + TEXT_WIDTH + 2 * GAP
    width = left + columns * (image_size + GAP) - GAP + MARGIN
    canvas = Image.new("RGB", (width, MARGIN + header + sum(heights) + ROW_GAP * len(rows)), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for column in range(columns):
        middle = left + column * (image_size + GAP) + image_size // 2
        title = titles[column] if titles else str(column + 1)
        draw.text((middle, MARGIN), title, PALE, font(NOTE_SIZE, 400), anchor="ma")
    top = MARGIN + header
    for row, text, note, height in zip(rows, texts, notes, heights, strict=True):
        draw.line([(MARGIN, top - ROW_GAP // 2), (width - MARGIN, top - ROW_GAP // 2)], RULE)
        _draw_text(draw, top, text, note, found=any(row.hits))
        for column, (image, hit) in enumerate(zip(row.images, row.hits, strict=True)):
            place = (left + column * (image_size + GAP), top)
            _draw_image(canvas, draw, place, image, image_size, hit=hit)
        top += height + ROW_GAP
    return canvas


def _text_height(text: list[str], note: list[str]) -> int:
    return len(text) * line_height(QUERY_SIZE) + len(note) * line_height(NOTE_SIZE)


def _draw_text(draw: ImageDraw.ImageDraw, top: int, text: list[str], note: list[str], *, found: bool) -> None:
    for line in text:
        draw.text((MARGIN, top), line, INK, font(QUERY_SIZE, 500))
        top += line_height(QUERY_SIZE)
    for line in note:
        draw.text((MARGIN, top), line, TRUE if found else MISSED, font(NOTE_SIZE, 400))
        top += line_height(NOTE_SIZE)


def _draw_image(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    image: np.ndarray | Image.Image,
    size: int,
    *,
    hit: bool,
) -> None:
    """One image, fitted into a square; a thick green frame just outside it when true, else a hairline."""
    opened = image if isinstance(image, Image.Image) else Image.fromarray(image)
    fitted = ImageOps.contain(opened.convert("RGBA"), (size, size), Image.Resampling.LANCZOS)
    x, y = place
    canvas.paste(fitted, (x + (size - fitted.width) // 2, y + (size - fitted.height) // 2), fitted)
    if hit:
        frame = (x - FRAME, y - FRAME, x + size - 1 + FRAME, y + size - 1 + FRAME)
        draw.rounded_rectangle(frame, radius=FRAME + 2, outline=TRUE, width=FRAME)
    else:
        draw.rectangle((x - 1, y - 1, x + size, y + size), outline=BORDER)


def wrap(text: str, face: ImageFont.FreeTypeFont, width: int, *, lines: int = TEXT_LINES) -> list[str]:
    """Break a text into lines: between any two Chinese characters, at spaces in Latin, within a word that is too long.

    Args:
        text: Any text; its white space counts as single spaces. Empty gives no line.
        face: The font that it will be drawn with.
        width: Pixels a line may have.
        lines: Lines it may have; what does not fit is cut, with an ellipsis.

    Returns:
        The lines.
    """
    pieces = re.findall(r" |[!-~]+|.[，。！？、；：）】》”’…]*", " ".join(text.split()))
    broken, line = [], ""
    for piece in pieces:
        whole = face.getlength(piece) <= width
        for part in [piece] if whole else piece:  # a part is a piece, or a character of one too long
            if face.getlength((line + part).rstrip()) <= width:
                line += part
            else:
                broken.append(line.rstrip())
                line = part.lstrip()
    broken += [line.rstrip()] if line.strip() else []
    if len(broken) > lines:
        last = broken[lines - 1]
        while face.getlength(last + "…") > width:
            last = last[:-1]
        broken = [*broken[: lines - 1], last + "…"]
    return broken


def line_height(size: int) -> int:
    """Distance of two lines of text of this size, pixels."""
    return round(size * 1.4)


@cache
def font(size: int, weight: int) -> ImageFont.FreeTypeFont:
    """Noto Sans CJK in its simplified Chinese form, laid out by Pillow alone (without raqm and fribidi).

    Args:
        size: Pixels.
        weight: 100 (thin) to 900 (black).

    Raises:
        UserError: The wheel with the font is not installed or holds no such font.
    """
    for index in count():
        try:
            face = ImageFont.truetype(str(font_file()), size, index, layout_engine=ImageFont.Layout.BASIC)
        except OSError as error:
            raise UserError(f"{font_file()} has no face 'Noto Sans CJK SC': reinstall manimgx-fonts-cjk.") from error
        if (face.getname()[0] or "").endswith("CJK SC"):
            face.set_variation_by_axes([weight])
            return face
    raise AssertionError  # count() does not end


@cache
def font_file() -> Path:
    """Where the wheel ``manimgx-fonts-cjk`` lies, without importing it.

    Raises:
        UserError: It is not installed.
    """
    spec = importlib.util.find_spec("manimgx_fonts_cjk")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    files = [path for folder in folders for path in sorted(Path(folder).glob("*CJK*.[ot]t[cf]*"))]
    if not files:
        raise UserError("the Chinese font of image grids is not installed: pip install manimgx-fonts-cjk")
    return files[0]
