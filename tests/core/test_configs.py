import pytest

from zoo.core.configs import check_flags, read_config
from zoo.errors import FileError


@pytest.fixture
def config(tmp_path):
    """Writes a configuration and reads it."""

    def read(text, **beside):
        for name, content in beside.items():
            (tmp_path / f"{name}.yaml").write_text(content)
        (tmp_path / "config.yaml").write_text(text)
        return read_config(tmp_path / "config.yaml")

    return read


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("trainer: {max_epochs: 1}\nmodel: {}\ntrainer: {}\n", 1, 3),
        ("data:\n  init_args:\n    flip: 0.5\n    root: x\n    'flip': 0.1\n", 3, 5),
        ("trainer:\n  callbacks+:\n  - class_path: EMA\n    init_args:\n      decay: 0.9\n      decay: 0.9\n", 5, 6),
        ("model:\n  a: &x {b: 1}\n  c: {<<: *x, b: 2,\n    b: 3}\n", 3, 4),
        ("model:\n  a: &x [*x]\n  c: 1\n  c: 2\n", 3, 4),
    ],
)
def test_a_key_twice_in_one_mapping_is_refused_with_both_lines(config, text, first, second):
    with pytest.raises(FileError, match=f"twice in one mapping, first on line {first}:") as error:
        config(text)
    assert error.value.line == second
    assert error.value.file.endswith("config.yaml")


def test_a_flag_that_is_nested_without_end_is_refused():
    for value in ("[" * 5000, "[" * 99 + "]" * 99, "&x [*x]"):
        with pytest.raises(FileError) as error:
            check_flags(["--a", value])
        assert error.value.file == "--a"


def test_merge_keys_may_be_overridden_and_stand_twice(config):
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: *a, <<: *b, x: 3}\nd: {<<: [*a, *b], x: 3}\n"
    assert config(text)["c"]["x"] == config(text)["d"]["x"] == 3


def test_a_file_that_a_configuration_names_is_read_as_strictly(config, tmp_path, monkeypatch):
    nested = {"outer": "data: inner.yaml\n", "inner": "x: config.yaml\ny: 1\ny: 1\n"}
    with pytest.raises(FileError) as error:
        config("data: outer.yaml\n", **nested)
    assert error.value.file == str(tmp_path / "inner.yaml")
    assert error.value.line == 3
    monkeypatch.chdir(tmp_path)
    for words in (["--data", "outer.yaml"], ["--data=outer.yaml"]):
        with pytest.raises(FileError) as error:
            check_flags(words)
        assert (error.value.file, error.value.line) == ("inner.yaml", 3)


def test_a_key_twice_in_a_flag_names_the_flag():
    check_flags(["--trainer.devices", "[0", "--a={b: {c: 1}}"])  # what is no YAML is the parser's to say
    for words in (["--a", "1", "--b", "{c: {d: 1, d: 2}}"], ["--b={c: {d: 1, d: 2}}"]):
        with pytest.raises(FileError, match="d is given twice") as error:
            check_flags(words)
        assert error.value.file == "--b"


def aliases(depth):
    """A text of so many lines, each of which names the one before twice."""
    return "a0: &a0 1\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, depth + 1))


def test_aliases_that_stand_for_little_are_taken(config):
    assert len(config(aliases(5))["a5"]) == 2


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("trainer:\n\tmax_epochs: 1\n", 2, "'\\t'"),
        ("a: &x 1\nb: 2\nc: &x 3\n", 3, "duplicate anchor 'x', first on line 1"),
        ("# a comment\n- model\n", 2, "holds a list"),
        ("model\n", 1, "holds a str"),
        ("data: {}\ntrainer: [a]\n", 2, "trainer is a list"),
        ("data: {}\nmodel:\n  - a\n", 3, "model is a list"),
        ("data: {}\ntrainer: 3\n", 2, "trainer is '3'"),
        ("trainer:\n  callbacks:\n  - init_args: [a]\n", 3, "init_args is a list"),
        ("a: \0", None, "unacceptable character"),
        ("a: " + "[" * 5000, None, "recursion"),
        ("b: 1\na: " + "[" * 99 + "]" * 99, 2, "in more than 50 others"),
        ("a: &x [*x]\n", 1, "or an alias in what it is of"),
        ("a: &a {b: {c: *a}}\n", 1, "or an alias in what it is of"),
        (aliases(20), None, "spell out 4,194,3"),
        ("a0: &a0 1\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 99)), 49, "in more than 50 others"),
    ],
)
def test_what_is_no_mapping_is_said_with_its_line(config, text, line, said):
    with pytest.raises(FileError) as error:
        config(text)
    assert said in error.value.message
    assert "\n" not in error.value.message
    assert error.value.line == line
