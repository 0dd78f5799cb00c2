"""Feature maps of linear attention: what becomes of queries and keys before their products are summed.

The idea: no feature depends on any other place. A maximum over the row would keep exponents small,
but shows earlier queries what comes later; exponents are bounded by a constant instead.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SHARE = (
    0.35  # of a type's largest exponent: leaves room for gradients divided by small sums
)


def wide(states: Tensor) -> Tensor:
    """`states` in float32 at least, which features and their sums need."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def bounded_exp(exponent: Tensor) -> Tensor:
    """e^x, constant beyond x = 31 (float32; 248 in float64), so that sums and gradients stay finite."""
    return exponent.clamp(max=LARGEST_SHARE * math.log(torch.finfo(exponent.dtype).max)).exp()


def scaled_exp(exponent: Tensor) -> Tensor:
    """e^x divided by its largest in each row [..., m]: for queries, whose scale cancels."""
    return (exponent - exponent.detach().amax(dim=-1, keepdim=True)).exp()


def elu1(states: Tensor) -> Tensor:
    """elu(x) + 1 = x + 1 above zero, e^x below (Katharopoulos et al. 2020, equation 7); above zero
    for every x, where adding one to a rounded elu would not be."""
    return states.clamp(min=0) + states.clamp(max=0).exp()


def with_direction(states: Tensor) -> Tensor:
    """[1, x / |x|], so that products are 1 + cosine. [..., d] to [..., d + 1]."""
    return torch.cat([torch.ones_like(states[..., :1]), F.normalize(states, dim=-1)], dim=-1)
