import hashlib
import pickle
import random
import unicodedata

import pytest
import torch

from zoo.models.tokenizer import CLASSIFY, PAD, SEPARATE, UNKNOWN, VOCABULARY, BertChineseTokenizer

GOLDEN = {
    "北京欢迎您！": [101, 1266, 776, 3614, 6816, 2644, 8013, 102],
    "iPhone13手机壳": [101, 8210, 8679, 2797, 3322, 1900, 102],
    "Café ÀÉ": [101, 8377, 11978, 102],
    "𠮷野家 😀": [101, 100, 7029, 2157, 100, 102],
    "": [101, 102],
}


@pytest.fixture(scope="module")
def tokenizer():
    return BertChineseTokenizer()


def test_the_vocabulary_is_that_of_bert_base_chinese(tokenizer):
    assert len(tokenizer) == 21128
    words = VOCABULARY.read_text(encoding="utf-8").split("\n")
    assert [words[index] for index in (PAD, UNKNOWN, CLASSIFY, SEPARATE)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    digest = hashlib.sha256(VOCABULARY.read_bytes()).hexdigest()
    assert digest == "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c"


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_ids(tokenizer, text):
    assert tokenizer.encode(text) == GOLDEN[text]


def test_curly_quotes_are_straight_ones(tokenizer):
    assert tokenizer.encode("“显瘦”") == tokenizer.encode('"显瘦"')
    assert UNKNOWN not in tokenizer.encode("“显瘦”")


def test_a_spelled_special_token_is_plain_text(tokenizer):
    assert tokenizer.encode("[SEP]") == [CLASSIFY, 138, 9463, 140, SEPARATE]


def test_words_of_up_to_200_characters_are_split(tokenizer):
    assert UNKNOWN not in tokenizer.encode("a" * 200)
    assert tokenizer.encode("a" * 201) == [CLASSIFY, UNKNOWN, SEPARATE]


def test_truncation_keeps_the_separator(tokenizer):
    ids = tokenizer.encode("长" * 100, context_length=52)
    assert len(ids) == 52
    assert ids[-1] == SEPARATE


def test_a_batch_is_padded_to_its_longest(tokenizer):
    ids, mask = tokenizer(["你好", "", "一二三"])
    assert ids.tolist() == [[101, 872, 1962, 102, 0], [101, 102, 0, 0, 0], [101, 671, 753, 676, 102]]
    assert ids.dtype == torch.int64
    assert mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [4, 2, 5]


def test_pickling_keeps_everything(tokenizer):
    again = pickle.loads(pickle.dumps(tokenizer))
    for text in [*GOLDEN, "a" * 150, "[CLS]“"]:
        assert again.encode(text) == tokenizer.encode(text)


@pytest.mark.parity
def test_equals_cn_clip(tokenizer):
    from cn_clip.clip import tokenize

    draw = random.Random(0)
    alphabets = [
        [chr(code) for code in range(0x4E00, 0x9FA6)],
        [chr(code) for code in range(0x20, 0x7F)],
        [chr(code) for code in [*range(0xC0, 0x180), *range(0x3041, 0x3097), *range(0x30A1, 0x30FB)]],
        [
            chr(code)
            for code in [*range(0xFF01, 0xFF5F), *range(0x3000, 0x3020), *range(0x2010, 0x2030), 9, 10, 13, 0xA0]
        ],
        [chr(code) for code in [*range(0x1F300, 0x1F650), *range(0x20000, 0x20100)]],
        [" ", "-", "、", "，", "T恤", "iPhone", "2024", "[SEP]", "##a", "连衣裙"],
    ]
    texts = [
        "".join(draw.choice(draw.choice(alphabets)) for _ in range(draw.choice([1, 5, 12, 30, 80])))
        for _ in range(4000)
    ]
    straight = [text.replace("“", '"').replace("”", '"') for text in texts]
    ids, _ = tokenizer(texts)
    reference = tokenize(straight)
    different = [
        text
        for text, ours, theirs in zip(texts, ids, reference, strict=True)
        if ours.tolist() != theirs[: ids.shape[1]].tolist() or theirs[ids.shape[1] :].any()
    ]
    assert different == []


@pytest.mark.parity
def test_equals_cn_clip_over_all_of_unicode_but_the_newest(tokenizer):
    from cn_clip.clip import tokenize

    draw = random.Random(1)
    # Assigned long ago, and of the same category since: the libraries' tables are of different years.
    kinds = {chr(code): unicodedata.ucd_3_2_0.category(chr(code)) for code in range(0x110000)}
    assigned = [
        character
        for character, kind in kinds.items()
        if kind not in ("Cn", "Co", "Cs") and kind == unicodedata.category(character)
    ]
    rare = [character for character in assigned if not "一" <= character <= "龥" and not "가" <= character <= "힣"]
    words = ["夏季新款", "连衣裙", "T恤", "iPhone", "S925", "¥99", "5.5寸", "“显瘦”", "‘女’", "é", "Ⅱ", "㎡", " "]
    texts = [
        "".join(draw.choice(draw.choice((assigned, rare, words, words))) for _ in range(draw.choice((2, 8, 20, 60))))
        for _ in range(2000)
    ]
    ids, _ = tokenizer(texts)
    reference = tokenize([text.replace("“", '"').replace("”", '"') for text in texts])
    different = [
        text for text, ours, theirs in zip(texts, ids, reference, strict=True) if ours.tolist() != theirs.tolist()
    ]
    assert ids.shape == (2000, 52)
    assert different == []
