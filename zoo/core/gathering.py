"""What metrics share that gather rows over all processes: rows that must come once each, and processes without any."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

SHOWN_IDS = 5  # ids that an error names


def check_ids(came: Sequence[int], place_of: Mapping[int, int], *, metric: str, what: str, complete: bool) -> None:
    """See that the gathered ids are those of a split, each once.

    Args:
        came: The ids that came from all processes.
        place_of: Each id of the split → its place in the file.
        metric: The metric's name, and
        what: what the ids are of, both for the error.
        complete: Whether all of the split must have come.

    Raises:
        RuntimeError: Ids are missing, repeated or unknown: each error with a count and some ids.
    """
    errors = _id_faults(came, place_of, missing_allowed=not complete)
    if errors:
        raise RuntimeError(
            f"{metric} gathered {len(came)} {what} for a split of {len(place_of)}: {'; '.join(errors)}. "
            "Each row must come exactly once over all processes: use_distributed_sampler=False, the data module's "
            "own samplers, and reset() between evaluations; complete=False for a partial evaluation."
        )


def rows_not_finite(values: Tensor) -> list[int]:
    """The rows of ``[N, …]`` that hold an infinity or something that is not a number."""
    if not values.is_floating_point():
        return []
    finite = values.isfinite()
    whole = finite.flatten(1).all(dim=1) if finite.ndim > 1 else finite  # [N]
    return (~whole).nonzero().squeeze(1).tolist()


def file_order(came: Sequence[int], place_of: Mapping[int, int]) -> list[int]:
    """The rows of the ids that came, sorted by their places in the file."""
    places = [place_of[identity] for identity in came]
    return sorted(range(len(places)), key=places.__getitem__)


def offer_empty_batches(states: Mapping[str, list[Tensor]], device: torch.device, group: Any | None) -> None:
    """Append an empty batch to every state, of the type and shape that other processes have rows of.

    A process without rows can then take part in a gathering; torchmetrics would offer a float ``[0]`` and abort. All
    processes must call it.

    Args:
        states: Batches ``[B, …]`` by the name of the state; changed in place.
        device: Where the empty batches go.
        group: The process group, or None for all processes.

    Raises:
        RuntimeError: The processes hold rows of different types or shapes.
    """
    own = {name: (batches[0].dtype, tuple(batches[0].shape[1:])) for name, batches in states.items() if batches}
    everyone: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(everyone, own, group=group)
    for name, batches in states.items():
        kinds = list(dict.fromkeys(described[name] for described in everyone if name in described))
        if len(kinds) > 1:
            raise RuntimeError(f"the processes hold different rows of {name}: {' and '.join(map(str, kinds))}.")
        dtype, shape = kinds[0] if kinds else (torch.float32, (0,))
        batches.append(torch.empty(0, *shape, dtype=dtype, device=device))


def some(ids: Sequence[int]) -> str:
    """The first few ids, for an error."""
    return ", ".join(map(str, ids[:SHOWN_IDS])) + (", …" if len(ids) > SHOWN_IDS else "")


def _id_faults(came: Sequence[int], place_of: Mapping[int, int], *, missing_allowed: bool) -> list[str]:
    counts = Counter(came)
    errors = {
        "missing": [] if missing_allowed else [identity for identity in place_of if identity not in counts],
        "repeated": [identity for identity, count in counts.items() if count > 1],
        "unknown": [identity for identity in counts if identity not in place_of],
    }
    return [f"{len(ids)} {fault} ({some(ids)})" for fault, ids in errors.items() if ids]
