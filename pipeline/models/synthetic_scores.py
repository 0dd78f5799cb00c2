"""Scores that no pair of tokens makes: from one token alone, or from positions alone.

The idea: such scores are indexed by the key's position inside its document, so a table as wide as
the longest document holds them all. A `Placing` says which rows and columns of the table a batch
uses: a corner of it where every row is one document, gathered ones where rows are packed.
(Tay et al. 2020, Synthesizer.)
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Placing(NamedTuple):
    """Positions of queries and keys; None where place number n stands at position `first` + n."""

    queries: Tensor | None  # [1 or B, Q]
    keys: Tensor | None  # [1 or B, K]
    num_queries: int
    num_keys: int
    first_query: int = 0
    longest: int | None = None  # tokens of the longest document, where reading it stops no device

    @property
    def width(self) -> int | None:
        """How many columns of scores are needed; None: all, to gather from."""
        return self.num_keys if self.keys is None else None

    def rows(self, table: Tensor) -> Tensor:
        """Rows of a table [H, L, n] for the queries. [1 or B, H, Q, n]."""
        return _rows(table, self.queries, self.first_query, self.num_queries)

    def key_rows(self, table: Tensor) -> Tensor:
        """Rows of a table [H, L, n] for the keys. [1 or B, H, K, n]."""
        return _rows(table, self.keys, 0, self.num_keys)

    def columns(self, scores: Tensor) -> Tensor:
        """Columns of scores [B, H, Q, L] for the keys. [B, H, Q, K]."""
        if self.keys is None:
            return scores[..., : self.num_keys]
        batch = max(scores.shape[0], self.keys.shape[0])
        index = self.keys[:, None, None, :].expand(batch, *scores.shape[1:3], -1)
        return scores.expand(batch, -1, -1, -1).gather(3, index)


def _rows(table: Tensor, positions: Tensor | None, first: int, count: int) -> Tensor:
    if positions is None:
        return table[None, :, first : first + count]
    return table[:, positions].transpose(0, 1)


class RandomScores(nn.Module):
    """A trained number per head and pair of positions, R [H, L, L]."""

    def __init__(self, num_heads: int, length: int, std: float) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(num_heads, length, length).normal_(std=std))

    def forward(self, placing: Placing) -> Tensor:
        return placing.columns(placing.rows(self.table))


class FixedRandomScores(nn.Module):
    """Numbers per head and pair of positions that are drawn once and never trained."""

    table: Tensor

    def __init__(self, num_heads: int, length: int, std: float, rng: np.random.Generator) -> None:
        super().__init__()
        shape = (num_heads, length, length)
        self.register_buffer("table", torch.empty(shape))
        if not self.table.is_meta:
            self.table.copy_(torch.from_numpy(std * rng.standard_normal(shape, np.float32)))

    def forward(self, placing: Placing) -> Tensor:
        return placing.columns(placing.rows(self.table))


class FactorisedRandomScores(nn.Module):
    """R = R1 R2^T with R1 and R2 [H, L, rank]."""

    def __init__(self, num_heads: int, length: int, std: float, rank: int) -> None:
        super().__init__()
        shape = (num_heads, length, rank)
        narrow = std**0.5 * rank**-0.25  # the product's numbers have deviation `std`
        self.of_queries = nn.Parameter(torch.empty(shape).normal_(std=narrow))
        self.of_keys = nn.Parameter(torch.empty(shape).normal_(std=narrow))

    def forward(self, placing: Placing) -> Tensor:
        return placing.rows(self.of_queries) @ placing.key_rows(self.of_keys).mT


class PerHead(nn.Module):
    """W h + b with W and b of each head, [B, H, Q, width_in] to [B, H, Q, width_out]."""

    def __init__(self, num_heads: int, width_in: int, width_out: int) -> None:
        super().__init__()
        shape = (num_heads, width_in, width_out)
        self.weight = nn.Parameter(torch.empty(shape).normal_(std=width_in**-0.5))
        self.bias = nn.Parameter(torch.zeros(num_heads, 1, width_out))

    def forward(self, states: Tensor, width: int | None = None) -> Tensor:
        """The first `width` outputs, or all."""
        return states @ self.weight[..., :width] + self.bias[..., :width]


def head_slices(x_q: Tensor, num_heads: int) -> Tensor:
    """Each head's slice of every token, [B, Q, D] to [B, H, Q, D / H]."""
    return x_q.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class DenseScores(nn.Module):
    """W2 relu(W1 x + b1) + b2: one number per position of a key, from the query's token alone.

    x is the head's slice of the token, `slice_size` wide.
    """

    def __init__(self, num_heads: int, slice_size: int, size: int, length: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.hidden = PerHead(num_heads, slice_size, size)
        self.readout = PerHead(num_heads, size, length)

    def forward(self, x_q: Tensor, placing: Placing) -> Tensor:
        hidden = self.hidden(head_slices(x_q, self.num_heads)).relu()
        return placing.columns(self.readout(hidden, placing.width))


class FactorisedDenseScores(nn.Module):
    """Products of two short vectors per token: score j is first[j // b] second[j mod b].

    One vector is repeated and the other tiled, so that all a b products are different ones.
    """

    def __init__(self, num_heads: int, slice_size: int, size: int, length: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        a, b = factors_of(length)
        self.hidden = PerHead(num_heads, slice_size, size)
        self.first = PerHead(num_heads, size, a)
        self.second = PerHead(num_heads, size, b)

    def forward(self, x_q: Tensor, placing: Placing) -> Tensor:
        hidden = self.hidden(head_slices(x_q, self.num_heads)).relu()
        products = self.first(hidden)[..., :, None] * self.second(hidden)[..., None, :]
        return placing.columns(products.flatten(-2))


def factors_of(length: int) -> tuple[int, int]:
    """a <= b, close to each other, with a b = `length`; for a prime or the like a b > `length`.

    >>> factors_of(512), factors_of(97)
    ((16, 32), (10, 10))
    """
    root = int(length**0.5)
    for a in range(root, 0, -1):
        if length % a == 0 and length // a <= 4 * a:
            return a, length // a
    b = root + (root * root < length)
    return -(-length // b), b


class SharedDenseScores(nn.Module):
    """relu(q) P with the query's usual projection q and one P for all heads: the released code's
    `dense_minus`. Reads projected queries [B, H, Q, d]."""

    def __init__(self, size: int, length: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(size, length).normal_(std=size**-0.5))

    def forward(self, query: Tensor, placing: Placing) -> Tensor:
        return placing.columns(query.relu() @ self.table[:, : placing.width])
