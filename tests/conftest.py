"""What several test files use."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def zoo_cache(tmp_path_factory):
    """Zoo's cache for the whole session, also of the processes that tests start: the user's own is left alone."""
    folder = tmp_path_factory.mktemp("zoo-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def demo_root(zoo_cache):
    """The embedded data, made once a session (about ten seconds); not to be written to."""
    from zoo.data.demo import demo_root as make

    return make()
