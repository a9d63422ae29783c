"""Configurations of transformers models, from the cache or the Hugging Face hub, and whether it can be asked at all.

The hub's own clients retry for half a minute before they say no.
"""

from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants

from zoo.errors import UserError


def unreachable(timeout: float = 3.0) -> str | None:
    """Ask the hub for a sign of life.

    Args:
        timeout: Seconds to wait for one.

    Returns:
        Why it cannot be asked, in one line, or None when it answers.
    """
    if huggingface_hub.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=timeout)
    except Exception as error:
        return f"the hub cannot be reached: {str(error).partition(chr(10))[0] or type(error).__name__}"
    return None


def read_configuration(family: str, name: str) -> tuple[Any, Any]:
    """The configuration and the tokenizer of a folder or hub name: from the cache if they are there, else the hub.

    Args:
        family: The registry's prefix without its colon, for the error.
        name: A folder that ``save_pretrained`` wrote, or a hub name.

    Raises:
        UserError: They cannot be had.
    """
    try:
        return _from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] if Path(name).is_dir() else unreachable()
    if reason is None:
        try:
            return _from_pretrained(name, local_files_only=False)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
    raise UserError(
        f"'{family}:{name}': its configuration and tokenizer cannot be had ({reason})."
        " Give a folder that save_pretrained wrote, or a hub name that is cached or reachable."
    )


def _from_pretrained(name: str, *, local_files_only: bool) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(name, local_files_only=local_files_only)
    return config, AutoTokenizer.from_pretrained(name, local_files_only=local_files_only)
