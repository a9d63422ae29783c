"""What a transformer keeps of the places that it has read: keys and values."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """One layer's keys and values in memory that is taken once: transformers' own grows by copying all of it.

    What has been filled is handed over; all of it, where a ``position [1] int64`` says what is filled now.

    Args:
        length: Places of the whole sequence.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.filled = 0
        self.position: Tensor | None = None
        self.keys: Any
        self.values: Any

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the memory, by the shape of the first keys."""
        super().lazy_initialization(key_states, value_states)
        shape = (*key_states.shape[:2], self.length, key_states.shape[3])
        self.keys, self.values = key_states.new_zeros(shape), value_states.new_zeros(shape)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Fill in keys and values ``[B, heads, T, width]``; gives what attention reads."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.position is not None:
            self.keys.index_copy_(2, self.position, key_states)
            self.values.index_copy_(2, self.position, value_states)
            return self.keys, self.values
        until = self.filled + key_states.shape[2]
        self.keys[:, :, self.filled : until] = key_states
        self.values[:, :, self.filled : until] = value_states
        self.filled = until
        return self.keys[:, :, :until], self.values[:, :, :until]

    def get_seq_length(self) -> int:
        """Count the places that are filled."""
        return self.filled
