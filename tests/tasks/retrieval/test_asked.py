"""What queries ask for, where the data say what images show; and that recall tells what a model does not see."""

from dataclasses import replace

import pytest
import torch

from zoo.data.attributes import write_attributes, write_vocabulary
from zoo.data.catalogue import texts
from zoo.data.catalogue.products import draw_products
from zoo.data.catalogue.queries import make_queries
from zoo.errors import FileError
from zoo.tasks.retrieval.asked import labels_of
from zoo.tasks.retrieval.contracts import RetrievalTargets
from zoo.tasks.retrieval.metrics import RetrievalRecall

WORDS = {
    "类别": {"连衣裙": ["连衣裙", "裙装"], "口红": ["口红"]},
    "颜色": {"红色": ["红色", "大红"], "酒红色": ["酒红色"], "白色": ["白色"]},
    "袖长": {"长袖": ["长袖"], "短袖": ["短袖"]},
    "领型": {"圆领": ["圆领"]},
}
SHOWN = {
    1: {"类别": "连衣裙", "颜色": "红色", "袖长": "长袖", "领型": "圆领"},
    2: {"类别": "连衣裙", "颜色": "白色", "袖长": "短袖"},
    3: {"类别": "口红", "颜色": "红色"},
    4: {"类别": "口红", "颜色": "白色"},
    5: {"类别": "口红", "颜色": "红色"},
}
QUERIES = {
    "大红长袖裙装": (1,),
    "红色口红": (3, 5),
    "白色连衣裙": (1, 2),  # one of them is red
    "圆领长袖连衣裙": (1,),
    "酒红色口红": (5, 3),  # they are of another red
}
KINDS = [None, None, None, "new", None]


def targets_of(queries, images, kinds):
    answers = list(queries.values())
    ids = list(range(len(answers)))
    return RetrievalTargets("valid", "", ids, list(queries), list(images), answers, kinds)


def write(folder, shown, words):
    write_attributes(folder, "valid", shown.items())
    write_vocabulary(folder, words, [])


def labels(folder, targets):
    return [set(own) for own in labels_of(folder, targets)]


def test_a_query_asks_for_what_it_names_and_all_its_images_show(tmp_path):
    write(tmp_path, SHOWN, WORDS)
    found = labels(tmp_path, targets_of(QUERIES, SHOWN, KINDS))
    assert found == [{"颜色", "details"}, {"颜色"}, set(), {"new", "details"}, set()]  # 类别: all queries name one


def test_what_not_all_queries_ask_for_is_a_label(tmp_path):
    """A query without an image in the gallery asks for nothing."""
    write(tmp_path, SHOWN, WORDS)
    found = labels(tmp_path, targets_of({**QUERIES, "红色裙装": (), "大红口红": (99,)}, SHOWN, [*KINDS, None, None]))
    assert ["类别" in own for own in found] == [True] * 5 + [False] * 2
    assert found[5:] == [set(), set()]


def test_a_label_of_the_files_keeps_their_sense(tmp_path):
    write(tmp_path, SHOWN, WORDS)
    found = labels(tmp_path, targets_of(QUERIES, SHOWN, [None, None, "颜色", None, None]))
    assert found == [{"details"}, set(), {"颜色"}, {"details"}, set()]


def test_without_attributes_or_answers_the_files_labels_are_all(tmp_path):
    targets = targets_of(QUERIES, SHOWN, KINDS)
    assert labels_of(tmp_path, targets) is KINDS
    write_attributes(tmp_path, "valid", [])
    assert labels_of(tmp_path, replace(targets, positives=None)) is KINDS


def test_an_image_of_which_nothing_is_said_and_a_vocabulary_that_is_not_there_are_errors(tmp_path):
    write_attributes(tmp_path, "valid", SHOWN.items())
    with pytest.raises(FileError) as caught:
        labels_of(tmp_path, targets_of(QUERIES, SHOWN, KINDS))
    assert caught.value.file == str(tmp_path / "attributes.json")
    with pytest.raises(FileError) as caught:
        labels_of(tmp_path, targets_of(QUERIES, [*SHOWN, 6], KINDS))
    assert caught.value.file == str(tmp_path / "attributes_valid.jsonl")


# --- the catalogue, by models that see all but one kind of attribute ---------------------------------------------


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """600 products and 300 queries, as files of attributes and targets; nothing is drawn."""
    folder = tmp_path_factory.mktemp("catalogue")
    products = draw_products("valid", 600, first_id=0)
    shown = {product.id: product.attributes for product in products}
    write(folder, shown, texts.words())
    queries = make_queries(products, 300, 0, "valid", set())
    asked = {query.text: query.item_ids for query in queries}
    return folder, targets_of(asked, shown, [query.kind for query in queries]), shown


def recall(targets, shown, groups, unseen):
    """Recall of a model whose embeddings count the attributes that an image shows and a text names, but some kinds."""
    words = texts.words()
    axes = {pair: axis for axis, pair in enumerate((kind, value) for kind in words for value in words[kind])}
    images = torch.zeros(len(targets.image_ids), len(axes))
    for row, image in enumerate(targets.image_ids):
        for kind, value in shown[image].items():
            images[row, axes[kind, value]] = kind not in unseen
    queries = torch.zeros(len(targets.query_ids), len(axes))
    for row, (text, (image, *_)) in enumerate(zip(targets.texts, targets.positives, strict=True)):
        for kind, value in shown[image].items():
            queries[row, axes[kind, value]] = any(word in text for word in words[kind][value])
    metric = RetrievalRecall(
        query_ids=targets.query_ids, image_ids=targets.image_ids, positives=targets.positives, groups=groups
    )
    metric.update(torch.tensor(targets.query_ids), queries, side="query")
    metric.update(torch.tensor(targets.image_ids), images, side="image")
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize("label", ["颜色", "图案", "details"])
def test_what_a_model_does_not_see_lowers_the_recall_of_the_queries_that_ask_for_it(catalogue, label):
    folder, targets, shown = catalogue
    groups = [[*own, *(() if label in own else ["others"])] for own in labels_of(folder, targets)]
    assert {each for own in groups for each in own} == {"new", "seen", "颜色", "图案", "details", "others"}
    assert set(recall(targets, shown, groups, unseen=()).values()) == {100}
    unseen = {label} if label != "details" else texts.words().keys() - {"类别", "颜色", "图案"}
    blind = recall(targets, shown, groups, unseen)
    assert blind["recall@1/others"] == 100
    assert blind[f"recall@1/{label}"] < 75
    assert blind[f"recall@1/{label}"] == min(value for name, value in blind.items() if "recall@1/" in name)
