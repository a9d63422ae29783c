"""The one exception that means "your input": the command line shows its message without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A fault in what the user gave: an argument, a file, a name.

    The message names the argument, the value that came, what is valid, and the fix.
    """


def nearest(name: str, valid: Iterable[str], *, limit: int = 3) -> str:
    """The valid names most like ``name``, as the tail of an error message.

    Returns:
        ``" Did you mean a, b?"``, or an empty string when nothing is near.
    """
    matches = difflib.get_close_matches(name, list(valid), n=limit, cutoff=0.5)
    return f" Did you mean {', '.join(matches)}?" if matches else ""


def last_line(error: Exception) -> str:
    """An error's own words, without the traceback that a loader's worker puts before them."""
    text = str(error)
    return text.rsplit(f"{UserError.__name__}: ", 1)[-1].strip() if "Original Traceback" in text else text
