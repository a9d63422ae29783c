"""What the tests of product search use."""

from contextlib import ExitStack

import pytest
import tiny
import toy_shop

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


@pytest.fixture(scope="session")
def toy_index(tmp_path_factory):
    """The address of the toy shop's index; its images lie beside it."""
    return toy_shop.make_index(tmp_path_factory.mktemp("toy_shop"))


@pytest.fixture
def make_client(toy_index):
    """Makes clients of servers of the toy shop, whose own errors are raised in the test."""
    from starlette.testclient import TestClient

    from zoo.tasks.retrieval.search.engines import open_engine
    from zoo.tasks.retrieval.search.images import ProductImages
    from zoo.tasks.retrieval.search.server.app import create_app
    from zoo.tasks.retrieval.search.server.limits import Limits

    with ExitStack() as stack:

        def make(encoder=None, engine=None, raise_errors=True, **limits):
            engine = engine or open_engine(toy_index)
            images = ProductImages(engine.description.images)
            app = create_app(engine, encoder or toy_shop.ColourEncoder(), images, Limits(**{"rate": 1e6, **limits}))
            client = TestClient(app, base_url="http://localhost", raise_server_exceptions=raise_errors)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(make_client):
    """A client of a server of the toy shop."""
    return make_client()
