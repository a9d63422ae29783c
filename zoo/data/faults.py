"""What a checked file has wrong, one thing at a time."""

from dataclasses import dataclass

from zoo.errors import UserError


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where, and what."""

    place: str  # file, or file:line
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def raise_or_list(fault: UserError, faults: list[str] | None) -> None:
    """Raise a fault, or add it to the list of what is left out where there is one."""
    if faults is None:
        raise fault
    faults.append(str(fault))
