"""What attends to what: visibility as masks, relative position bias, and attention over scores.

The idea: `Visibility` stays data until a mixer needs a mask. A `View` is one visibility over given
positions together with an optional bias; where scores are computed its dense form is made once and
shared by all layers of a stack.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.example import Visibility

EXACT_BUCKETS_SHARE = 2  # T5: one half of the buckets of a direction holds single distances


def mask_of(
    visibility: Visibility, queries: int, keys: int, *, device: torch.device | str = "cpu"
) -> Tensor | None:
    """True where a query may see a key, [batch or 1, 1, queries, keys]; None if all is visible."""
    masks = [_mask_of_kind(visibility, queries, keys, device), _mask_of_segments(visibility)]
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    return given[0] if len(given) == 1 else given[0] & given[1]


def _mask_of_kind(
    visibility: Visibility, queries: int, keys: int, device: torch.device | str
) -> Tensor | None:
    if visibility.kind == "all":
        return None
    if visibility.query_segments is not None:
        device = visibility.query_segments.device
    i = torch.arange(queries, device=device).view(1, 1, queries, 1)
    j = torch.arange(keys, device=device).view(1, 1, 1, keys)
    match visibility.kind:
        case "causal":
            return j <= i
        case "reverse":
            return j >= i
        case "except_self":
            return j != i
        case "prefix":
            assert visibility.prefix is not None, "kind 'prefix' needs the lengths of the prefixes"
            return (j < visibility.prefix.to(j.device).view(-1, 1, 1, 1)) | (j <= i)


def _mask_of_segments(visibility: Visibility) -> Tensor | None:
    own, other = visibility.query_segments, visibility.key_segments
    if other is None:
        assert own is None, "segments of queries need segments of keys"
        return None
    seen = other[:, None, None, :]
    return (seen > 0) if own is None else (own[:, None, :, None] == seen) & (seen > 0)


@dataclass(frozen=True)
class View:
    """One visibility over `queries` x `keys` positions of a device, and an optional score bias.

    `bias` is [1 or batch, heads, queries, keys]. `dense` views also hold what scores need of them.
    """

    visibility: Visibility
    queries: int
    keys: int
    device: torch.device
    bias: Tensor | None = None

    def mask(self) -> Tensor | None:
        """`mask_of` this view."""
        return mask_of(self.visibility, self.queries, self.keys, device=self.device)

    def dense(self) -> "DenseView":
        """This view with its mask made, to be shared by the layers of a stack."""
        mask = self.mask()
        added = self.bias
        if added is None:
            added = mask
        elif mask is not None:
            added = added.masked_fill(~mask, -math.inf)
        return DenseView(
            self.visibility, self.queries, self.keys, self.device, self.bias, added=added
        )


@dataclass(frozen=True, kw_only=True)
class DenseView(View):
    """A view as scores need it: `added` is their mask (bool), or bias with -inf where unseen."""

    added: Tensor | None

    def dense(self) -> "DenseView":
        return self


def attend_reference(query: Tensor, key: Tensor, value: Tensor, view: View, scale: float) -> Tensor:
    """Softmax attention with explicit scores, the definition that fast paths are tested against.

    query [B, H, Q, d], key and value [B, H, K, d] give [B, H, Q, d]. Scores and softmax are float32
    (float64 for float64 inputs). A query that sees no key gets zeros.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = query.to(wide) @ key.to(wide).transpose(-1, -2) * scale
    if view.bias is not None:
        scores = scores + view.bias.to(wide)
    mask = view.mask()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    highest = scores.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(wide).min)
    weights = (scores - highest).exp()
    total = weights.sum(dim=-1, keepdim=True)
    return (weights / total.masked_fill(total == 0, 1.0) @ value.to(wide)).to(query.dtype)


def attend(
    query: Tensor, key: Tensor, value: Tensor, view: View, *, scale: float, dropout: float = 0.0
) -> Tensor:
    """`attend_reference` by PyTorch's fused attention, with dropout on the attention weights."""
    added = view.dense().added
    if added is not None and added.dtype != torch.bool:
        added = added.to(query.dtype)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=added, dropout_p=dropout, scale=scale
    )


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

    def forward(self, queries: int, keys: int) -> Tensor:
        """The bias of every query and key by index. [1, heads, queries, keys].

        Within one packed document index differences are true distances, so segments need no care
        here.
        """
        device = self.table.weight.device
        distance = (
            torch.arange(keys, device=device)[None] - torch.arange(queries, device=device)[:, None]
        )
        buckets = relative_bucket(
            distance,
            both_sides=self.both_sides,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        bias: Tensor = self.table(buckets)
        return bias.permute(2, 0, 1)[None].contiguous()
