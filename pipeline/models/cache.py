"""What score-based mixers remember while a sequence grows: keys and values of every token so far."""

import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values [B, G, K, d] of all places so far; `fixed` ones are those of another sequence.

    Keys are kept as they enter the scores (already turned by rotary positions).
    """

    def __init__(self, *, fixed: bool) -> None:
        self.fixed = fixed
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def grown(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new places and give all of them."""
        if self.key is not None and self.value is not None:
            key = torch.cat([self.key, key], dim=2)
            value = torch.cat([self.value, value], dim=2)
        self.key, self.value = key, value
        return key, value

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key[rows], self.value[rows]

    def forget(self, count: int) -> None:
        """Take back the newest `count` places; what is fixed stays."""
        if count and not self.fixed and self.key is not None and self.value is not None:
            self.key, self.value = self.key[:, :, :-count], self.value[:, :, :-count]
