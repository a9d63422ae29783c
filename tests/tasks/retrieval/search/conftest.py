"""A server of a small shop."""

import pytest
import toy_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """The address of the small shop's index; its images lie beside it."""
    return toy_shop.make_index(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def make_client(shop):
    """Makes clients of servers of the shop, whose errors are raised in the test."""
    from contextlib import ExitStack

    from starlette.testclient import TestClient

    from zoo.tasks.retrieval.search.engines import open_engine
    from zoo.tasks.retrieval.search.images import ProductImages
    from zoo.tasks.retrieval.search.server.app import create_app
    from zoo.tasks.retrieval.search.server.limits import Limits

    with ExitStack() as stack:

        def make(encoder=None, engine=None, **limits):
            engine = engine or open_engine(shop)
            images = ProductImages(engine.description.images)
            limits = Limits(**{"rate": 1e6, **limits})
            app = create_app(engine, encoder or toy_shop.ColourEncoder(), images, limits)
            return stack.enter_context(TestClient(app, base_url="http://localhost"))

        yield make


@pytest.fixture
def client(make_client):
    return make_client()
