"""Spans of three sentences that occur elsewhere in the corpus: C4 of 2019, as in the paper.

Windows of three sentences slide over each line (a shorter line is one window), in lower case. A
window stays only in the page whose MD5(address) sorts first; other pages lose its sentences, and so
does that page when it holds the window twice. Windows of nothing but end marks are left alone.
Source: Raffel et al. 2020 (arXiv 1910.10683), section 2.2; tensorflow_datasets `c4_utils` of 2019
(`_emit_url_to_sentences`, `_emit_sentences_to_urls`, `_remove_sentences_from_text`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.dedup import exact, repeats

WINDOW = 3
END_MARKS = frozenset('.?!"')
Splitter = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Remaining:
    """A page's text once its repeated spans are gone: sentences left, and sentences removed."""

    text: str
    sentences: int
    removed: int


def windows_of(text: str, sentences: Splitter) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(number of its first sentence in the page, window in lower case) of every window that counts."""
    number = 0
    for line in text.splitlines():
        found = [sentence.lower() for sentence in sentences(line)]
        for start in range(max(0, len(found) - WINDOW) + 1 if found else 0):
            window = tuple(found[start : start + WINDOW])
            if not END_MARKS.issuperset(window):
                yield number + start, window
        number += len(found)


def write_index(folder: Path, pages: Iterable[tuple[int, str]], sentences: Splitter) -> int:
    """Save the index of the windows of a unit's clean pages, given as (row, text); returns how
    many windows.
    """
    digests, places = bytearray(), []
    for row, text in pages:
        for number, window in windows_of(text, sentences):
            digests += exact.digest_of("\n".join(window))
            places.append(row << repeats.ROW_BITS | number)
    return repeats.write(folder, digests, np.array(places, dtype=np.uint64))


def without(text: str, gone: Collection[int], sentences: Splitter) -> Remaining:
    """Text without the windows that begin at the sentences `gone`.

    What is left of a line is joined by one blank; that holds for pages that lose nothing, too.
    """
    number, left, removed, kept = 0, 0, 0, []
    for line in text.splitlines():
        found = sentences(line)
        last = max(0, len(found) - WINDOW)
        starts = [start for start in range(last + 1) if number + start in gone]
        lost = {start + step for start in starts for step in range(min(WINDOW, len(found)))}
        stay = [sentence for place, sentence in enumerate(found) if place not in lost]
        if stay:
            kept.append(" ".join(stay))
        number, left, removed = number + len(found), left + len(stay), removed + len(lost)
    return Remaining("\n".join(kept), left, removed)
