import pytest

from zoo.tasks.captioning.captioners.vocabulary import BertVocabulary


@pytest.fixture(scope="module")
def vocabulary():
    return BertVocabulary()


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("2021夏季新款T恤", "2021夏季新款t恤"),
        ("苹果 iphone 12 pro max 手机壳", "苹果iphone 12 pro max手机壳"),
        ("100%纯棉，透气！", "100%纯棉，透气！"),
        ("宇航员：较浅肤色", "宇航员：较浅肤色"),
        ("刚果（布）", "刚果（布）"),
        ("", ""),
        ("𠀀裙", "[UNK]裙"),
    ],
)
def test_text_comes_back(vocabulary, text, spelled):
    ids, _ = vocabulary.encode([text], context_length=52)
    assert vocabulary.decode(ids[0, 1:].tolist()) == spelled


def test_what_follows_the_end_is_not_read(vocabulary):
    ids, _ = vocabulary.encode(["红裙", "白色的长裙"], context_length=52)
    assert vocabulary.decode([*ids[0, 1:].tolist(), 3000]) == "红裙"


def test_names_of_the_embedded_data_come_back(vocabulary, demo_root):
    from zoo.data.formats import read_captions

    names = [text for caption in read_captions(demo_root / "ECommerce-IC/IC_train.jsonl") for text in caption.texts]
    ids, _ = vocabulary.encode(names, context_length=64)
    spelled = [vocabulary.decode(row[1:]) for row in ids.tolist()]
    same = [ours.replace(" ", "") == name.lower().replace(" ", "") for ours, name in zip(spelled, names, strict=True)]
    assert sum(same) / len(same) > 0.98
