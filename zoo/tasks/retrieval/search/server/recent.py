"""What was used last, kept within a limit."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept")


class Recent(Generic[Key, Kept]):
    """A cache that lets go of what was used longest ago; for several threads.

    Args:
        limit: The most that it keeps.
        size: Gives how much of the limit a value takes, such as its bytes.
    """

    def __init__(self, limit: int, size: Callable[[Kept], int]) -> None:
        self._limit, self._size, self._held = limit, size, 0
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key) -> Kept | None:
        """Give what is kept under a key; None where nothing is."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Key, value: Kept) -> None:
        """Keep a value, in the place of the key's own and of those used longest ago; none above the limit."""
        size = self._size(value)
        with self._lock:
            if key in self._kept:
                self._held -= self._size(self._kept.pop(key))
            if size > self._limit:
                return
            self._kept[key] = value
            self._held += size
            while self._held > self._limit:
                self._held -= self._size(self._kept.popitem(last=False)[1])
