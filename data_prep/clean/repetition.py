"""Repetition inside a page, as Gopher measures it: lines, paragraphs and n-grams of words.

Source: Rae et al. 2021 (arXiv 2112.11446), table A1. Which occurrences count, where the paper leaves it
open, is as in datatrove's `GopherRepetitionFilter`.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from data_prep.clean import rules as r
from data_prep.clean.ngrams import ONCE
from data_prep.clean.reading import Reading

TOP_FROM, REPEATED_FROM = 2, 5


def too_many_lines_again(rule: r.Repeated, page: Reading) -> bool:
    """Too many lines that stood there before."""
    return _again(rule, page.lines, len(page.text))


def too_many_paragraphs_again(rule: r.Repeated, page: Reading) -> bool:
    """Too many paragraphs that stood there before; blank lines divide them."""
    parts = page.text.strip().split("\n\n")
    return _again(rule, [part for raw in parts if (part := raw.strip("\n"))], len(page.text))


def too_many_characters_again(rule: r.RepeatedCharacters, page: Reading) -> bool:
    """FineWeb: too many characters in lines that stood there before."""
    _, repeated = _repeats(page.lines)
    return repeated > rule.max_share * (len(page.text) - page.text.count("\n"))


def _again(rule: r.Repeated, parts: Sequence[str], characters: int) -> bool:
    if len(set(parts)) == len(parts):
        return False
    number, repeated = _repeats(parts)
    return number > rule.max_share * len(parts) or repeated > rule.max_character_share * characters


def _repeats(parts: Sequence[str]) -> tuple[int, int]:
    """Number and characters of the parts that stood there before."""
    number = characters = 0
    for part, times in Counter(parts).items():
        number += times - 1
        characters += (times - 1) * len(part)
    return number, characters


def too_much_of_one_ngram(rule: r.TopNgrams, page: Reading) -> bool:
    """Too many characters in all occurrences of the commonest n-gram, its blanks included; of several
    that are as common, the one that comes first.
    """
    words = page.words
    for size, share in enumerate(rule.max_shares, TOP_FROM):
        if size > len(words):
            return False
        grams = page.ngrams.of(size)
        most = int(grams.times.max(initial=1))
        start = int(grams.first[grams.times == most].min()) if most > 1 else 0
        if most * len(" ".join(words[start : start + size])) > share * len(page.text):
            return True
    return False


def too_much_in_ngrams_again(rule: r.RepeatedNgrams, page: Reading) -> bool:
    """Too many characters in n-grams that stood there before, without their blanks; a repeated n-gram
    is skipped whole, so that nothing counts twice.
    """
    words = page.words
    for size, share in enumerate(rule.max_shares, REPEATED_FROM):
        if size > len(words):
            return False
        grams = page.ngrams.of(size)
        if not len(grams.times):
            return False  # and so no longer one stands there twice
        again = grams.number != ONCE
        again[grams.first] = False
        # What counts is inside n-grams that stood there before; often all of that is too little.
        inside = np.convolve(again, np.ones(size, np.int64)) > 0
        most = share * len(page.text)
        if int(page.lengths[inside].sum()) > most:
            if _skipping(words, grams.number.tolist(), size) > most:
                return True
    return False


def _skipping(words: Sequence[str], grams: Sequence[int], size: int) -> int:
    """Characters in repeated n-grams. One inside a repeated one, or across its end, is never seen."""
    seen: set[int] = set()
    place = characters = 0
    while place < len(grams):
        if grams[place] in seen:
            characters += sum(map(len, words[place : place + size]))
            place += size
        else:
            if grams[place] != ONCE:
                seen.add(grams[place])
            place += 1
    return characters
