"""Whether the Hugging Face hub can be asked at all: its own clients retry for half a minute before they say no."""

import huggingface_hub
from huggingface_hub import constants


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
