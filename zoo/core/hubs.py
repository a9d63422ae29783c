"""The Hugging Face hub, its mirrors, and ModelScope: what is in their caches first, and nothing waited for long."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import huggingface_hub
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError

from zoo.errors import UserError
from zoo.io import read_json

MODELSCOPE = "modelscope:"  # before a model's name there: modelscope:AI-ModelScope/siglip-base-patch16-224
MODELSCOPE_ENDPOINT = "https://www.modelscope.cn"
WEIGHTS = (["*.safetensors"], ["*.bin"])  # patterns of a model's, the better ones first
BROKEN = (OSError, ValueError, TypeError, KeyError, StrictDataclassError, SafetensorError)  # of libraries that read
KEPT = 30.0  # seconds for which a hub's answer holds: a name is looked for in several ways
_asked: dict[str, tuple[float, str | None]] = {}
Found = TypeVar("Found")


class UnavailableError(Exception):
    """Published weights cannot be had now; the message is the reason, in one line."""


class NoHubError(UserError):
    """A name on the hub cannot be had now, for this reason."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def cache_then_hub(read: Callable[[str, bool], Found], name: str, *kinds: Sequence[str]) -> Found:
    """Read a model's files by its library: of a folder, of the cache, else of the hub where that answers.

    Args:
        read: Called with a folder or a hub name, and whether only what is cached may be read.
        name: A folder, or a name of either hub.
        *kinds: As of ``local_name``.

    Raises:
        UnavailableError: They cannot be had.
        UserError: What ``read`` raises.
    """
    place = local_name(name, *kinds)
    try:
        return read(place, True)
    except UserError:
        raise
    except BROKEN as error:
        reason = first_line(error) if Path(place).is_dir() else unreachable()
    if reason is not None:
        raise UnavailableError(reason)
    try:
        return read(place, False)
    except UserError:
        raise
    except BROKEN as error:
        raise UnavailableError(first_line(error)) from error


def unreachable(endpoint: str | None = None, timeout: float = 3.0) -> str | None:
    """Ask the hub for a sign of life; its own clients retry for half a minute before they say no.

    Args:
        endpoint: Its address; None: that of the Hugging Face hub, or of its mirror in ``$HF_ENDPOINT``.
        timeout: Seconds to wait for one.

    Returns:
        Why it cannot be asked, in one line, or None when it answers.
    """
    if huggingface_hub.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    address = endpoint or constants.ENDPOINT
    asked, answer = _asked.get(address, (-math.inf, None))
    if time.monotonic() - asked > KEPT:
        try:
            huggingface_hub.get_session().head(address, timeout=timeout)
            answer = None
        except Exception as error:
            answer = f"the hub cannot be reached: {first_line(error)} ({address})"
        _asked[address] = time.monotonic(), answer
    return answer


def local_name(name: str, *kinds: Sequence[str]) -> str:
    """Give the folder of ModelScope's cache that ``modelscope:OWNER/NAME`` means; any other name as it is.

    Args:
        name: A name of either hub, or a path.
        *kinds: Patterns of the files that are wanted, such as ``["*.json"]``; of several kinds the first that there
            is. What is not cached is downloaded now.

    Raises:
        UnavailableError: There is no such model in the cache, and ModelScope cannot give it; or its client is missing.
    """
    if not name.startswith(MODELSCOPE):
        return name
    folder = _modelscope_cache(name)
    if folder is not None and any(_whole(folder, kind) for kind in kinds):
        return str(folder)
    reason = unreachable(MODELSCOPE_ENDPOINT)
    if reason is not None:
        raise UnavailableError(reason)
    from modelscope.hub.snapshot_download import snapshot_download

    for kind in kinds:
        try:
            folder = Path(snapshot_download(name.removeprefix(MODELSCOPE), allow_patterns=[*kind]))
        except Exception as error:  # its client raises many kinds
            raise UnavailableError(first_line(error)) from error
        if _whole(folder, kind):
            break
    return str(folder)


def _modelscope_cache(name: str) -> Path | None:
    """The folder of a model in ModelScope's cache, if it is there."""
    try:
        from modelscope.hub.snapshot_download import snapshot_download
    except ImportError as error:
        raise UnavailableError(f"modelscope is not installed: pip install 'muge-zoo[modelscope]' ({error})") from None
    from modelscope_hub.errors import HubError

    try:
        return Path(snapshot_download(name.removeprefix(MODELSCOPE), local_files_only=True))
    except (HubError, OSError, ValueError):  # it is not cached, or is no name
        return None


def _whole(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether a folder has such files, and all that an index of weights in several files names."""
    for index in folder.rglob("*.index.json"):
        shards = [Path(name) for name in {*read_json(index).get("weight_map", {}).values()}]
        wanted = [shard for shard in shards if any(shard.match(pattern) for pattern in patterns)]
        if not all((index.parent / shard).is_file() for shard in wanted):
            return False
    return any(any(folder.rglob(pattern)) for pattern in patterns)


def cached_file(repository: str, names: Sequence[str]) -> Path | None:
    """The first of these files of a hub repository that lies in the cache of its hub, or None."""
    if repository.startswith(MODELSCOPE):
        folder = _modelscope_cache(repository)
        return next((folder / name for name in names if folder and (folder / name).is_file()), None)
    try:
        found = [try_to_load_from_cache(repository, name) for name in names]
    except HFValidationError:  # it is no name of a repository
        return None
    return next((Path(path) for path in found if isinstance(path, str)), None)


def hub_file(repository: str, names: Sequence[str]) -> Path:
    """The first of these files that a hub repository has: cached, or downloaded now.

    Raises:
        UnavailableError: It is not cached and cannot be downloaded, or there is none of them.
    """
    if "://" in repository:
        raise UnavailableError("they are not on the hub; download that file and give its path")
    if repository.startswith(MODELSCOPE):
        folder = Path(local_name(repository, *([name] for name in names)))
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is None:
            raise UnavailableError(f"{repository} has {none_of(names)}")
        return found
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


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def none_of(names: Sequence[str]) -> str:
    """Words for the lack of these files: ``neither a nor b``."""
    return f"no {names[0]}" if len(names) == 1 else f"neither {' nor '.join(names)}"
