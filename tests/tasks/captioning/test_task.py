"""The captioning task: its losses, its reward, its rates."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from zoo.errors import UserError
from zoo.tasks import CaptioningTask
from zoo.tasks.captioning.metrics.ngrams import CaptionReferences, Tokenization
from zoo.tasks.captioning.task import END, RewardOptions

SMALL = {
    "image_tower": "timm:test_vit",
    "image_tower_options": {"image_size": 32},
    "width": 32,
    "num_layers": 1,
    "num_heads": 2,
    "dropout": 0.0,
    "decoding": {"beams": 2, "max_tokens": 6},
}
TEXTS = ["红裙", "白色长裙", "一条红裙"]


def task(**options):
    torch.manual_seed(0)
    return CaptioningTask("encoder_decoder_tiny", captioner_options=SMALL, **options)


def batch(image_index=(0, 1, 1)):
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator),
        "image_id": ["a", "b"],
        "row": torch.tensor([0, 1]),
        "text": TEXTS,
        "image_index": torch.tensor(image_index),
    }


def test_the_loss_is_the_mean_over_real_tokens():
    built = task().eval()
    encoded = built.captioner.encode(batch()["image"])
    losses, image_index = built._token_losses(encoded, batch(), 0.0)
    alone = []
    for text, place in zip(TEXTS, (0, 1, 1), strict=True):
        ids, _ = built.captioner.tokenize([text])
        everywhere = torch.arange(ids.shape[1] - 1)
        logits = built.captioner.language.logits(encoded[place : place + 1], ids[:, :-1], everywhere)
        alone.append(nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none"))
    assert torch.allclose(losses, torch.cat(alone), atol=1e-4)
    assert image_index.tolist() == [0] * 3 + [1] * 5 + [1] * 5  # characters and the end


def test_an_evaluation_gives_each_images_loss_and_tokens():
    built = task().eval()
    with torch.no_grad():
        described = built.validation_step(batch(), 0)
        losses, _ = built._token_losses(described["encoded"], batch(), 0.0)
    assert described["tokens"].tolist() == [3, 10]
    assert described["loss"].tolist() == pytest.approx([losses[:3].sum().item(), losses[3:].sum().item()], rel=1e-5)
    assert len(described["captions"]) == 2
    assert torch.allclose(described["features"].norm(dim=1), torch.ones(2))
    without = {key: value for key, value in batch().items() if key not in ("text", "image_index")}
    assert "loss" not in built.validation_step(without, 0)


def test_several_references_of_an_image_weigh_as_its_copies_would():
    built = task()
    images = batch()["image"]
    copies = {**batch((0, 1, 2)), "image": images[[0, 1, 1]]}
    gradients = []
    for given in (batch(), copies):
        losses, _ = built._token_losses(built.captioner.encode(given["image"]), given, 0.1)
        losses.mean().backward()
        gradients.append(built.captioner.language.model.bert.embeddings.word_embeddings.weight.grad.clone())
        built.zero_grad()
    assert torch.allclose(*gradients, atol=1e-6)


def test_the_reward_counts_the_end_as_a_token():
    built = task(reward=RewardOptions(samples=2), init_from="x")
    words = Tokenization(lowercase=True)
    tokens = [[[*words.tokenize(text), END] for text in texts] for texts in (["红裙"], ["白色长裙", "长裙"])]
    built._rewards = CaptionReferences(tokens)
    ids, mask = built.captioner.tokenize(["红裙", "红裙", "长裙", "红"])
    cut = ids.clone()
    cut[1, 3] = 0  # the end of the second was not drawn
    rewards = built._score(batch(), cut, mask, 2)
    assert rewards.shape == (2, 2)
    assert rewards[0, 0] > rewards[0, 1] > 0
    assert rewards[1, 0] > 0
    assert rewards[1, 1] == 0


def test_reward_steps_make_what_is_rewarded_likelier():
    built = task(reward=RewardOptions(samples=8), init_from="x").eval()
    images = batch()["image"]
    built._rewards = _OneCharacter()
    built.log = lambda *_, **__: None
    with torch.no_grad():
        built.captioner.language.model.cls.predictions.bias.fill_(-20)
        built.captioner.language.model.cls.predictions.bias[[2000, 3000, 102]] = 0.0
    optimizer = torch.optim.SGD(built.parameters(), lr=0.1)
    torch.manual_seed(0)
    means = []
    for _ in range(15):
        loss = built._reward_loss(built.captioner.encode(images), {"row": torch.tensor([0, 1])})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means.append(built._rewards.mean)
    assert sum(means[-3:]) > sum(means[:3]) + 0.5


class _OneCharacter:
    """Rewards the share of one character among a caption's tokens."""

    def cider_d(self, rows, captions):
        from zoo.tasks.captioning.captioners.vocabulary import BertVocabulary

        wanted = BertVocabulary().decode([3000])
        rewards = [sum(token == wanted for token in caption) / max(1, len(caption)) for caption in captions]
        self.mean = sum(rewards) / len(rewards)
        return rewards


@pytest.mark.parametrize(("epochs", "steps"), [(-1, 12), (9, 12), (3, -1)])
def test_the_second_phase_begins_with_its_epoch_whatever_ends_the_training(epochs, steps):
    built = task(reward=RewardOptions(samples=2, from_epoch=2, learning_rate=1e-4), learning_rate=1e-3, init_from="x")
    built.trainer = SimpleNamespace(
        max_epochs=epochs,
        max_steps=steps,
        limit_train_batches=1.0,
        estimated_stepping_batches=12,
        accumulate_grad_batches=2,
        num_training_batches=7,  # four steps
        fit_loop=SimpleNamespace(setup_data=lambda: None),
    )
    (ratio, *_) = built.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas
    assert ratio(8) == pytest.approx(0.1)
    assert ratio(9) < ratio(8)


def test_parts_have_their_own_learning_rates():
    from zoo.core.optim import parameter_groups

    built = task()
    captioner = built.captioner
    groups = parameter_groups(
        built,
        0.1,
        dict.fromkeys(captioner.image_tower.parameters(), 1e-5) | dict.fromkeys(captioner.language.parameters(), 2e-5),
    )
    rate = {parameter: group.get("lr") for group in groups for parameter in group["params"]}
    assert {rate[parameter] for parameter in captioner.image_tower.parameters()} == {1e-5}
    assert {rate[parameter] for parameter in captioner.language.parameters()} == {2e-5}
    assert {rate[parameter] for parameter in captioner.connector.parameters()} == {None}
    assert len(rate) == len(list(built.parameters()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 1}, "model.reward.samples is 1: give 2 or more, each held against the others, or 0"),
        ({"samples": -2}, "model.reward.samples is -2"),
        ({"from_epoch": 3}, "model.reward.from_epoch is 3 and samples 0: give an epoch, 0 or more, and how"),
        ({"from_epoch": -1, "samples": 2}, "model.reward.from_epoch is -1"),
        ({"sample": 2}, r"model.reward has no 'sample'\. Did you mean samples\?"),
    ],
)
def test_reward_options_out_of_range_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        task(reward=options)


def test_what_is_no_captioner_is_refused():
    with pytest.raises(UserError, match="Linear has no image_size, end_token, decoding, encode"):
        CaptioningTask(nn.Linear(1, 1))
