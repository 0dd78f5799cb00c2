"""Cleaning: what stays of a page, by the rules of C4 and of corpora after it."""

from data_prep.clean.cleaner import PAGE_REASONS, Cleaned, Cleaner, Settled, cleaner_of
from data_prep.clean.lines import LINE_REASONS
from data_prep.clean.presets import PRESETS, Cleaning
from data_prep.clean.sentences import sentences

__all__ = [
    "LINE_REASONS",
    "PAGE_REASONS",
    "PRESETS",
    "Cleaned",
    "Cleaner",
    "Cleaning",
    "Settled",
    "cleaner_of",
    "sentences",
]
