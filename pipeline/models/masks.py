"""Visibility as a rule over indices, and as the mask that the rule makes.

There is one rule: spread over all indices it gives the dense mask, handed to FlexAttention it lets
the kernel skip what is hidden.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.data.example import MIXED_KINDS, Visibility, VisibilityKind

# Whether in example b query i sees key j, places counted from the first key; integer tensors.
Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


def mask_of(
    visibility: Visibility,
    queries: int,
    keys: int,
    *,
    first_query: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor | None:
    """True where a query may see a key, [batch or 1, 1, queries, keys]; None if all is visible.

    Query number 0 stands at the place of key number `first_query`.
    """
    rule = rule_of(visibility, keys, first_query)
    if rule is None:
        return None
    if visibility.key_segments is not None:
        device = visibility.key_segments.device
    b = torch.arange(batch_of(visibility) or 1, device=device).view(-1, 1, 1, 1)
    i = torch.arange(first_query, first_query + queries, device=device).view(1, 1, queries, 1)
    j = torch.arange(keys, device=device).view(1, 1, 1, keys)
    return rule(b, i, j)


def batch_of(visibility: Visibility) -> int | None:
    """Number of examples whose visibilities differ; None if one mask serves all."""
    by_example = (visibility.key_segments, visibility.prefix, visibility.kinds)
    return next((len(given) for given in by_example if given is not None), None)


def rule_of(visibility: Visibility, keys: int, first_query: int = 0) -> Rule | None:
    """The rule of this visibility; None if every query sees every key."""
    parts = [_rule_of_kind(visibility.kind, visibility, keys)]
    parts.append(_rule_of_segments(visibility, first_query))
    if visibility.window is not None:
        window = visibility.window
        parts.append(lambda _b, i, j: (i - j).abs() <= window)
    rules = [part for part in parts if part is not None]
    if not rules:
        return None

    def rule(b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = rules[0](b, i, j)
        for other in rules[1:]:
            seen = seen & other(b, i, j)
        return seen

    return rule


def _rule_of_kind(kind: VisibilityKind, visibility: Visibility, keys: int) -> Rule | None:
    match kind:
        case "all":
            return None
        case "causal":
            return lambda _b, i, j: j <= i
        case "reverse":
            return lambda _b, i, j: j >= i
        case "except_self":
            return lambda _b, i, j: j != i
        case "prefix":
            inside = in_prefix(visibility, keys)
            return lambda b, i, j: inside[b, j] | (j <= i)
        case "mixed":
            return _rule_of_mixture(visibility, keys)


def _rule_of_mixture(visibility: Visibility, keys: int) -> Rule:
    codes = visibility.kinds
    assert codes is not None, "kind 'mixed' needs the kind of each example"
    rules = {
        MIXED_KINDS.index(kind): _rule_of_kind(kind, visibility, keys)
        for kind in MIXED_KINDS
        if kind != "prefix" or visibility.prefix is not None
    }

    def rule(b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = codes[b] < 0
        for code, own in rules.items():
            chosen = codes[b] == code
            seen = seen | (chosen if own is None else chosen & own(b, i, j))
        return seen

    return rule


def _rule_of_segments(visibility: Visibility, first_query: int) -> Rule | None:
    own, other = visibility.query_segments, visibility.key_segments
    if other is None:
        assert own is None, "segments of queries need segments of keys"
        return None
    if own is None:
        return lambda b, _i, j: other[b, j] > 0
    return lambda b, i, j: (own[b, i - first_query] == other[b, j]) & (other[b, j] > 0)


def in_prefix(visibility: Visibility, keys: int) -> Tensor:
    """Whether each key belongs to a prefix, which all of its segment may see. [batch, keys]."""
    prefix = visibility.prefix
    assert prefix is not None, "kind 'prefix' needs the lengths of the prefixes"
    if prefix.dim() == 2:
        return prefix.bool()
    return torch.arange(keys, device=prefix.device)[None] < prefix[:, None]
