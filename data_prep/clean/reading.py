"""A page's text as page rules read it: its lines, words and n-grams, found once for all rules."""

import re
from functools import cached_property

import numpy as np

from data_prep.clean.ngrams import Ngrams, Numbers

BARE = re.compile(r"\w(?:\S*\w)?")


class Reading:
    """A text and its parts: `lines` are stripped and not blank, `words` are what stands between blanks."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def lines(self) -> list[str]:
        return [line for raw in self.text.splitlines() if (line := raw.strip())]

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @cached_property
    def lengths(self) -> Numbers:
        """Characters of each word [words]."""
        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    @cached_property
    def bare(self) -> list[str]:
        """The words from the first to the last of their letters, digits and underscores; without those
        that have none.
        """
        return BARE.findall(self.text)

    @cached_property
    def ngrams(self) -> Ngrams:
        return Ngrams(self.words)
