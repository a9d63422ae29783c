"""The contrastive loss against plain cross-entropy, by hand, and over processes."""

import math
import multiprocessing
from datetime import timedelta

import pytest
import torch
import torch.distributed
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import cross_entropy, normalize

from zoo.tasks.retrieval.losses import functional as contrastive
from zoo.tasks.retrieval.losses.functional import MAX_LOGIT_SCALE, clip_loss, siglip_loss

SCALE = torch.tensor(1 / 0.07)


def embeddings(rows, seed=0, width=6):
    generator = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(rows, width, generator=generator), dim=1) for _ in range(2)]


def by_hand(images, texts, scale, image_ids, query_ids):
    """The masked loss, one row at a time, in float64."""
    images, texts, rows, total = images.double(), texts.double(), range(len(images)), 0.0
    for own in rows:
        entering = [
            other
            for other in rows
            if other == own or (image_ids[own] != image_ids[other] and query_ids[own] != query_ids[other])
        ]
        for left, right in ((images, texts), (texts, images)):
            sums = [math.exp(float(scale * (left[own] @ right[other]))) for other in entering]
            total -= math.log(sums[entering.index(own)] / sum(sums))
    return total / (2 * len(images))


def test_without_repeated_ids_it_is_the_plain_loss():
    images, texts = embeddings(9)
    logits, targets = SCALE * images @ texts.T, torch.arange(9)
    plain = (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2
    torch.testing.assert_close(clip_loss(images, texts, SCALE), plain)
    ids = torch.arange(9)
    torch.testing.assert_close(clip_loss(images, texts, SCALE, image_ids=ids + 40, query_ids=ids.flip(0)), plain)


def test_the_weight_is_the_share_of_each_texts_search_for_its_image():
    images, texts = embeddings(9)
    logits, targets = SCALE * texts @ images.T, torch.arange(9)  # a row is a text over all images
    search, other = cross_entropy(logits, targets), cross_entropy(logits.T, targets)
    for weight in (0.0, 0.9, 1.0):
        loss = clip_loss(images, texts, SCALE, text_to_image_weight=weight)
        torch.testing.assert_close(loss, weight * search + (1 - weight) * other)


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_one_image_or_one_query_are_no_negatives(seed):
    images, texts = embeddings(12, seed)
    generator = torch.Generator().manual_seed(seed)
    image_ids, query_ids = torch.randint(0, 7, (2, 12), generator=generator)
    loss = clip_loss(images, texts, SCALE, image_ids=image_ids, query_ids=query_ids)
    assert loss.item() == pytest.approx(by_hand(images, texts, SCALE, image_ids, query_ids), abs=1e-5)
    alone = clip_loss(images, texts, SCALE, image_ids=image_ids)
    assert alone.item() == pytest.approx(by_hand(images, texts, SCALE, image_ids, torch.arange(12)), abs=1e-5)


def test_gradients_are_finite_and_a_masked_pair_has_none():
    images, texts = (side.requires_grad_() for side in embeddings(4))
    scale = SCALE.clone().requires_grad_()
    same = torch.zeros(4, dtype=torch.int64)  # all rows one image: nothing to tell apart
    loss = clip_loss(images, texts, scale, image_ids=same)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-7)
    for gradient in (images.grad, texts.grad, scale.grad):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e-6
    images.grad = None
    clip_loss(images, texts, scale, image_ids=torch.tensor([5, 5, 6, 7])).backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().max() > 1e-3


def test_a_collapsed_batch_sits_at_the_logarithm_of_its_size():
    same = torch.ones(16, 4) / 2
    for label_smoothing in (0.0, 0.3):
        loss = clip_loss(same, same, SCALE, label_smoothing=label_smoothing)
        assert loss.item() == pytest.approx(math.log(16), abs=1e-5)


def test_smoothed_labels_are_those_of_torch_over_what_enters():
    images, texts = embeddings(9)
    ids, total = torch.tensor([0, 1, 2, 3, 3, 5, 6, 5, 8]), torch.zeros(())
    for own in range(9):
        entering = [other for other in range(9) if other == own or ids[other] != ids[own]]
        for left, right in ((images, texts), (texts, images)):
            logits = SCALE * left[own] @ right[entering].T
            total += cross_entropy(logits[None], torch.tensor([entering.index(own)]), label_smoothing=0.2)
    torch.testing.assert_close(clip_loss(images, texts, SCALE, image_ids=ids, label_smoothing=0.2), total / 18)


def test_an_image_that_a_query_names_is_no_negative_of_it():
    """Row 0 is (query 7, image 1), and query 7 also names image 3, which is that of row 2."""
    images, texts = embeddings(4)
    scale = torch.tensor(2.0)  # so small that every pair weighs something
    ids = {"image_ids": torch.tensor([1, 2, 3, 4]), "query_ids": torch.tensor([7, 8, 9, 10])}
    positives = torch.tensor([[1, 3], [2, -1], [3, -1], [4, -1]])
    logits = scale * images @ texts.T
    logits[2, 0] = -torch.inf  # image of row 2, text of row 0; the other way round they are negatives
    plain = (cross_entropy(logits, torch.arange(4)) + cross_entropy(logits.T, torch.arange(4))) / 2
    torch.testing.assert_close(clip_loss(images, texts, scale, **ids, positives=positives), plain)
    bias = torch.tensor(-3.0)
    left_out = torch.nn.functional.softplus(scale * images[2] @ texts[0] + bias) / 4
    whole = siglip_loss(images, texts, scale, bias, **ids)
    torch.testing.assert_close(siglip_loss(images, texts, scale, bias, **ids, positives=positives), whole - left_out)


@pytest.mark.parametrize("seed", range(4))
def test_every_reason_to_leave_a_pair_out_holds_beside_the_others(seed):
    generator = torch.Generator().manual_seed(seed)
    images, texts = embeddings(9, seed)
    scale, bias = torch.tensor(2.0), torch.tensor(-1.0)
    image_ids, query_ids = (torch.randint(9, (9,), generator=generator) for _ in range(2))
    positives = torch.randint(-1, 9, (9, 2), generator=generator)
    enters = torch.eye(9, dtype=torch.bool)
    for i in range(9):  # an image
        for j in range(9):  # a text
            same = image_ids[i] == image_ids[j] or query_ids[i] == query_ids[j] or image_ids[i] in positives[j]
            enters[i, j] |= not same
    ids = {"image_ids": image_ids, "query_ids": query_ids, "positives": positives}
    logits = (scale * images @ texts.T).masked_fill(~enters, -torch.inf)
    plain = (cross_entropy(logits, torch.arange(9)) + cross_entropy(logits.T, torch.arange(9))) / 2
    torch.testing.assert_close(clip_loss(images, texts, scale, **ids), plain)
    signs = 2 * torch.eye(9) - 1
    each = torch.nn.functional.softplus(-signs * (scale * images @ texts.T + bias))
    torch.testing.assert_close(siglip_loss(images, texts, scale, bias, **ids), each[enters].sum() / 9)


def test_the_sigmoid_loss_is_that_of_siglip():
    """Algorithm 1 of the paper, pair by pair in float64; pairs that share an id left out."""
    images, texts = embeddings(7)
    image_ids, query_ids = torch.tensor([0, 1, 2, 2, 4, 5, 6]), torch.tensor([0, 1, 2, 3, 4, 5, 0])
    scale, bias, total = 10.0, -10.0, 0.0
    for i in range(7):
        for j in range(7):
            if i == j or (image_ids[i] != image_ids[j] and query_ids[i] != query_ids[j]):
                logit = scale * float(images[i].double() @ texts[j].double()) + bias
                total += math.log1p(math.exp(-logit if i == j else logit))
    loss = siglip_loss(images, texts, torch.tensor(scale), torch.tensor(bias), image_ids=image_ids, query_ids=query_ids)
    assert loss.item() == pytest.approx(total / 7, rel=1e-6)


def test_the_mean_of_processes_with_a_share_of_the_images_each_is_the_loss_of_the_whole_batch():
    images, texts = embeddings(12)
    ids = {"image_ids": torch.arange(12) // 2, "query_ids": torch.arange(12) % 7}
    bias = torch.tensor(-2.0)
    shares = [siglip_loss(images[row : row + 4], texts, SCALE, bias, first_row=row, **ids) for row in (0, 4, 8)]
    torch.testing.assert_close(sum(shares) / 3, siglip_loss(images, texts, SCALE, bias, **ids))


@pytest.mark.parametrize(("block", "times"), [(10, 1), (3, 8)])
def test_one_block_is_computed_once_and_several_again_on_the_way_back(block, times, monkeypatch):
    monkeypatch.setattr(contrastive, "BLOCK", block)
    seen = []

    def loss(indices, rows):
        seen.append(len(rows))
        return rows.square().sum()

    rows = torch.ones(10, 2, requires_grad=True)
    contrastive._in_blocks(loss, rows).backward()
    assert len(seen) == times
    torch.testing.assert_close(rows.grad, torch.full((10, 2), 2 / 10))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_in_blocks_of_rows_it_is_the_same(loss, monkeypatch):
    """Values and gradients, also of scale and bias; ten rows in blocks of three."""
    image_ids, query_ids = torch.arange(10) // 2, torch.arange(10) % 7
    positives = torch.stack([image_ids, (image_ids + 3) % 5], dim=1)

    def once():
        leaves = [*embeddings(10), SCALE.clone(), torch.tensor(-2.0)]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        ids = {"image_ids": image_ids, "query_ids": query_ids, "positives": positives}
        if loss == "softmax":
            value = clip_loss(*leaves[:3], label_smoothing=0.1, **ids)
        else:
            value = sum(
                siglip_loss(leaves[0][start : start + 5], *leaves[1:], first_row=start, **ids) for start in (0, 5)
            )
        return [value.detach(), *torch.autograd.grad(value, leaves[: 3 if loss == "softmax" else 4])]

    whole = once()
    monkeypatch.setattr(contrastive, "BLOCK", 3)
    for got, wanted in zip(once(), whole, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


def test_it_is_computed_in_fp32_under_autocast():
    images, texts = embeddings(8)
    expected = clip_loss(images, texts, SCALE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(clip_loss(images, texts, SCALE), expected)
        assert clip_loss(images.bfloat16(), texts.bfloat16(), SCALE).dtype == torch.float32


def test_the_largest_scale_is_clips():
    assert math.exp(MAX_LOGIT_SCALE) == pytest.approx(100)


def test_faulty_shapes_are_named():
    images, texts = embeddings(4)
    with pytest.raises(ValueError, match=r"\[4, 6\] and \[3, 6\]"):
        clip_loss(images, texts[:3], SCALE)
    with pytest.raises(ValueError, match=r"\[6\] and \[6\]"):
        clip_loss(images[0], texts[0], SCALE)
    with pytest.raises(ValueError, match=r"\[4, 6\] and \[4, 5\]"):
        siglip_loss(images, texts[:, :5], SCALE, SCALE)
    with pytest.raises(ValueError, match=r"\[6\] and \[6\]"):
        siglip_loss(images[0], texts[0], SCALE, SCALE)
    with pytest.raises(ValueError, match="first_row is -1: 3 of 4 rows"):
        siglip_loss(images[:3], texts, SCALE, SCALE, first_row=-1)
    with pytest.raises(ValueError, match=r"positives has shape \[3, 2\]; it must be \[4, P\]"):
        clip_loss(images, texts, SCALE, image_ids=torch.arange(4), positives=torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"query_ids has shape \[3\]; it must be \[4\]"):
        clip_loss(images, texts, SCALE, query_ids=torch.arange(3))
    with pytest.raises(ValueError, match=r"positives has shape \[4, 2\]; it must be \[4, P\], beside image_ids"):
        clip_loss(images, texts, SCALE, positives=torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"image_ids has shape \[4, 1\]; it must be \[4\]"):
        clip_loss(images, texts, SCALE, image_ids=torch.zeros(4, 1))
    with pytest.raises(ValueError, match="first_row is 2: 3 of 4 rows"):
        siglip_loss(images[:3], texts, SCALE, SCALE, first_row=2)


def batch_of_twelve():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(12, 5, generator=generator), torch.randn(12, 4, generator=generator)


def towers():
    torch.manual_seed(4)
    return torch.nn.ModuleList([torch.nn.Linear(5, 6), torch.nn.Linear(4, 6)])


IMAGE_IDS, QUERY_IDS = torch.arange(12) // 2, torch.arange(12) % 9


def gathered_gradients(rank, folder):
    """Two processes, six rows each: gather with gradient, average the gradients as DDP does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(seconds=30), rank=rank, world_size=2
    )
    model, (images, texts) = towers(), batch_of_twelve()
    own = slice(rank * 6, rank * 6 + 6)
    sides = [normalize(tower(rows[own]), dim=1) for tower, rows in zip(model, (images, texts), strict=True)]
    gathered = [torch.cat(all_gather(side)) for side in sides]
    loss = clip_loss(*gathered, SCALE, image_ids=IMAGE_IDS, query_ids=QUERY_IDS)
    loss.backward()
    for parameter in model.parameters():
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= 2
    torch.save([loss.detach(), *(parameter.grad for parameter in model.parameters())], folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.ddp
def test_two_processes_have_the_gradient_of_the_concatenated_batch(tmp_path):
    processes = [
        multiprocessing.get_context("fork").Process(target=gathered_gradients, args=(rank, tmp_path)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    model, rows = towers(), batch_of_twelve()
    sides = [normalize(tower(side), dim=1) for tower, side in zip(model, rows, strict=True)]
    loss = clip_loss(*sides, SCALE, image_ids=IMAGE_IDS, query_ids=QUERY_IDS)
    loss.backward()
    expected = [loss.detach(), *(parameter.grad for parameter in model.parameters())]
    for rank in (0, 1):
        for got, wanted in zip(torch.load(tmp_path / f"{rank}.pt"), expected, strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
