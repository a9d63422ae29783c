"""What a checked file has wrong, one thing at a time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where, and what."""

    place: str  # file, or file:line
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"
