"""What every reader of weights uses: files of the hub's cache, reading that runs no code, loading that is whole."""

import hashlib
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import Tensor, nn

from zoo.core.hub import unreachable
from zoo.errors import UserError


class UnavailableError(Exception):
    """Published weights cannot be had now; the message is the reason, in one line."""


class NoHubError(UserError):
    """A name on the hub cannot be had now, for this reason."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def cached_file(repository: str, names: Sequence[str]) -> Path | None:
    """The first of these files of a hub repository that lies in the Hugging Face cache, or None."""
    found = (try_to_load_from_cache(repository, name) for name in names if "://" not in repository)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def hub_file(repository: str, names: Sequence[str]) -> Path:
    """The first of these files that a hub repository has: cached, or downloaded now.

    Raises:
        UnavailableError: It is not cached and cannot be downloaded, or there is none of them.
    """
    if "://" in repository:
        raise UnavailableError("they are not on the hub; download that file and give its path")
    cached = cached_file(repository, names)
    if cached is not None:
        return cached
    reason = unreachable()
    if reason is not None:
        raise UnavailableError(reason)
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:  # the network went away
            raise UnavailableError(first_line(error)) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # the hub's clients raise many kinds
            raise UnavailableError(first_line(error)) from error
    raise UnavailableError(f"{repository} has {none_of(names)}")


def read_torch(path: Path) -> Any:
    """Read what ``torch.save`` wrote; nothing in it is executed.

    Raises:
        UserError: There is no such file, it is damaged, or it holds more than weights and plain data.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise UserError(f"{path}: it holds more than weights and plain data{what}, so it is not read") from None
    except Exception as error:  # torch's readers raise many kinds for broken files
        raise UserError(f"{path}: no checkpoint, or a damaged one ({error})") from None


def load_strictly(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict whole, or raise and change nothing.

    Raises:
        UserError: As ``check_fit``.
    """
    check_fit(module, state, source)
    module.load_state_dict(state)


def check_fit(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """See that a state dict has exactly a module's names and shapes.

    Raises:
        UserError: Keys are missing, unexpected or mis-shaped: a short table of them.
    """
    own = module.state_dict()
    faults = [f"missing     {key} {list(own[key].shape)}" for key in own if key not in state]
    faults += [f"unexpected  {key} {list(state[key].shape)}" for key in state if key not in own]
    faults += [
        f"mis-shaped  {key} {list(state[key].shape)}, wanted {list(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if faults:
        shown = "\n  ".join(faults[:10] + ([f"… and {len(faults) - 10} more"] if len(faults) > 10 else []))
        raise UserError(f"{source}: these weights are not of this model; nothing was loaded:\n  {shown}")


def weights_hash(module: nn.Module) -> str:
    """What names a module's weights: 12 hexadecimal digits of the SHA-256 of its state dict.

    Names, types, shapes and values count; neither the device does nor the order of the names.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def none_of(names: Sequence[str]) -> str:
    """Words for the lack of these files: ``neither a nor b``."""
    return f"no {names[0]}" if len(names) == 1 else f"neither {' nor '.join(names)}"
