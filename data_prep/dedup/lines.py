"""Lines that occur elsewhere in the corpus: C4 from 2020 on.

A line, lower-cased, stays only in the page whose MD5(address) sorts first, and there only once.
Source: tensorflow_datasets `c4_utils.remove_duplicate_text`, builder 2.2.0 and later.
"""

import functools
import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from data_prep.dedup import repeats

md5 = functools.partial(hashlib.md5, usedforsecurity=False)


def write_index(folder: Path, pages: Iterable[tuple[int, str]]) -> int:
    """Save the index of the lines of a unit's clean pages, given as (row, text); returns how many
    lines.
    """
    digests, places = bytearray(), []
    for row, text in pages:
        found = digests_of(text)
        digests += b"".join(found)
        places.append(np.arange(len(found), dtype=np.uint64) + np.uint64(row << repeats.ROW_BITS))
    return repeats.write(folder, digests, np.concatenate([np.zeros(0, np.uint64), *places]))


def digests_of(text: str) -> list[bytes]:
    """MD5 of each line, stripped and in lower case."""
    # A line break ends every context that decides about case, so a whole text may be lowered.
    lower = text.lower()
    if lower.isascii():
        return [md5(line.strip()).digest() for line in lower.encode().split(b"\n")]
    encoded = (line.strip().encode("utf-8", "surrogatepass") for line in lower.split("\n"))
    return [md5(line).digest() for line in encoded]


def without(text: str, gone: Collection[int]) -> str:
    """Text without the lines of these numbers."""
    if not gone:
        return text
    lines = text.split("\n")
    return "\n".join(line for number, line in enumerate(lines) if number not in gone)
