"""Random features of the softmax kernel and their keyed draws (Choromanski et al. 2021, FAVOR+).

The idea: E[f(x) . f(y)] = e^(x . y) for f(x) = e^(w . x - |x|^2 / 2) and w from a unit normal. Rows
w that are orthogonal in blocks make the estimate better and leave it unbiased, if the orthogonal
matrices are uniform: what a QR decomposition gives is not, before the signs of R's diagonal are
moved into Q. (The authors' code omits that, and is off by 15 % for vectors along a diagonal.)
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

RowNorms = Literal["chi", "sqrt_d"]
Rows = Literal["orthogonal", "independent"]
RELU_FLOOR = 1e-3  # the paper's epsilon: no feature is zero


def drawn_rows(
    rng: np.random.Generator, count: int, size: int, rows: Rows, norms: RowNorms
) -> np.ndarray:
    """`count` directions of `size` dimensions, float64 [count, size].

    "orthogonal": in blocks of `size` rows, each from a uniform orthogonal matrix; "independent":
    unit normals. Norms "chi": those of normal vectors, so that every row is one; "sqrt_d": all
    size^1/2 (the paper's SMREG, a regularised kernel).
    """
    if rows == "independent":
        drawn = rng.standard_normal((count, size))
        if norms == "chi":
            return drawn
        return drawn * (math.sqrt(size) / np.linalg.norm(drawn, axis=1, keepdims=True))
    blocks = [_uniform_orthogonal(rng, size) for _ in range(-(-count // size))]
    directions = np.concatenate(blocks)[:count]
    if norms == "sqrt_d":
        return directions * math.sqrt(size)
    return directions * np.linalg.norm(rng.standard_normal((count, size)), axis=1, keepdims=True)


def _uniform_orthogonal(rng: np.random.Generator, size: int) -> np.ndarray:
    """An orthogonal matrix from the uniform (Haar) distribution (Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diagonal(r))


def positive_exponents(states: Tensor, rows: Tensor) -> Tensor:
    """Exponents of positive features: w . x - |x|^2 / 2 - ln(m) / 2. [..., d] to [..., m]."""
    half_norm = states.square().sum(dim=-1, keepdim=True) / 2
    return states @ rows.to(states.dtype).mT - half_norm - math.log(len(rows)) / 2


def hyperbolic_exponents(states: Tensor, rows: Tensor) -> Tensor:
    """Exponents of hyperbolic features: w and -w for every row, [..., d] to [..., 2 m]."""
    half_norm = states.square().sum(dim=-1, keepdim=True) / 2
    reached = states @ rows.to(states.dtype).mT
    return torch.cat([reached, -reached], dim=-1) - half_norm - math.log(2 * len(rows)) / 2


def relu_features(states: Tensor, rows: Tensor) -> Tensor:
    """relu(w . x) + 0.001: generalised attention, no estimate of softmax. [..., d] to [..., m]."""
    return (states @ rows.to(states.dtype).mT).relu() + RELU_FLOOR
