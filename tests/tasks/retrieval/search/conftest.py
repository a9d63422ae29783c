"""What the tests of product search use."""

import pytest
import tiny

from zoo.io import write_json_lines


@pytest.fixture(scope="session")
def matcher(tmp_path_factory):
    """A retrieval checkpoint with random weights."""
    return str(tiny.write_matcher(tmp_path_factory.mktemp("matcher") / "matcher.ckpt"))


@pytest.fixture
def shop(tmp_path):
    """A folder of twelve products' images and a table of them; the first has no title."""
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    products = []
    for place, (colour, shape) in enumerate((c, s) for c in list(tiny.COLOURS)[:3] for s in tiny.SHAPES):
        name = f"images/{place:02}.{'jpg' if place % 2 else 'png'}"
        (folder / name).write_bytes(tiny.draw(place, colour, shape))
        title = f"{colour}{shape}" if place else ""
        own = {"price": 10.0 * place, "sold": place % 3 == 0, "attributes": {"颜色": colour}}
        products.append({"id": f"p{place:02}", "image": name, "title": title, **own})
    write_json_lines(folder / "products.jsonl", products)
    return folder
