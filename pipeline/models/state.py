"""Attention as sums of keys and values through a feature map: who sees what, without scores.

The idea: a weight that is a product of features, f(q) . g(k), lets a query read one sum over all
the keys it sees. Every kind of visibility becomes a few such sums over the keys before a query, its
own, and those after it; a column of ones beside the values gives the sum of the weights. While a
sequence grows, the sums are all that has to be remembered.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.example import MIXED_KINDS, Visibility
from pipeline.models.attention import View
from pipeline.models.masks import in_prefix
from pipeline.models.precision import own_precision
from pipeline.models.prefix_sums import Sides, side_sums

BOTH = Sides(before=True, own=True, after=True)
CAUSAL = Sides(before=True, own=True, after=False)
REVERSE = Sides(before=False, own=True, after=True)
OTHERS = Sides(before=True, own=False, after=True)
EARLIER = Sides(before=True, own=False, after=False)
LATER = Sides(before=False, own=False, after=True)

SMALLEST_SHARE = 0.5  # of a type's largest exponent, downwards
FEW_DOCUMENTS = 2  # up to here one total per document costs less than sums that flow both ways


@dataclass(frozen=True, kw_only=True)
class SummedView(View):
    """A view as sums need it, made once for all layers of a stack.

    `runs` [B, K] numbers the documents of the keys; padding belongs to the document before it.
    `documents` is the highest number of a document, where reading it does not stop the device.
    """

    runs: Tensor | None
    documents: int | None


def summed(view: View) -> SummedView:
    """`view` with what sums need of it."""
    if isinstance(view, SummedView):
        return view
    own, other = view.visibility.query_segments, view.visibility.key_segments
    runs, documents = None, None
    if own is not None and other is not None:
        runs = _filled(other) if own is other or _aligned(view) else None
        if other.device.type == "cpu":
            documents = int(other.max())
    fields = {field.name: getattr(view, field.name) for field in dataclasses.fields(View)}
    return SummedView(**fields, runs=runs, documents=documents)


def _aligned(view: View) -> bool:
    """Whether queries and keys are the same places of one sequence."""
    return view.visibility.kind != "all" and view.queries == view.keys


def _filled(segments: Tensor) -> Tensor:
    """Segments [B, T] with padding given to the document before it."""
    place = torch.arange(segments.shape[1], device=segments.device).expand(segments.shape)
    return segments.gather(1, (place * (segments > 0)).cummax(dim=1).values)


def _marked(states: Tensor, chosen: Tensor | None) -> Tensor:
    """`states` [B, H, T, m], zero where not `chosen` [B or 1, T]."""
    return states if chosen is None else states * chosen[:, None, :, None].to(states.dtype)


def seen_sums(query: Tensor, key: Tensor, value: Tensor, view: View) -> Tensor:
    """Sum of (query_i . key_j) value_j over the j that i sees by `view`.

    query [B, H, Q, m], key [B, H, K, m] and value [B, H, K, e], float32 or float64, give
    [B, H, Q, e]: zeros for a query that sees nothing. Kinds other than "all" need Q = K. A key that
    a query does not see has no part in its sum, to the last bit. Documents lie in one piece.
    """
    view = summed(view)
    visibility = view.visibility
    own, other = visibility.query_segments, visibility.key_segments
    assert visibility.window is None, "sums have no window"
    key = _marked(key, None if other is None else other > 0)
    one_sum = own is None or (view.documents is not None and view.documents <= FEW_DOCUMENTS)
    if visibility.kind == "all" and (view.runs is None or one_sum):
        return _totals(query, key, value, view)
    sums = _sums_by_kind(query, key, value, visibility, view.runs)
    return _marked(sums, None if own is None else own > 0)


def _sums_by_kind(
    query: Tensor, key: Tensor, value: Tensor, visibility: Visibility, runs: Tensor | None
) -> Tensor:
    """`seen_sums` where queries and keys are the same places; padded keys are zero already."""
    match visibility.kind:
        case "all":
            return side_sums(query, key, value, BOTH, runs)
        case "causal":
            return side_sums(query, key, value, CAUSAL, runs)
        case "reverse":
            return side_sums(query, key, value, REVERSE, runs)
        case "except_self":
            return side_sums(query, key, value, OTHERS, runs)
        case "prefix":
            shown = _marked(key, in_prefix(visibility, key.shape[2]).to(key.device))
            past = side_sums(query, key, value, CAUSAL, runs)
            return past + side_sums(query, shown, value, LATER, runs)
        case "mixed":
            return _sums_of_mixture(query, key, value, visibility, runs)


def _sums_of_mixture(
    query: Tensor, key: Tensor, value: Tensor, visibility: Visibility, runs: Tensor | None
) -> Tensor:
    """Every example of the batch by its own kind; all of these kinds see themselves."""
    assert visibility.kinds is not None, "kind 'mixed' needs the kind of each example"
    code = {kind: visibility.kinds.to(key.device) == n for n, kind in enumerate(MIXED_KINDS)}
    later = (code["all"] | code["reverse"])[:, None]
    if visibility.prefix is not None:
        shown = in_prefix(visibility, key.shape[2]).to(key.device)
        later = later | (code["prefix"][:, None] & shown)
    own = (query * key).sum(dim=-1, keepdim=True) * value
    past = side_sums(query, _marked(key, ~code["reverse"][:, None]), value, EARLIER, runs)
    return past + own + side_sums(query, _marked(key, later), value, LATER, runs)


def _totals(query: Tensor, key: Tensor, value: Tensor, view: SummedView) -> Tensor:
    """Sums over whole documents, from one sequence to another or to itself.

    One total per document costs documents (Q + K) m e, all products one by one Q K (m + e): the
    cheaper way is taken, the second where the number of documents is not known.
    """
    own, other = view.visibility.query_segments, view.visibility.key_segments
    with own_precision(query):
        if own is None or other is None:
            return query @ (key.mT @ value)
        queries, keys, width, size = query.shape[2], *key.shape[2:], value.shape[3]
        known = view.documents
        if known is None or known * (queries + keys) * width * size > queries * keys * (
            width + size
        ):
            return ((query @ key.mT) * (own[:, None, :, None] == other[:, None, None, :])) @ value
        sums = torch.zeros(1, dtype=query.dtype, device=query.device)
        for number in range(1, max(known, 1) + 1):
            total = _marked(key, other == number).mT @ value
            sums = sums + _marked(query, own == number) @ total
        return sums


class SumCache:
    """Sums over all places so far, [B, H, m, e]; `fixed` ones are those of another sequence.

    The newest places can be taken back: the sums before them are kept beside them.
    """

    def __init__(self, *, fixed: bool) -> None:
        self.fixed = fixed
        self.sums: Tensor | None = None
        self._newest: tuple[Tensor | None, Tensor, Tensor] | None = None

    @property
    def filled(self) -> bool:
        """Whether this holds all of another sequence."""
        return self.fixed and self.sums is not None

    def add(self, key: Tensor, value: Tensor) -> None:
        """Add new places: key [B, H, n, m], zero at padding, and value [B, H, n, e]."""
        self._newest = (self.sums, key, value)
        total = key.mT @ value
        self.sums = total if self.sums is None else self.sums + total

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch."""
        if self.sums is not None and self._newest is not None:
            before, key, value = self._newest
            self._newest = (None if before is None else before[rows], key[rows], value[rows])
            self.sums = self.sums[rows]

    def forget(self, count: int) -> None:
        """Take back the newest `count` places, which came with the last call; what is fixed stays."""
        if count and not self.fixed and self._newest is not None:
            self.sums, key, value = self._newest
            self.add(key[:, :, :-count], value[:, :, :-count])


def of_newest(view: View) -> View:
    """What new queries see of each other, when they are the newest of the keys of `view`."""
    if not view.first_query:
        return view
    first, seen = view.first_query, view.visibility
    other = seen.key_segments
    prefix = None if seen.prefix is None else in_prefix(seen, view.keys)[:, first:]
    newest = None if other is None else other[:, first:]
    own = None if seen.query_segments is None else newest
    visible = Visibility(seen.kind, own, newest, prefix, seen.kinds, seen.window)
    return View(visible, view.queries, view.queries, view.device)


def sums_with(
    cache: SumCache | None,
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    view: View,
) -> Tensor:
    """`seen_sums`, where `cache` remembers all places before these, which join it.

    Earlier places are seen whole, so a cached row is one document, and kind "reverse" has no cache.
    A fixed cache is filled by the first call; later ones read it and need no `key` and `value`.
    """
    with own_precision(query):
        if cache is not None and cache.filled:
            assert cache.sums is not None
            return query @ cache.sums
        assert key is not None
        assert value is not None
        if cache is None:
            return seen_sums(query, key, value, view)
        assert view.visibility.kind != "reverse", "what comes later cannot be cached"
        among = of_newest(view)
        other = among.visibility.key_segments
        earlier = cache.sums
        cache.add(_marked(key, None if other is None else other > 0), value)
        sums = seen_sums(query, key, value, among)
        if earlier is None:
            return sums
        own = among.visibility.query_segments
        return sums + _marked(query, None if own is None else own > 0) @ earlier


def with_ones(value: Tensor) -> Tensor:
    """`value` [..., d] with a last column of ones, whose sum is that of the weights."""
    return torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)


def mean_of(sums: Tensor) -> Tensor:
    """Weighted means from sums of `with_ones` values, [..., d + 1] to [..., d]; zero if no weight.

    The guard is on the sum of the weights alone: features stay as they are.
    """
    return sums[..., :-1] / guarded(sums[..., -1:])


def guarded(total: Tensor) -> Tensor:
    """`total`, a sum of weights, to divide by: 1 where it is too small for finite gradients.

    That is below e^-44 in float32, e^-354 in float64.
    """
    return total.masked_fill(total < torch.finfo(total.dtype).max ** -SMALLEST_SHARE, 1.0)
