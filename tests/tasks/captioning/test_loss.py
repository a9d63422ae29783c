import math

import pytest
import torch

from zoo.tasks.captioning.loss import self_critical_loss, sums_by_group, token_losses


def test_token_losses_are_the_negative_log_likelihood_by_hand():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    losses = token_losses(logits, torch.tensor([0, 2]))
    assert losses.tolist() == pytest.approx([math.log(math.e**2 + 2) - 2, math.log(3)], abs=1e-6)  # 0.24 of 2.24 - 2


def test_label_smoothing_spreads_a_share_over_all_tokens():
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 3])
    probabilities = torch.full((4, 7), 0.1 / 7).scatter_add_(1, targets[:, None], torch.full((4, 1), 0.9))
    wanted = -(probabilities * logits.log_softmax(1)).sum(1)
    assert torch.allclose(token_losses(logits, targets, label_smoothing=0.1), wanted, atol=1e-6)


def test_a_caption_is_held_against_the_others_of_its_image():
    log_probabilities = torch.zeros(6, requires_grad=True)
    caption = torch.tensor([0, 0, 1, 2, 3, 4])  # of two images, three captions each; the last has no token here
    rewards = torch.tensor([[1.0, 0.0, 0.5], [2.0, 2.0, 2.0]])
    self_critical_loss(log_probabilities, caption, rewards).backward()
    advantages = torch.tensor([1 - 0.25, 1 - 0.25, 0 - 0.75, 0.5 - 0.5, 0.0, 0.0])
    assert torch.allclose(log_probabilities.grad, -advantages / 6)


def test_sums_by_group():
    sums = sums_by_group(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 4)
    assert sums.tolist() == [2, 0, 5, 0]
