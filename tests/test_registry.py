import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zoo.errors import UserError
from zoo.registry import IMAGE_TOKENIZERS, IMAGE_TOWERS, TEXT_TOWERS, Registry, create, find_registries, list_models

ONE_FILE = """
from zoo_test_rooms_registry import ROOMS

@ROOMS.register
def {name}(*, size: int = 3) -> tuple:
    \"\"\"Build a {name}.

    Args:
        size: Of it.
    \"\"\"
    return ("{name}", size)
"""


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    """A registry over a package of its own, with one builder file."""
    package = tmp_path / "zoo_test_rooms"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "kitchen.py").write_text(ONE_FILE.format(name="kitchen"))
    (tmp_path / "zoo_test_rooms_registry.py").write_text(
        "from zoo.registry import Registry\nROOMS = Registry('room', 'zoo_test_rooms')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from zoo_test_rooms_registry import ROOMS

    yield ROOMS, package
    for name in [name for name in sys.modules if name.startswith("zoo_test_rooms")]:
        del sys.modules[name]


def test_a_new_file_is_found_without_editing_a_list(rooms):
    registry, package = rooms
    (package / "attic.py").write_text(ONE_FILE.format(name="attic"))
    assert registry.names() == ["attic", "kitchen"]
    assert registry.build("attic", size=5) == ("attic", 5)
    assert registry.describe("attic") == "Build a attic."
    assert registry.options("attic") == {"size": 3}


def test_a_file_that_cannot_be_imported_is_reported_at_every_look_up(rooms):
    registry, package = rooms
    (package / "attic.py").write_text("import nothing_of_this_name")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
            registry.names()


def test_duplicates_raise():
    registry = Registry("room", "json")

    @registry.register
    def attic() -> int:
        return 1

    with pytest.raises(UserError, match=r"'attic' .* already registered by"):
        registry.register(attic)


def test_a_notebook_cell_can_be_run_again():
    registry = Registry("room", "json")

    def attic() -> int:
        return 1

    attic.__module__ = "__main__"
    registry.register(attic)
    registry.register(attic)
    assert registry.build("attic") == 1


def test_unknown_name_names_the_nearest():
    with pytest.raises(UserError, match=r"no image tower 'resnet5O'.* Did you mean resnet50.*timm:NAME"):
        IMAGE_TOWERS.build("resnet5O")
    with pytest.raises(UserError, match=r"no text tower 'rbt4'.* Did you mean rbt3"):
        TEXT_TOWERS.build("rbt4")


def test_unknown_option_names_the_nearest():
    with pytest.raises(UserError, match=r"'resnet10t' has no option 'imagesize'. Did you mean image_size"):
        IMAGE_TOWERS.build("resnet10t", imagesize=64)
    with pytest.raises(UserError, match=r"'timm:resnet18' has no option 'name'.* image_size, patch_dropout"):
        IMAGE_TOWERS.build("timm:resnet18", name="resnet50")


def test_a_builder_without_options_says_so():
    registry = Registry("room", "json")

    @registry.register
    def attic() -> int:
        return 1

    with pytest.raises(UserError, match=r"has no option 'size'\. It has no options\.$"):
        registry.build("attic", size=3)


def test_missing_option_is_named():
    registry = Registry("room", "json")

    @registry.register
    def attic(*, size: int) -> int:
        return size

    with pytest.raises(UserError, match="room 'attic' needs the option 'size'"):
        registry.build("attic")


def test_a_prefix_builds_its_family():
    registry = Registry("room", "json")

    @registry.register_prefix("hotel:", names=lambda: ["double", "single"])
    def hotel_room(name: str, *, floor: int = 1) -> tuple[str, int]:
        return name, floor

    assert registry.build("hotel:double", floor=3) == ("double", 3)
    assert registry.names() == []
    assert registry.prefixes == ["hotel:"]
    assert registry.names("hotel:*ing*") == ["hotel:single"]
    with pytest.raises(UserError, match="hotel:NAME"):
        registry.build("hotel:")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("resnet", ["resnet10t", "resnet50", "resnet50_clip"]),
        ("resnet5*", ["resnet50", "resnet50_clip"]),
        ("vit_?mall*", ["vit_small_patch16_224"]),
        ("timm:resnet10t", ["timm:resnet10t"]),
        ("nothing", []),
    ],
)
def test_patterns(pattern, names):
    assert IMAGE_TOWERS.names(pattern) == names


def test_importing_it_is_cheap():
    code = "import sys, zoo.registry; print(sorted({'torch', 'timm', 'transformers'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_codes": 2.5}, "num_codes is 2.5: give a whole number"),
        ({"num_codes": "abc"}, "num_codes is 'abc': give a whole number"),
        ({"num_codes": True}, "num_codes is True: give a whole number"),
        ({"multipliers": 2}, r"multipliers is 2: give whole numbers, as \[1, 2\]"),
    ],
)
def test_a_value_of_another_kind_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        IMAGE_TOKENIZERS.build("vqgan_tiny", **options)


def test_variants_are_one_builder_under_several_names():
    registry = Registry("room", "json")

    def house(rooms: int, /, *, floors: int = 1, colour: str = "red") -> tuple:
        """Build a house.

        Args:
            floors: Above each other.
            colour: Of its walls.
        """
        return (rooms, floors, colour)

    registry.register_variant("cottage", "Build a cottage.", house, 2)
    registry.register_variant("tower", "Build a tower.", house, 3, floors=9)
    assert registry.names() == ["cottage", "tower"]
    assert registry.options("tower") == {"floors": 9, "colour": "red"}
    assert registry.describe("cottage") == "Build a cottage."
    described = ["Build a tower.", "", "Args:", "    floors: Above each other.", "    colour: Of its walls."]
    assert registry.builder("tower").__doc__.splitlines() == described
    assert registry.build("cottage") == (2, 1, "red")
    assert registry.build("tower", colour="grey") == (3, 9, "grey")
    assert registry.build("tower", floors=4) == (3, 4, "red")
    with pytest.raises(UserError, match="room 'tower' has no option 'rooms'"):
        registry.build("tower", rooms=4)
    with pytest.raises(UserError, match="floors is 'x': give a whole number"):
        registry.build("tower", floors="x")
    with pytest.raises(UserError, match="already registered"):
        registry.register_variant("tower", "Build another.", house, 1)


@pytest.fixture
def houses():
    """A registry of a house and a family of hotels."""
    registry = Registry("room", "json")

    @registry.register
    def house(*, floors: int = 1, share: float = 0.5, open: bool = False, name: str = "", doors: tuple[int, ...] = ()):
        return (floors, share, open, name, doors)

    @registry.register_prefix("hotel:", names=lambda: ["single", "double"])
    def hotel(name: str, *, floors: int = 1):
        """Build a room of a hotel.

        Args:
            floors: Above each other.
        """
        return (name, floors)

    @registry.register_prefix("tent:")
    def tent(name: str):
        return name

    return registry


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"floors": 2}, True),
        ({"floors": 2.0}, False),
        ({"floors": True}, False),
        ({"share": 1}, True),
        ({"share": 0.1}, True),
        ({"share": True}, False),
        ({"share": "1"}, False),
        ({"open": True}, True),
        ({"open": 1}, False),
        ({"name": "x"}, True),
        ({"name": 1}, False),
        ({"doors": [1, 2]}, True),
        ({"doors": (1, 2)}, True),
        ({"doors": [1, True]}, False),
        ({"doors": 1}, False),
    ],
)
def test_which_kinds_of_values_an_option_takes(houses, options, taken):
    if taken:
        ((name, value),) = options.items()
        assert value in houses.build("house", **options)
        return
    with pytest.raises(UserError, match=f"room 'house': {next(iter(options))} is "):
        houses.build("house", **options)


def test_a_family_is_named_by_its_prefix_alone(houses):
    assert houses.prefixes == ["hotel:", "tent:"]
    assert houses.names() == ["house"]
    assert houses.names("ou") == houses.names("h*") == ["house"]
    assert houses.names("OU") == []
    assert houses.names("hotel:") == ["hotel:single", "hotel:double"]
    assert houses.names("hotel:d") == ["hotel:double"]
    assert houses.names("tent:") == []
    assert houses.build("tent:~/x") == str(Path.home() / "x")  # a family's name may be a path
    assert houses.describe("hotel:single") == "Build a room of a hotel."
    assert houses.describe("house") == ""
    assert houses.options("hotel:single") == {"floors": 1}
    with pytest.raises(UserError, match="no room 'hotel:'.* Valid are house, or hotel:NAME, or tent:NAME"):
        houses.build("hotel:")
    with pytest.raises(UserError, match="Valid are none yet"):
        Registry("room", "json").build("house")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("X", ["atticX"]),
        ("attic?", ["atticX"]),
        ("attic", ["attic", "atticX"]),
        ("att[a-z]c", ["attic"]),
        ("*X", ["atticX"]),
    ],
)
def test_a_pattern_is_a_part_of_a_name_unless_it_has_a_wildcard(pattern, names):
    registry = Registry("room", "json")
    for name in ("atticX", "attic", "barn"):
        registry.register(SimpleNamespace(__name__=name, __module__="x"))
    assert registry.names(pattern) == names


def test_a_prefix_is_taken_once(houses):
    with pytest.raises(UserError, match="'hotel:' .* already registered"):
        houses.register_prefix("hotel:")(lambda name: name)
    houses.register_prefix("hotels:")(lambda name: name)


def test_a_name_of_a_notebook_does_not_take_a_files(houses):
    def house():
        return 1

    house.__module__ = "__main__"
    with pytest.raises(UserError, match="'house' of __main__ is already registered by"):
        houses.register(house)


def test_a_built_module_is_taken_as_it_is(houses):
    built = object()
    assert houses.build_or_take("room", built, None) is houses.build_or_take("room", built, {}) is built
    with pytest.raises(UserError, match="room is a built module: room_options"):
        houses.build_or_take("room", built, {"floors": 2})
    assert houses.build_or_take("room", "hotel:single", {"floors": 2}) == ("single", 2)
    assert houses.build_or_take("room", "hotel:single", None) == ("single", 1)
    with pytest.raises(UserError, match=r"has no option 'doors'.*\. To drop .*: --model\.room_options null$"):
        houses.build_or_take("room", "hotel:single", {"doors": 2})
    with pytest.raises(UserError) as caught:
        houses.build_or_take("room", "castle", None)
    with pytest.raises(UserError) as plainly:
        houses.build("castle")
    assert str(caught.value) == str(plainly.value)


def test_a_variant_tells_what_its_builder_tells():
    registry = Registry("room", "json")

    def bare(*, floors: int):
        return floors

    registry.register_variant("shed", "Build a shed.", bare, floors=2)
    builder = registry.builder("shed")
    assert (builder.__name__, builder.__module__, builder.__doc__) == ("shed", __name__, "Build a shed.")
    assert registry.build("shed") == 2


def test_everything_has_a_registry():
    kinds = {registry.kind for registry in find_registries()}
    assert {"image tower", "text tower", "image tokenizer", "generator", "captioner"} <= kinds
    assert "resnet50" in list_models("resnet")
    assert {"bert_tiny_chinese", "softmax", "vqgan_tiny"} <= set(list_models())
    assert list_models("timm:resnet10t") == ["timm:resnet10t"]


def test_a_model_is_created_by_its_name(monkeypatch, houses):
    towers = Registry("tower", "json")
    towers.register(lone := SimpleNamespace(__name__="lone", __module__="x"))
    monkeypatch.setattr("zoo.registry.find_registries", lambda: [towers, houses])
    assert create("house", floors=3)[0] == 3
    assert create("hotel:single", floors=3) == ("single", 3)
    assert towers.builder("lone") is lone
    with pytest.raises(UserError, match=r"no model 'hous'\. Did you mean house\? Valid are lone, house"):
        create("hous")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"colours": 5}, "colours is 5: give a mapping, `name: value` or null"),
        ({"colours": [1]}, "colours is [1]: give a mapping, `name: value` or null"),
        ({"size": "x"}, "size is 'x': give a whole number or null"),
        ({"size": [32]}, "size is [32]: give a whole number or null"),
        ({5: 5}, "has no option '5'"),
    ],
)
def test_options_that_may_be_null_are_of_their_kinds_too(options, said):
    registry = Registry("room", "json")

    @registry.register
    def shed(*, colours: dict[str, Any] | None = None, size: int | None = None):
        return colours, size

    assert registry.build("shed", colours={"door": 1}, size=3) == ({"door": 1}, 3)
    assert registry.build("shed", colours=None, size=None) == (None, None)
    with pytest.raises(UserError, match=re.escape(said)):
        registry.build_or_take("shed", "shed", options)
