"""What is said, when training begins, of texts that the model does not read whole."""

import re
from types import SimpleNamespace

import pytest

import zoo
from zoo.callbacks.run import SayTextLosses
from zoo.core.texts import SAMPLE, TextCounts, text_losses
from zoo.models.text import HubTokenizer
from zoo.models.tokenizer import BertChineseTokenizer
from zoo.tasks.captioning.captioners.vocabulary import BertVocabulary, HubVocabulary

TOWER = {"image_tower": "timm:test_vit", "image_tower_options": {"image_size": 32}}
TEXTS = ["红鞋", "", "蓝色的条纹衬衫", "👟👟 T恤", "“夏”", "女" * 60]


class Reader:
    def __init__(self, context_length):
        self.context_length = context_length

    def count_texts(self, texts):
        self.counted = texts
        return TextCounts.of([len(text) for text in texts], sum(t.count("?") for t in texts), self.context_length)


def test_nothing_is_said_where_nothing_is_lost():
    assert text_losses(Reader(3), ["ab", "abc"]) == []
    assert text_losses(Reader(3), []) == []
    assert text_losses(object(), ["abcd"]) == []


def test_what_is_cut_and_what_is_unknown():
    assert text_losses(Reader(3), ["ab", "abc", "abcd", "?bcde"]) == [
        "of 4 training texts 2 (50.00%) are longer than the model reads, and cut: the longest needs context_length 5",
        "of 4 training texts 1 of 14 characters (7.14%) are unknown to the model: it reads [UNK]",
    ]


def test_of_many_texts_some_are_drawn_the_same_each_time():
    reader, texts = Reader(3), ["ab", "abcd"] * SAMPLE  # every second one, which an even spread would miss
    (line,) = text_losses(reader, texts)
    assert len(reader.counted) == SAMPLE
    found = re.fullmatch(r"of 10,000 training texts, drawn from 20,000, \S+ \(([\d.]+)%\) are longer .*", line)
    assert 48 < float(found[1]) < 52
    assert text_losses(reader, texts) == [line]


def test_what_is_measured_is_what_is_read():
    """By the tokenizer of zoo and by transformers', which has the same words."""
    from transformers import BertTokenizerFast

    from zoo.models.tokenizer import VOCABULARY

    bert = BertChineseTokenizer()
    lengths, unknown = bert.measure(TEXTS)
    assert lengths == [len(bert.encode(text, context_length=512)) for text in TEXTS]
    assert unknown == 2  # one [UNK] for both shoes
    published = BertTokenizerFast(str(VOCABULARY))
    straight = [text.replace("“", '"').replace("”", '"') for text in TEXTS]
    assert HubTokenizer(published).measure(straight) == (lengths, unknown)
    assert BertVocabulary().measure(TEXTS) == (lengths, unknown)
    published.bos_token, published.eos_token = "[CLS]", "[SEP]"
    assert HubVocabulary(published).measure(straight) == (lengths, unknown)


@pytest.mark.parametrize(
    ("task", "data", "what"),
    [
        (
            lambda: zoo.RetrievalTask(
                **TOWER, text_tower="bert_tiny_chinese", text_tower_options={"num_layers": 1, "context_length": 5}
            ),
            lambda root: zoo.RetrievalDataModule(root),
            ("30 training texts 24 (80.00%)", 6),
        ),
        (
            lambda: zoo.CaptioningTask(
                "encoder_decoder_tiny", captioner_options={**TOWER, "num_layers": 1, "context_length": 8}
            ),
            lambda root: zoo.CaptioningDataModule(root),
            ("48 training texts 8 (16.67%)", 9),
        ),
        (
            lambda: zoo.TextToImageTask(
                "unet_tiny", generator_options={"text_tower_options": {"num_layers": 1, "context_length": 5}}
            ),
            lambda root: zoo.TextToImageDataModule(root),
            ("24 training texts 24 (100.00%)", 6),
        ),
        (
            lambda: zoo.TextToImageTask(
                "dalle_tiny",
                generator_options={
                    **{"num_layers": 1, "context_length": 3},
                    "image_tokenizer_options": {"num_codes": 64},
                },
            ),
            lambda root: zoo.TextToImageDataModule(root),
            ("24 training texts 24 (100.00%)", 4),
        ),
    ],
)
def test_each_task_counts_the_texts_that_it_is_trained_on(capsys, muge_root, task, data, what):
    trainer = SimpleNamespace(datamodule=data(str(muge_root)), is_global_zero=True)
    SayTextLosses().on_fit_start(trainer, task())
    assert capsys.readouterr().err == (
        f"Texts: of {what[0]} are longer than the model reads, and cut: the longest needs context_length {what[1]}\n"
    )


def test_a_reward_reads_no_references(muge_root):
    options = {"captioner": "encoder_decoder_tiny", "captioner_options": {**TOWER, "num_layers": 1}}
    assert zoo.CaptioningTask(**options, reward={"samples": 2}).text_reader is None
    assert zoo.CaptioningTask(**options, reward={"samples": 2, "from_epoch": 1}).text_reader is not None


def test_fit_says_it(zoo_main):
    words = ("--model.text_tower_options.context_length", "5", "--trainer.max_epochs", "0")
    code, _, err = zoo_main("fit", "--config", "experiments/tiny.yaml", *words)
    assert code == 0
    assert [line for line in err.splitlines() if line.startswith("Texts: ")] == [
        "Texts: of 30 training texts 24 (80.00%) are longer than the model reads, and cut: the longest needs"
        " context_length 6"
    ]
