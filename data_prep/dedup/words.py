"""Words and word n-grams as 64-bit hashes: what near duplicates and contamination compare.

A word is a run of letters, marks and digits in lower case; a character of a script written without
blanks is a word by itself. No word is ever cut out of its text: each character has a random number
of 64 bits, the hash of a word is a polynomial in those, and prefix sums over a whole batch of texts
give all words at once (Karp and Rabin 1987, "Efficient randomized pattern-matching algorithms", modulo 2^64 over
tabulated characters). An n-gram is a weighted sum of its words' hashes, scrambled.
"""

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.dedup.tables import mixed
from pipeline.runtime import rng_of

BATCH_CHARACTERS = 1 << 16
BLANK, LETTER, LONE = range(3)
ALL_CHARACTERS, LAST_LETTER = 0x110000, 0x32000
# Thai and Lao, Burmese, Khmer, kana, Han: scripts written without blanks.
UNSPACED = (
    (0x0E00, 0x0F00),
    (0x1000, 0x10A0),
    (0x1780, 0x1800),
    (0x3041, 0x3100),
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x20000, LAST_LETTER),
)


@dataclass(frozen=True)
class Words:
    """The words of several texts: uint64 hashes, int64 first character and end in their own text,
    and int64 [texts] how many each has.
    """

    hashes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    counts: np.ndarray


@functools.cache
def _kinds() -> np.ndarray:
    """uint8 [code points]: whether a character belongs to a word."""
    kinds = np.full(ALL_CHARACTERS, BLANK, dtype=np.uint8)
    for point in range(LAST_LETTER):
        if unicodedata.category(chr(point))[0] in "LMN":
            kinds[point] = LETTER
    for first, end in UNSPACED:
        kinds[first:end][kinds[first:end] == LETTER] = LONE
    return kinds


@functools.cache
def _values() -> np.ndarray:
    """uint64 [code points]: a random number for each character, the same for capital and small."""
    small = np.arange(ALL_CHARACTERS, dtype=np.uint64)
    for point in range(LAST_LETTER):
        if (lower := chr(point).lower()) != chr(point):
            small[point] = ord(lower[0])
    return mixed(small + _odd("characters", 1))


@functools.cache
def _odd(purpose: str, count: int) -> np.ndarray:
    drawn = rng_of(0, f"hashes of {purpose}").integers(0, 1 << 63, count, dtype=np.uint64)
    return drawn * np.uint64(2) + np.uint64(1)


@functools.cache
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """uint64 [BATCH_CHARACTERS] powers of an odd number, from the first, and of its
    inverse modulo 2^64.
    """
    factor = _odd("places", 1)
    inverse = np.array([pow(int(factor[0]), -1, 1 << 64)], dtype=np.uint64)
    up, down = (np.cumprod(np.repeat(each, BATCH_CHARACTERS)) for each in (factor, inverse))
    return up, down


def words_of(texts: Sequence[str]) -> Words:
    """The words of `texts`, one text after the other."""
    found = [_words_in(batch) for batch in _batches(texts)]
    hashes, starts, ends, owners = (
        np.concatenate([part[column] for part in found]) if found else np.zeros(0, dtype=np.int64)
        for column in range(4)
    )
    counts = np.bincount(owners, minlength=len(texts))
    return Words(hashes.astype(np.uint64), starts, ends, counts)


Piece = tuple[int, int, str]


def _batches(texts: Sequence[str]) -> Iterator[list[Piece]]:
    """(text, first character, characters) of pieces, in lists of at most BATCH_CHARACTERS in all;
    long texts are cut at blanks where there are any.
    """
    batch: list[Piece] = []
    room = BATCH_CHARACTERS
    for number, text in enumerate(texts):
        start = 0
        while start < len(text):
            end = len(text)
            if end - start >= BATCH_CHARACTERS:
                limit = start + BATCH_CHARACTERS - 1
                end = max(text.rfind(" ", start, limit), text.rfind("\n", start, limit))
                end = end if end > start else limit
            if end - start >= room:
                yield batch
                batch, room = [], BATCH_CHARACTERS
            batch.append((number, start, text[start:end]))
            room -= end - start + 1
            start = end
    if batch:
        yield batch


def _words_in(batch: Sequence[Piece]) -> tuple[np.ndarray, ...]:
    """Hashes, starts, ends and text numbers of the words of a batch."""
    joined = "\n".join(piece for _, _, piece in batch)
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    points = points.astype(np.int64)
    kind = _kinds()[points]
    first = kind != BLANK
    last = first.copy()
    letter = kind == LETTER
    continued = letter[1:] & letter[:-1]
    first[1:] &= ~continued
    last[:-1] &= ~continued
    starts, ends = np.flatnonzero(first), np.flatnonzero(last) + 1
    up, down = _powers()
    sums = np.zeros(len(points) + 1, dtype=np.uint64)
    np.cumsum(_values()[points] * up[: len(points)], out=sums[1:])
    hashes = mixed((sums[ends] - sums[starts]) * down[starts])
    begins = np.cumsum([0, *(len(piece) + 1 for _, _, piece in batch)])
    piece_of = np.searchsorted(begins, starts, side="right") - 1
    shifts = np.array([start for _, start, _ in batch], dtype=np.int64) - begins[:-1]
    owners = np.array([number for number, _, _ in batch], dtype=np.int64)
    shift = shifts[piece_of]
    return hashes, starts + shift, ends + shift, owners[piece_of]


def gram_hashes(hashes: np.ndarray, size: int) -> np.ndarray:
    """uint64 [words - size + 1] of the n-grams of `size` words at each place, from uint64 [words];
    none if there are fewer words.
    """
    places = max(0, len(hashes) - size + 1)
    total = np.zeros(places, dtype=np.uint64)
    for step, weight in enumerate(_odd("words", size)):
        total += hashes[step : step + places] * weight
    return mixed(total)


def gram_places(counts: np.ndarray, size: int) -> np.ndarray:
    """bool mask of the places of `gram_hashes` over several texts whose n-gram lies in one text."""
    inside = np.ones(max(0, int(counts.sum()) - size + 1), dtype=bool)
    ends = np.cumsum(counts)[:-1]
    for step in range(1, size):
        crossing = ends - step
        inside[crossing[(crossing >= 0) & (crossing < len(inside))]] = False
    return inside
