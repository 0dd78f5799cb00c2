"""Where a token stands: positions in packed rows, and the ways to tell them to attention.

T5's relative bias and ALiBi are added to scores, rotary turns queries and keys, sinusoids are added
to embeddings. All of them see positions inside a document, never the place in a packed row.
"""

import math

import torch
from torch import Tensor, nn

EXACT_BUCKETS_SHARE = 2  # T5: one half of the buckets of a direction holds single distances
SINUSOID_BASE = 10_000.0


def positions_in_segments(
    segments: Tensor | None, length: int, device: torch.device | str
) -> Tensor:
    """Distance of each place from the start of its run of equal `segments` [B, T]; int64 [B, T].

    Without segments the row is one run: [1, T].
    """
    if segments is None:
        return torch.arange(length, device=device)[None]
    place = torch.arange(segments.shape[1], device=segments.device).expand(segments.shape)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return place - (place * starts).cummax(dim=1).values


def relative_bucket(
    distance: Tensor, *, both_sides: bool, num_buckets: int, max_distance: int
) -> Tensor:
    """T5's bucket of each `distance` = key position - query position (int64, any shape).

    Half of the buckets hold one distance each, the others grow geometrically up to `max_distance`.
    With `both_sides` each direction gets half of the buckets, keys after the query the upper one;
    without, keys after the query share bucket 0 with the query itself (Raffel et al. 2019, 2.1).
    """
    start = torch.zeros_like(distance)
    if both_sides:
        num_buckets //= 2
        start = (distance > 0).long() * num_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = num_buckets // EXACT_BUCKETS_SHARE
    ratio = torch.log(distance.clamp(min=1).double() / exact) / math.log(max_distance / exact)
    wide = (exact + (ratio * (num_buckets - exact)).long()).clamp(max=num_buckets - 1)
    return start + torch.where(distance < exact, distance, wide)


def distances(queries: int, keys: int, first_query: int, device: torch.device | None) -> Tensor:
    """Key place minus query place, int64 [queries, keys].

    Within one packed document these are differences of positions, so segments need no care.
    """
    places = torch.arange(first_query, first_query + queries, device=device)
    return torch.arange(keys, device=device)[None] - places[:, None]


class RelativeBias(nn.Module):
    """T5's relative position bias: a learned number per bucket and head, one table a stack."""

    def __init__(
        self, num_heads: int, *, both_sides: bool, num_buckets: int, max_distance: int
    ) -> None:
        super().__init__()
        self.both_sides = both_sides
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.table = nn.Embedding(num_buckets, num_heads)

    def forward(
        self, queries: int, keys: int, first_query: int = 0, device: torch.device | None = None
    ) -> Tensor:
        """The bias of every query and key by index. [1, heads, queries, keys]."""
        buckets = relative_bucket(
            distances(queries, keys, first_query, device or self.table.weight.device),
            both_sides=self.both_sides,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        bias: Tensor = self.table(buckets)
        return bias.permute(2, 0, 1)[None].contiguous()


class AlibiBias(nn.Module):
    """ALiBi (Press et al. 2022, section 3): scores fall linearly with distance, at a rate per head.

    Keys after the query are as far as keys before it.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(
        self, queries: int, keys: int, first_query: int = 0, device: torch.device | None = None
    ) -> Tensor:
        """The bias of every query and key by index, float32. [1, heads, queries, keys]."""
        slopes = torch.tensor(alibi_slopes(self.num_heads), device=device).view(1, -1, 1, 1)
        return -slopes * distances(queries, keys, first_query, device).abs()


def alibi_slopes(num_heads: int) -> list[float]:
    """How fast the scores of each head fall with distance: 2^(-8 h / H) for head h of H, from 1.

    For H that is no power of two: those of the next lower power, then every second one of the next
    higher, as in the authors' code.

    >>> alibi_slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    power = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * h / power) for h in range(1, power + 1)]
    between = [2.0 ** (-4.0 * h / power) for h in range(1, 2 * power + 1, 2)]
    return slopes + between[: num_heads - power]


class Rotary:
    """Rotary position embedding (Su et al. 2021): feature i is paired with i + size / 2.

    Pair i of a head of `size` is turned by position / base^(2 i / size). Angles are float32 whatever
    the states are, float64 for float64 states.
    """

    def __init__(self, size: int, base: float) -> None:
        assert size % 2 == 0, size
        self.size = size
        self.base = base

    def turned(self, states: Tensor, positions: Tensor) -> Tensor:
        """`states` [B, H, T, size] turned by `positions` [1 or B, T]; their products with others'
        depend on differences of positions only."""
        wide = torch.promote_types(states.dtype, torch.float32)
        half = torch.arange(0, self.size, 2, device=states.device, dtype=wide) / self.size
        angles = positions.to(wide)[:, None, :, None] * self.base**-half
        cos, sin = angles.cos(), angles.sin()
        first, second = states.to(wide).chunk(2, dim=-1)
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
        return turned.to(states.dtype)


def sinusoids(positions: Tensor, size: int) -> Tensor:
    """Vaswani et al. 2017, 3.5: feature 2i is sin(p / 10000^(2i / size)), feature 2i + 1 the cosine.

    positions [...] give float32 [..., size]; `size` is even.
    """
    assert size % 2 == 0, size
    pairs = torch.arange(0, size, 2, device=positions.device) / size
    angles = positions[..., None].float() * SINUSOID_BASE**-pairs
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
