"""How the layers of a deep stack are shared out among fewer, and which of them those start from.

A split is the sizes of consecutive groups: (2, 2, 2) gives three layers the work of two each, (1, 2, 3) is
uneven. Everything that makes a network shallower speaks of splits.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

Start = Literal["bottom", "alternate", "top"]
Split = tuple[int, ...]


def split_of(depth: int, num_layers: int | None, sizes: Sequence[int] = ()) -> Split | str:
    """The split of `depth` layers: `sizes` where given, else `num_layers` equal groups; or why there is none.

    >>> split_of(6, 3)
    (2, 2, 2)
    """
    if sizes:
        if sum(sizes) == depth:
            return tuple(sizes)
        return f"{list(sizes)}: shares out {sum(sizes)} layers, and there are {depth}"
    assert num_layers is not None
    if num_layers < depth and depth % num_layers == 0:
        return (depth // num_layers,) * num_layers
    fitting = [n for n in range(1, depth) if depth % n == 0]
    allowed = " or ".join(map(str, fitting)) or "a deeper model"
    return f"{num_layers}: does not share out the {depth} layers evenly; use {allowed}, or give a split"


def even_split(depth: int, num_layers: int) -> Split:
    """`num_layers` groups whose sizes differ by one at most, the larger ones on top.

    >>> even_split(8, 3)
    (2, 3, 3)
    """
    borders = [depth * n // num_layers for n in range(num_layers + 1)]
    return tuple(last - first for first, last in itertools.pairwise(borders))


def groups_of(split: Split) -> list[range]:
    """The layers of each group, from 0.

    >>> groups_of((1, 2))
    [range(0, 1), range(1, 3)]
    """
    ends = [sum(split[: n + 1]) for n in range(len(split))]
    return [range(end - size, end) for end, size in zip(ends, split, strict=True)]


def picks_of(split: Split, start: Start) -> list[int]:
    """The layer that each successor begins as: the lowest ones, the first of each group, or the highest.

    >>> picks_of((2, 2, 2), "bottom"), picks_of((2, 2, 2), "alternate"), picks_of((2, 2, 2), "top")
    ([0, 1, 2], [0, 2, 4], [3, 4, 5])
    """
    match start:
        case "bottom":
            return list(range(len(split)))
        case "alternate":
            return [group.start for group in groups_of(split)]
        case "top":
            return list(range(sum(split) - len(split), sum(split)))
