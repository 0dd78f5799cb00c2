"""MinHash: a short signature of a text's shingles, whose agreement estimates their Jaccard index.

A shingle is a run of a few words; its 64-bit hash is permuted by multiply-shift, once for each number
of the signature, and the smallest value is kept. Source: Broder 1997, "On the resemblance and
containment of documents". The estimate of J from n numbers has variance J(1 - J) / n.
"""

from collections.abc import Sequence

import numpy as np
from rensa import RMinHash

from data_prep.dedup.words import gram_hashes, gram_places, words_of


def shingles(texts: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint64 hashes of the shingles of `size` words of each text, and int64 [texts] how many.

    A text of fewer words is one shingle.
    """
    words = words_of(texts)
    counts, hashes = words.counts, words.hashes
    missing = np.maximum(size - counts, 0)
    if missing.any():
        hashes = np.insert(hashes, np.repeat(np.cumsum(counts), missing), np.uint64(0))
        counts = counts + missing
    return gram_hashes(hashes, size)[gram_places(counts, size)], counts - size + 1


def signatures(texts: Sequence[str], *, size: int, permutations: int, seed: int) -> np.ndarray:
    """uint32 [texts, permutations] over shingles of `size` words."""
    if not texts:
        return np.zeros((0, permutations), dtype=np.uint32)
    grams, counts = shingles(texts, size)
    offsets = [0, *np.cumsum(counts).tolist()]
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(grams, offsets, permutations, seed)
    return np.array(matrix.to_rows(), dtype=np.uint32)


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int64 [pairs] how many numbers of two rows of signatures, [pairs, permutations], are the
    same.
    """
    return np.count_nonzero(first == second, axis=-1)


def jaccard(first: str, second: str, size: int) -> float:
    """The true Jaccard index of the shingles of two texts (up to collisions of 64-bit hashes)."""
    one, other = (np.unique(shingles([text], size)[0]) for text in (first, second))
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)
