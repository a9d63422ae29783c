import copy
import pickle

import huggingface_hub
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer, T5Config, T5EncoderModel, T5Model

from zoo.errors import UserError
from zoo.models.tokenizer import VOCABULARY
from zoo.registry import TEXT_TOWERS

TEXTS = ["红裙", "夏季新款碎花连衣裙 显瘦", ""]
SMALL = {
    "vocab_size": 21128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return TEXT_TOWERS.build("bert_tiny_chinese", width=64, num_layers=2).eval()


def folder(path, model):
    model.save_pretrained(path)
    BertTokenizer(vocab=str(VOCABULARY)).save_pretrained(path)
    return f"transformers:{path}"


@torch.no_grad()
def test_pools_the_classification_token_of_a_plain_bert():
    tower = TEXT_TOWERS.build("rbt3").eval()
    reference = BertModel(tower.encoder.config, add_pooling_layer=False).eval()
    reference.load_state_dict(tower.encoder.state_dict())
    tokens = BertTokenizer(vocab=str(VOCABULARY))(TEXTS, padding="max_length", max_length=52, return_tensors="pt")
    torch.testing.assert_close(tower(TEXTS), reference(**tokens).last_hidden_state[:, 0], rtol=0, atol=1e-5)


def test_the_tiny_one_pools_the_mean_of_the_real_tokens(tower):
    hidden, mask = tower.sequence(TEXTS)
    for pooled, states, real in zip(tower(TEXTS), hidden, mask, strict=True):
        torch.testing.assert_close(pooled, states[real].mean(dim=0), rtol=0, atol=1e-5)


@torch.no_grad()
def test_padding_to_the_context_changes_no_embedding(tower):
    options = {"width": 64, "num_layers": 2, "pad_to_context": True, "context_length": 40}
    padded = TEXT_TOWERS.build("bert_tiny_chinese", **options).eval()
    padded.load_state_dict(tower.state_dict())
    assert padded.sequence(TEXTS)[0].shape[1] == 40
    assert tower.sequence(TEXTS)[0].shape[1] < 40
    torch.testing.assert_close(padded(TEXTS), tower(TEXTS), rtol=0, atol=1e-5)


def test_long_texts_are_truncated(tower):
    features, mask = tower.sequence(["长" * 100])
    assert mask.shape == (1, 52)
    short = TEXT_TOWERS.build("bert_tiny_chinese", width=64, num_layers=2, context_length=10)
    assert short.sequence(["长" * 100])[1].shape == (1, 10)


def test_every_parameter_gets_a_gradient(tower):
    trained = copy.deepcopy(tower).train()
    trained(TEXTS).square().sum().backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())


@torch.no_grad()
def test_runs_in_half_precision(tower):
    half = copy.deepcopy(tower).to(torch.bfloat16)
    cosine = torch.nn.functional.cosine_similarity(half(TEXTS).float(), tower(TEXTS))
    assert half(TEXTS).dtype == torch.bfloat16
    assert (cosine > 0.99).all()


@torch.no_grad()
def test_pickles(tower):
    again = pickle.loads(pickle.dumps(tower))
    torch.testing.assert_close(again(TEXTS), tower(TEXTS), rtol=0, atol=0)


def test_one_string_is_refused(tower):
    with pytest.raises(UserError, match=r"the string '红裙' came; .* \['红裙'\]"):
        tower("红裙")


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"context_length": 513}, "context_length"),
        ({"context_length": 2}, "context_length"),
        ({"dropout": 1.5}, "dropout"),
        ({"num_layers": 0}, "num_layers"),
        ({"width": 100, "num_heads": 3}, "width"),
        ({"width": 0}, "width"),
        ({"num_heads": 0}, "num_heads"),
        ({"num_heads": -2}, "num_heads"),
    ],
)
def test_faulty_options(options, argument):
    with pytest.raises(UserError) as raised:
        TEXT_TOWERS.build("bert_tiny_chinese", **options)
    assert (raised.value.argument, raised.value.value) == (argument, options[argument])


@torch.no_grad()
def test_a_folder_is_a_tower(tmp_path):
    model = BertModel(BertConfig(**SMALL)).eval()
    tower = TEXT_TOWERS.build(folder(tmp_path, model)).eval()
    tower.encoder.load_state_dict(model.state_dict(), strict=False)
    ids = torch.tensor([[101, 5273, 6170, 102]])
    torch.testing.assert_close(tower(["红裙"]), model(ids).last_hidden_state[:, 0], rtol=0, atol=1e-6)
    assert tower.published == str(tmp_path)
    assert not any("pooler" in name for name, _ in tower.named_parameters())


@torch.no_grad()
def test_without_a_classification_token_the_mean_is_pooled(tmp_path):
    config = T5Config(vocab_size=21128, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=2)
    model = T5Model(config).eval()
    name = folder(tmp_path, model)
    tokenizer = BertTokenizer(vocab=str(VOCABULARY), cls_token=None)
    tokenizer.save_pretrained(tmp_path)
    tower = TEXT_TOWERS.build(name).eval()
    hidden, mask = tower.sequence(TEXTS)
    expected = torch.stack([row[real].mean(dim=0) for row, real in zip(hidden, mask, strict=True)])
    torch.testing.assert_close(tower(TEXTS), expected, rtol=0, atol=1e-6)
    assert type(tower.encoder) is type(T5EncoderModel(config).get_encoder())


def test_a_hub_name_that_cannot_be_had_says_why(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'transformers:nobody/nothing': .* \(HF_HUB_OFFLINE is set\)"):
        TEXT_TOWERS.build("transformers:nobody/nothing")


def test_a_folder_without_a_configuration_says_so(tmp_path):
    with pytest.raises(UserError, match=f"'transformers:{tmp_path}': its configuration and tokenizer cannot be had"):
        TEXT_TOWERS.build(f"transformers:{tmp_path}")


@pytest.mark.parity
@torch.no_grad()
def test_is_the_text_tower_of_cn_clip():
    from cn_clip.clip import tokenize
    from cn_clip.clip.configuration_bert import BertConfig as OriginalConfig
    from cn_clip.clip.modeling_bert import BertModel as OriginalModel

    tower = TEXT_TOWERS.build("rbt3").eval()
    original = OriginalModel(
        OriginalConfig(vocab_size_or_config_json_file=21128, num_hidden_layers=3, layer_norm_eps=1e-12)
    ).eval()
    result = original.load_state_dict(tower.encoder.state_dict(), strict=False)
    assert all(key.startswith("pooler.") for key in result.missing_keys)
    assert not result.unexpected_keys
    ids = tokenize(TEXTS)
    reference = original(ids, attention_mask=ids.ne(0).to(torch.float32))[0][:, 0]
    torch.testing.assert_close(tower(TEXTS), reference, rtol=0, atol=1e-5)
