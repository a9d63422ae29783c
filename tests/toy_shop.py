"""A small shop to search in, and an encoder that knows colours: what tests of the search and their processes share."""

import time
from io import BytesIO

import numpy as np
from PIL import Image

from zoo.data.images import resize
from zoo.tasks.retrieval.search.contracts import Description, Product

COLOURS = {"红": (220, 30, 30), "绿": (30, 160, 60), "蓝": (40, 60, 220), "黄": (240, 210, 40)}
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\"'&黑"
ODD_IDS = ("../outside.txt", "a/b c.jpg", "100%?x=1#y", "';--\"\\", "\x00\x07", "表情😀")
FIELDS = {"颜色": "text", "品牌": "text", "价格": "number", "新品": "boolean"}


class ColourEncoder:
    """Embeds texts by the colours that they name, images by the colour that they are nearest to.

    Args:
        seconds: What each forward pass takes.
    """

    fingerprint = "0123456789abcdef"
    width = 8

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.batches = []  # texts of each forward pass

    def prepare(self, image):
        return resize(image, 8)

    def encode_texts(self, texts):
        time.sleep(self.seconds)
        self.batches.append(list(texts))
        return _unit(np.array([[colour in text for colour in COLOURS] for text in texts], np.float32))

    def encode_squares(self, squares):
        means = squares.reshape(len(squares), -1, 3).mean(axis=1)
        distances = np.linalg.norm(means[:, None] - np.array(list(COLOURS.values())), axis=-1)
        return _unit((distances == distances.min(axis=1, keepdims=True)).astype(np.float32))


def _unit(known):
    """Unit vectors ``[B, 8]``: what is known of the colours, and a constant."""
    vectors = np.concatenate([known, np.full((len(known), 4), 0.01, np.float32)], axis=1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def encoded(colour, format="JPEG", size=(48, 32)):
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, format)
    return file.getvalue()


def make_shop(folder):
    """Write images below ``folder``; give the description of their index, and the products."""
    (folder / "images").mkdir(parents=True)
    (folder / "outside.txt").write_text("secret")
    (folder / "outside.jpg").write_bytes(encoded("black"))
    encoder, products = ColourEncoder(), []

    def add(id, title, image, colour, **metadata):
        vector = encoder.encode_texts([colour])[0].copy()
        vector[4 + len(products) % 4] += 0.001 * len(products)
        vector /= np.linalg.norm(vector)
        products.append(Product(id, vector, title, image, metadata, str(len(products))))

    for number in range(40):
        colour = list(COLOURS)[number % 4]
        image = f"{number}.{'png' if number % 8 == 4 else 'jpg'}"
        data = encoded(COLOURS[colour], "PNG" if image.endswith("png") else "JPEG", (400, 300))
        (folder / "images" / image).write_bytes(data)
        metadata = {"颜色": f"{colour}色", "品牌": "甲乙丙"[number % 3], "价格": 10.0 * number, "新品": number < 8}
        add(str(number), f"{colour}色连衣裙 第{number}款", image, colour, **metadata)
    for number, id in enumerate(ODD_IDS):
        add(id, f"特别 {number}", "1.jpg", "", 颜色="其他")
    add("hostile", HOSTILE, "2.jpg", "", 颜色="<b>其他</b>")
    (folder / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    (folder / "images" / "text.png").write_bytes(b"no image")
    for image in (
        "../outside.jpg",
        "../outside.txt",
        str(folder / "outside.jpg"),
        "gone.jpg",
        "text.png",
        "x.tsv#../1",
    ):
        add(f"image:{image.replace(str(folder), '')}", "无图", image, "")
    description = Description("a model", encoder.fingerprint, encoder.width, str(folder / "images"), FIELDS)
    return description, products


def make_index(folder):
    """Make the shop and its index; gives the index's address."""
    from zoo.tasks.retrieval.search.engines import create_engine

    description, products = make_shop(folder)
    engine = create_engine(str(folder / "index.lance"), description)
    engine.upsert(products)
    engine.optimize()
    return str(folder / "index.lance")
