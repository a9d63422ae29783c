import hashlib
import json
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import numpy as np
import pytest

from zoo.data.catalogue import demo
from zoo.data.catalogue import files as demo_files
from zoo.data.catalogue.emoji import SPLITS, EmojiImage, base_emoji, chinese_name, list_images, split_images
from zoo.data.formats import read_queries
from zoo.data.images import decode
from zoo.data.layouts import MULTIMODAL_RETRIEVAL, find_task_folder
from zoo.data.tsv import ImageTsv
from zoo.errors import UserError


def labelled_queries(root, split):
    files = MULTIMODAL_RETRIEVAL.files(find_task_folder(root, MULTIMODAL_RETRIEVAL), split)
    return read_queries(files.answers or files.texts)


def read_json_lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def pixel_hash(data):
    return hashlib.sha256(decode(data).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def drawings(demo_root):
    """Split → md5 id → hash of the decoded PNG."""
    folder = demo_root / "ECommerce-T2I"
    files = {
        split: ImageTsv(folder / f"T2I_{name}.img.tsv", str)
        for split, name in zip(SPLITS, ("train", "val", "test"), strict=True)
    }
    return {
        split: {key: pixel_hash(file[row]) for row, key in enumerate(file.ids.tolist())}
        for split, file in files.items()
    }


# What is frozen


def test_the_wheels_are_the_frozen_ones():
    assert demo.frozen()["wheels"] == demo_files.WHEELS
    for name, number in demo_files.WHEELS.items():
        assert version(name) == number


def test_text_files_are_the_frozen_ones(demo_root):
    for name, digest in demo.frozen()["files_sha256"].items():
        assert hashlib.sha256((demo_root / name).read_bytes()).hexdigest() == digest, name
    assert set(demo.frozen()["files_sha256"]) == {
        path.relative_to(demo_root).as_posix()
        for path in demo_root.glob("*/*")
        if not path.name.endswith("imgs.tsv")
        and not path.name.endswith("img.tsv")
        and path.name[:3] + path.suffix != "IC_.tsv"
    }


@pytest.mark.parametrize("split", SPLITS)
def test_counts_are_the_frozen_ones(demo_root, split):
    expected = demo.frozen()["splits"][split]
    queries = labelled_queries(demo_root, split)
    files = MULTIMODAL_RETRIEVAL.files(find_task_folder(demo_root, MULTIMODAL_RETRIEVAL), split)
    assert Counter(query.kind for query in queries) == expected["queries"]
    assert sum(len(query.item_ids) for query in queries) == expected["pairs"]
    assert len(queries) == expected["names"]
    assert len(ImageTsv(files.images)) == expected["pictures"]
    assert len(ImageTsv(demo_root / "ECommerce-IC" / f"IC_{split}.tsv", str)) == expected["pictures"]


@pytest.mark.parametrize("split", SPLITS)
def test_decoded_pixels_are_the_frozen_ones(drawings, split):
    looks = list(drawings[split].values())
    expected = demo.frozen()["splits"][split]
    assert hashlib.sha256("".join(looks).encode()).hexdigest() == expected["t2i_pixels_sha256"]
    assert hashlib.sha256("".join(dict.fromkeys(looks)).encode()).hexdigest() == expected["pixels_sha256"]


def test_every_named_emoji_that_openmoji_draws_is_there(drawings):
    looks = [look for split in drawings.values() for look in split.values()]
    assert len(looks) == 3944
    assert len(set(looks)) == 3700


# What the files hold


def test_jpegs_show_the_same_images_as_pngs(demo_root):
    jpegs = ImageTsv(demo_root / "ECommerce-IC" / "IC_valid.tsv", str)
    pngs = ImageTsv(demo_root / "ECommerce-T2I" / "T2I_val.img.tsv", str)
    gallery = ImageTsv(demo_root / "Multimodal_Retrieval" / "MR_valid_imgs.tsv")
    for row in range(0, len(jpegs), 10):
        png, jpeg = decode(pngs[pngs.row_of(jpegs.ids[row].item())]), decode(jpegs[row])
        assert pngs[0][:4] == b"\x89PNG"
        assert jpegs[row][:2] == b"\xff\xd8"
        assert png.shape == jpeg.shape == (128, 128, 3)
        assert np.abs(png.astype(int) - jpeg).mean() < 3
        assert gallery[row] == jpegs[row]


def test_images_are_over_white(drawings, demo_root):
    pngs = ImageTsv(demo_root / "ECommerce-T2I" / "T2I_test.img.tsv", str)
    corners = np.stack([decode(pngs[row])[[0, 0, -1, -1], [0, -1, 0, -1]] for row in range(len(pngs))])
    assert (corners == 255).mean() > 0.99


def test_no_text_and_no_image_is_in_two_splits_or_two_queries(demo_root, drawings):
    texts = [query.text for split in SPLITS for query in labelled_queries(demo_root, split)]
    assert len(texts) == len(set(texts))
    looks = [set(split.values()) for split in drawings.values()]
    assert sum(map(len, looks)) == len(set().union(*looks))
    files = [MULTIMODAL_RETRIEVAL.files(demo_root / "Multimodal_Retrieval", split) for split in SPLITS]
    ids = np.concatenate([ImageTsv(file.images).ids for file in files])
    assert len(ids) == len(np.unique(ids))
    descriptions = [
        line.split("\t")[1]
        for name in ("train", "val", "test")
        for line in (demo_root / "ECommerce-T2I" / f"T2I_{name}.txt.tsv").read_text("utf-8").splitlines()
    ]
    assert sorted(descriptions) == sorted(texts)


@pytest.mark.parametrize("split", SPLITS)
def test_every_image_has_a_query_and_every_query_its_images(demo_root, split):
    gallery = ImageTsv(MULTIMODAL_RETRIEVAL.files(demo_root / "Multimodal_Retrieval", split).images)
    queries = labelled_queries(demo_root, split)
    used = {item for query in queries for item in query.item_ids}
    assert used == set(gallery.ids.tolist())
    assert all(len(query.item_ids) == 1 for query in queries if query.kind == "name")
    assert all(len(set(query.item_ids)) == len(query.item_ids) >= 2 for query in queries if query.kind == "base")


def test_a_base_query_is_true_for_all_variants(demo_root):
    queries = {query.text: query for query in labelled_queries(demo_root, "train")}
    base = queries["科学家"]
    variants = [text for text in queries if "科学家" in text]
    assert len(variants) == 18
    assert base.kind == "base"
    assert set(base.item_ids) == {item for text in variants for item in queries[text].item_ids}


def test_images_that_look_the_same_are_one_image_with_several_names(demo_root):
    queries = {query.text: query for query in labelled_queries(demo_root, "train")}
    assert queries["挪威"].item_ids == queries["斯瓦尔巴和扬马延"].item_ids
    assert queries["挪威"].kind == "name"


def test_test_files_carry_no_answers_and_the_answers_lie_beside(demo_root):
    files = MULTIMODAL_RETRIEVAL.files(demo_root / "Multimodal_Retrieval", "test")
    questions, answers = read_queries(files.texts), read_queries(files.answers)
    assert all(query.item_ids == () for query in questions)
    assert [(q.query_id, q.text, q.kind) for q in questions] == [(q.query_id, q.text, q.kind) for q in answers]
    captions = read_json_lines(demo_root / "ECommerce-IC" / "IC_test.jsonl")
    references = read_json_lines(demo_root / "ECommerce-IC" / "IC_test_answers.jsonl")
    assert all(list(caption) == ["image_id"] for caption in captions)
    assert [caption["image_id"] for caption in captions] == [reference["image_id"] for reference in references]


@pytest.mark.parametrize(("split", "answers"), [("train", "train"), ("valid", "valid"), ("test", "test_answers")])
def test_captions_are_all_names_and_the_base_name(demo_root, split, answers):
    references = read_json_lines(demo_root / "ECommerce-IC" / f"IC_{answers}.jsonl")
    ids = ImageTsv(demo_root / "ECommerce-IC" / f"IC_{split}.tsv", str).ids.tolist()
    assert [reference["image_id"] for reference in references] == ids
    names, truths = defaultdict(list), defaultdict(set)
    for query in labelled_queries(demo_root, split):
        for item in query.item_ids:
            truths[item].add(query.text)
            if query.kind == "name":
                names[item].append(query.text)
    for reference, item in zip(references, sorted(truths), strict=True):  # both files are in the order of the ids
        assert len(set(reference["text"])) == len(reference["text"]) >= 1
        assert set(names[item]) <= set(reference["text"])
        assert set(reference["text"]) <= truths[item] | {"家庭"}


def test_the_licence_lies_beside(demo_root):
    assert "OpenMoji" in (text := (demo_root / "ATTRIBUTION.txt").read_text())
    assert "CC BY-SA 4.0" in text


# Which emoji go together


@pytest.mark.parametrize(
    ("emoji", "base"),
    [
        ("😀", "😀"),
        ("👍🏿", "👍"),
        ("☝🏽", "☝"),
        ("☝️", "☝"),
        ("🕵️‍♀️", "🕵"),
        ("🏃🏽‍♀️‍➡️", "🏃"),
        ("👩🏿‍🦽‍➡️", "🧑‍🦽"),
        ("👩‍🚀", "🧑‍🚀"),
        ("👨🏻‍⚕️", "🧑‍⚕"),
        ("👩🏽‍🦰", "🧑"),
        ("👱🏻‍♂️", "👱"),
        ("👨‍❤️‍👨", "💑"),
        ("🧑🏻‍❤️‍🧑🏿", "💑"),
        ("👩🏽‍❤️‍💋‍👨🏿", "💏"),
        ("👬🏻", "🧑‍🤝‍🧑"),
        ("👩🏻‍🤝‍👨🏿", "🧑‍🤝‍🧑"),
        ("🫱🏻‍🫲🏿", "🤝"),
        ("👩🏻‍🐰‍👩🏿", "👯"),
        ("👨‍👩‍👧‍👦", "👪"),
        ("🧑‍🧒", "👪"),
        ("👧🏽", "🧒"),
        ("🎅🏽", "🧑‍🎄"),
        ("🤴🏽", "🫅"),
        ("🏴‍☠️", "🏴‍☠"),
        ("❤️‍🔥", "❤‍🔥"),
        ("🙂‍↔️", "🙂‍↔"),
        ("♀️", "♀"),
        ("➡️", "➡"),
        ("🐻‍❄️", "🐻‍❄"),
        ("🇨🇳", "🇨🇳"),
        ("1️⃣", "1⃣"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"),
    ],
)
def test_base_emoji(emoji, base):
    assert base_emoji(emoji) == base
    assert base_emoji(base) == base


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (":宇航员:", "宇航员"),
        (":宇航员_较浅肤色:", "宇航员：较浅肤色"),
        (":刚果_布:", "刚果（布）"),
        (":按键_#:", "按键：#"),
    ],
)
def test_chinese_names(written, name):
    assert chinese_name(written) == name


def test_bases_that_look_the_same_are_split_together():
    names = {chr(0x1F400 + n): f"名{n}" for n in range(60)}
    pictures = list_images(names)
    looks = {emoji: str(n // 2) for n, emoji in enumerate(names)}
    splits = split_images(pictures, looks)
    seen = [{looks[image.emoji] for image in split} for split in splits.values()]
    assert sum(map(len, seen)) == 30
    assert [len(split) for split in splits.values()] == [48, 6, 6]


def test_a_base_too_large_for_a_held_out_split_trains():
    large = [EmojiImage(f"x{n}", f"大{n}", "x", "大0") for n in range(40)]
    small = [EmojiImage(f"y{n}", f"小{n}", f"y{n}", f"小{n}") for n in range(360)]
    splits = split_images(large + small, {image.emoji: image.emoji for image in large + small})
    assert set(large) <= set(splits["train"])
    assert [len(split) for split in splits.values()] == [320, 40, 40]


# Making it


@pytest.fixture
def tiny(monkeypatch):
    """Instead of the images: one small file a folder. Counts how often it is made."""
    made = []

    def write_files(root):
        made.append(root)
        for name in ("Multimodal_Retrieval", "ECommerce-T2I", "ECommerce-IC"):
            (root / name).mkdir(parents=True)
            (root / name / "x.tsv").write_text("x")
        return demo.frozen()

    monkeypatch.setattr(demo, "write_files", write_files)
    return made


def test_it_is_made_once(tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        roots = set(pool.map(lambda _: demo.demo_root(), range(8)))
    assert len(roots) == len(tiny) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["demo.lock", roots.pop().name])


@pytest.mark.parametrize("name", ["demo.json", "ATTRIBUTION.txt", "ECommerce-IC/x.tsv"])
def test_an_incomplete_copy_in_the_cache_is_made_again(tmp_path, monkeypatch, tiny, name):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    file = demo.demo_root() / name
    file.write_text(file.read_text()[:-1])
    assert demo.demo_root() / name == file
    assert len(tiny) == 2
    demo.demo_root()
    assert len(tiny) == 2


def test_nothing_is_left_when_making_fails(tmp_path, monkeypatch):
    def fail(root):
        root.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "write_files", fail)
    with pytest.raises(KeyboardInterrupt):
        demo.write_demo(tmp_path / "demo")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_left_alone(tmp_path, tiny):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds other files"):
        demo.write_demo(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        demo.write_demo(tmp_path / "thesis.txt")
    assert not tiny


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path, monkeypatch, tiny):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Set the environment variable ZOO_CACHE"):
        demo.demo_root()


def test_another_wheel_is_refused_with_the_version_to_install(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(demo, "version", lambda name: "99.0" if name == "emoji" else version(name))
    with pytest.raises(UserError, match=r"emoji 99\.0 would change it.*pip install emoji==2\.16\.0"):
        demo.write_demo(tmp_path / "demo")


def test_other_texts_are_refused_and_other_pixels_are_told(tmp_path, monkeypatch, tiny, capsys):
    summary = demo.frozen()
    made = demo.write_files
    monkeypatch.setattr(demo, "write_files", lambda root: made(root) and summary)
    summary["splits"]["train"]["pixels_sha256"] = "other"
    demo.write_demo(tmp_path / "demo")
    assert "differ from the frozen ones" in capsys.readouterr().err
    summary["splits"]["train"]["names"] += 1
    with pytest.raises(UserError, match="other than frozen"):
        demo.write_demo(tmp_path / "again")
