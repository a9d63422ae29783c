"""What benches are measured on: texts and JPEGs like MUGE's, made up."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 224
BASE64_BYTES = (7_600, 15_000)  # of an image, as MUGE's are
WORDS = "复古 宽松 纯棉 儿童 夏季 新款 加厚 防水 北欧 真皮 简约 高腰 碎花 陶瓷 连衣裙 帆布鞋 双肩包 台灯 沙发 耳环"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for the data, in which zoo's cache lies too."""
    before = os.environ.get("ZOO_CACHE")
    with tempfile.TemporaryDirectory() as name:
        os.environ["ZOO_CACHE"] = f"{name}/cache"
        try:
            yield Path(name)
        finally:
            del os.environ["ZOO_CACHE"]
            if before is not None:
                os.environ["ZOO_CACHE"] = before


def product_jpeg(seed: int) -> bytes:
    """Draw a JPEG like a product's photograph: textured things on white, of a random size in bytes."""
    import numpy as np
    from PIL import Image, ImageDraw

    generator = np.random.default_rng(seed)
    things = Image.new("L", (SIZE, SIZE))
    pen = ImageDraw.Draw(things)
    for _ in range(int(generator.integers(3, 8))):
        left, top, width, height = (int(value) for value in generator.integers(20, 110, 4))
        draw = pen.ellipse if generator.random() < 0.5 else pen.rectangle
        draw((left, top, left + width, top + height), fill=int(generator.integers(120, 256)))
    colours = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    texture = generator.integers(0, 256, (SIZE // 3, SIZE // 3, 3), dtype=np.uint8)
    smooth, fine = (
        Image.fromarray(array).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for array in (colours, texture)
    )
    image = Image.new("RGB", (SIZE, SIZE), "white")
    image.paste(Image.blend(smooth, fine, alpha=0.35), (0, 0), things)
    return _encode(image, int(generator.integers(*BASE64_BYTES)) * 3 // 4)


def _encode(image: "Image", most: int) -> bytes:
    """Encode the best JPEG of at most so many bytes."""
    low, high, best = 10, 96, b""
    while low < high:
        quality = (low + high) // 2
        file = BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= most:
            low, best = quality + 1, file.getvalue()
        else:
            high = quality
    return best


def queries(count: int) -> list[str]:
    """Make up texts of 6 to 13 characters, 8 to 15 tokens: MUGE's are like that."""
    import numpy as np

    generator = np.random.default_rng(0)
    words = WORDS.split()
    lengths = generator.integers(6, 14, count)
    return ["".join(generator.choice(words, 7))[:length] for length in lengths]
