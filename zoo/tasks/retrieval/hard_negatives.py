"""Batches whose pairs are hard to tell apart: pairs that lie close in the embedding space are sampled together.

Source: NGAME's mining-aware mini-batches (Dahiya et al. 2022, arXiv:2207.04452).
"""

import os
import time
from datetime import timedelta
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from zoo.core.evaluation import data_module
from zoo.errors import UserError
from zoo.tasks.retrieval.embedding import embed_training

SEARCHED = 8  # neighbours that are looked for at first, as a multiple of the group size
FIRST = 32  # pairs whose neighbours are looked for together, at first
BLOCK = 2**25  # similarities that are in memory at a time
SAMPLED = 10_000  # pairs of rows that the reported means are taken over
PATIENCE = timedelta(days=1)  # of the processes that do not mine; NCCL's would be half an hour


class HardNegatives(Callback):
    """Batches of training pairs that the model finds similar, where they are each other's negatives.

    When the first batch of an epoch is asked for, all queries and images that are trained on are embedded by the
    weights of that moment, once each and without augmentation, and every pair is grouped with those most like it
    (``mine_groups``); the groups replace the data's own. Pairs of which one's query is known to name the
    other's image are never grouped. This costs what an evaluation of the training split does, and a search: of 20,000
    pairs four seconds of one CPU core, and four times that of twice as many.

    A run that resumes in the middle of an epoch keeps that epoch's groups, which are in the checkpoint.

    Args:
        group_size: Pairs that are sampled together, 2 or more; best a divisor of the batch over all processes.
        from_epoch: First epoch that is mined for, from 0; until then the data's own groups are used.
        every_n_epochs: Epochs that the groups of a mining are used for.

    Raises:
        UserError: A number is out of its range, or the task or the data cannot be mined.
    """

    def __init__(self, group_size: int = 8, from_epoch: int = 1, every_n_epochs: int = 1) -> None:
        for name, value, least in (
            ("group_size", group_size, 2),
            ("from_epoch", from_epoch, 0),
            ("every_n_epochs", every_n_epochs, 1),
        ):
            if value < least:
                raise UserError(f"HardNegatives: {name} is {value}: give {least} or more")
        self.group_size = group_size
        self.from_epoch = from_epoch
        self.every_n_epochs = every_n_epochs
        self.epoch = -1  # the last that was grouped
        self.mined = -1  # the epoch that the groups were mined for
        self.groups: Tensor | None = None  # [P] int32; None: the data's own

    # --- when --------------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Have the data ask for each epoch's groups."""
        if stage != "fit":
            return
        data = data_module(trainer, self)
        for what, owner, methods in (
            ("task", pl_module, ("encode_text", "encode_image")),
            ("data module", data, ("training_pairs", "training_loaders", "regroup")),
        ):
            missing = [name for name in methods if not hasattr(owner, name)]
            if missing:
                raise UserError(
                    f"HardNegatives: the {what} {type(owner).__name__} has no {', '.join(missing)}: train a"
                    " RetrievalTask on a RetrievalDataModule, or leave the callback out"
                )
        data.regroup(partial(self.groups_of, trainer, pl_module))

    def groups_of(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> np.ndarray | None:
        """Return an epoch's groups, ``[P] int32``, mined where it is time; None: the data's own.

        The sampler asks when the epoch's first batch is fetched: before each of Lightning's hooks that a resumed epoch
        may skip, and behind everything that still changes the weights. Once begun, an epoch keeps its groups.
        """
        due = self.groups is None or epoch >= self.mined + self.every_n_epochs
        if epoch != self.epoch and epoch >= self.from_epoch and due:
            self.groups = self._mine(trainer, pl_module, epoch)
            self.mined = epoch
        self.epoch = epoch
        return None if self.groups is None else self.groups.numpy()

    def state_dict(self) -> dict[str, Any]:
        """Return the groups of the epoch that is under way."""
        return {"epoch": self.epoch, "mined": self.mined, "groups": self.groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume with a checkpoint's groups."""
        self.epoch, self.mined, self.groups = (state_dict[name] for name in ("epoch", "mined", "groups"))

    # --- how ---------------------------------------------------------------------------------------------------

    def _mine(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> Tensor:
        started = time.perf_counter()
        pairs = data_module(trainer, self).training_pairs()  # [P, 2] ids
        (query_ids, queries), (image_ids, images) = (np.unique(column, return_inverse=True) for column in pairs.T)
        loaders = data_module(trainer, self).training_loaders()
        embeddings = embed_training(trainer, pl_module, loaders, query_ids, image_ids, who="HardNegatives")
        groups: list[Any] = [None]
        several = trainer.world_size > 1
        patient: Any = torch.distributed.new_group(backend="gloo", timeout=PATIENCE) if several else None
        if trainer.is_global_zero:  # alone: where neighbours are nearly as near, another device may choose otherwise
            random = np.random.default_rng((int(os.environ.get("PL_GLOBAL_SEED", 0)), epoch))
            indices = np.stack([queries, images], axis=1)
            mined = mine_groups(*embeddings, indices, group_size=self.group_size, random=random)
            near, any_two = describe_groups(*embeddings, indices, mined, random)
            print(
                f"HardNegatives, epoch {epoch}: {len(mined):,} pairs in {len(np.unique(mined)):,} groups in"
                f" {time.perf_counter() - started:.1f} s; mean similarity {near:.3f} within a group, {any_two:.3f} of"
                " any two"
            )
            groups = [torch.from_numpy(mined.astype(np.int32))]
        if several:
            torch.distributed.broadcast_object_list(groups, src=0, group=patient)
            torch.distributed.destroy_process_group(patient)
        return groups[0]


# --- mathematics -----------------------------------------------------------------------------------------------


def mine_groups(
    query_embeddings: Tensor,
    image_embeddings: Tensor,
    pairs: np.ndarray,
    *,
    group_size: int,
    random: np.random.Generator,
) -> np.ndarray:
    """Group the training pairs that are similar.

    The similarity of two pairs is the mean cosine of either's query with the other's image. In random order, each pair
    that is in no group yet opens one, with the pairs most similar to it that are in none. No two pairs of a group are
    known to belong together: where one's query names the other's image they are no negatives.

    Args:
        query_embeddings: ``[Q, D]`` unit vectors, float32.
        image_embeddings: ``[M, D]`` unit vectors, float32, on the same device.
        pairs: ``[P, 2] int64``: indices of the query and of the image that belong together.
        group_size: The most pairs of a group.
        random: Draws the order.

    Returns:
        ``[P] int64``: the group of each pair, named by the one that opened it.
    """
    known = set(zip(*pairs.T.tolist(), strict=True))
    search = _Search(query_embeddings, image_embeddings, pairs)
    groups = np.full(len(pairs), -1)
    left = random.permutation(len(pairs))
    most = max(1, BLOCK // max(1, len(pairs)))
    at_once, count = min(most, FIRST), SEARCHED * group_size
    # Several look for their neighbours at a time. Where earlier ones took what another has found, it looks again among
    # those that are left: the groups are the same as if each had looked alone.
    while len(left):
        openers = left[:at_once]
        nearest = search.nearest(openers, left, count)
        for index, row in enumerate(openers.tolist()):
            if groups[row] >= 0:
                continue
            candidates = nearest[index][groups[nearest[index]] < 0].tolist()
            members = _unrelated([row, *candidates], pairs, known, group_size)
            if len(members) < group_size and nearest[index, -1] >= 0:  # others took what it found: it looks again
                break
            groups[members] = row
        else:
            index = len(openers)
        whole, none = index == len(openers), index == 0
        at_once = min(2 * at_once, most) if whole else max(1, at_once // 2)
        count = 2 * count if none else SEARCHED * group_size
        left = left[groups[left] < 0]
    return groups


def _unrelated(rows: list[int], pairs: np.ndarray, known: set[tuple[int, int]], most: int) -> list[int]:
    """Choose the first of the rows of which no query names another's image; -1 ends the rows."""
    chosen: list[int] = []
    members: list[tuple[int, int]] = []
    for row in rows:
        if len(chosen) == most or row < 0:
            break
        query, image = pairs[row].tolist()
        if not any((query, theirs[1]) in known or (theirs[0], image) in known for theirs in members):
            members.append((query, image))
            chosen.append(row)
    return chosen


class _Search:
    """A search for the pairs most similar to given pairs; see ``mine_groups``."""

    def __init__(self, query_embeddings: Tensor, image_embeddings: Tensor, pairs: np.ndarray) -> None:
        self.queries, self.images = query_embeddings, image_embeddings
        self.pairs = pairs
        self.named, self.naming = _links(pairs), _links(pairs[:, ::-1])
        self.indices = torch.from_numpy(pairs.T.copy()).to(query_embeddings.device)  # [2, P]

    @torch.no_grad()
    def nearest(self, rows: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
        """Find the pairs most similar to each of some and not known to belong to it, the most similar first.

        Args:
            rows: ``[R]`` pairs.
            among: ``[N]`` pairs that may be found.
            count: How many, at most.

        Returns:
            ``[R, count] int64`` (fewer columns where ``among`` is shorter); -1 where there is no other.
        """
        device = self.indices.device
        queries, images = self.indices[:, torch.from_numpy(rows).to(device)]
        to_images = self.queries[queries] @ self.images.T  # [R, M]
        to_queries = self.images[images] @ self.queries.T  # [R, Q]
        to_images[_linked(self.named, self.pairs[rows, 0], device)] = -torch.inf
        to_queries[_linked(self.naming, self.pairs[rows, 1], device)] = -torch.inf
        queries, images = self.indices[:, torch.from_numpy(among).to(device)]
        similarities = to_images.index_select(1, images).add_(to_queries.index_select(1, queries))  # [R, N]: twice
        values, found = similarities.topk(min(count, len(among)))  # [R, N] -> [R, count]
        return np.where(values.isinf().cpu().numpy(), -1, among[found.cpu().numpy()])


def _links(pairs: np.ndarray) -> np.ndarray:
    """Sort the pairs by their first column, ``[P, 2]``."""
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


def _linked(links: np.ndarray, keys: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Find where a matrix ``[len(keys), …]`` has what the keys are linked with: rows and columns."""
    start, end = (np.searchsorted(links[:, 0], keys, side=side) for side in ("left", "right"))
    counts = end - start
    rows = np.repeat(np.arange(len(keys)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = links[np.repeat(start, counts) + within, 1]
    return torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)


@torch.no_grad()
def describe_groups(
    query_embeddings: Tensor,
    image_embeddings: Tensor,
    pairs: np.ndarray,
    groups: np.ndarray,
    random: np.random.Generator,
) -> tuple[float, float]:
    """Compute the mean similarity of grouped pairs, and of any two, over a sample; NaN where there are none."""
    order = np.argsort(groups, kind="stable")
    neighbours = np.stack([order[:-1], order[1:]])[:, groups[order[:-1]] == groups[order[1:]]]  # [2, N]
    sample = neighbours[:, random.permutation(neighbours.shape[1])[:SAMPLED]]
    strangers = random.integers(len(pairs), size=(2, SAMPLED))

    def mean(rows: np.ndarray) -> float:
        texts = query_embeddings[torch.from_numpy(pairs[rows, 0])]  # [2, N, D]
        images = image_embeddings[torch.from_numpy(pairs[rows, 1])].flip(0)  # the other's
        return (texts * images).sum(dim=-1).mean().item()

    return mean(sample), mean(strangers)
