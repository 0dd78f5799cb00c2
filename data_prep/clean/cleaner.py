"""The cleaner: the rules of a preset, compiled once, and what they say of a page.

A page is judged twice: as it was extracted (`clean`), and, since C4 does so, when its repeats have been
taken out (`settle`).
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from data_prep.clean import quality, repetition
from data_prep.clean import rules as r
from data_prep.clean.bad_words import bad_words, english_finder, finder_of, spares
from data_prep.clean.language import language_teller
from data_prep.clean.lines import (
    DROPS_PAGE,
    HEADERS,
    PHRASE_RULES,
    archive_form,
    kept_lines,
    line_rules,
)
from data_prep.clean.presets import Cleaning, Repeats
from data_prep.clean.privacy import masked
from data_prep.clean.reading import Reading
from data_prep.clean.sentences import lines_reach, sentences_reach
from data_prep.dedup.exact import normalised_url

EXAMPLE_CHARACTERS = 200
Check = tuple[str, Callable[[Reading], bool]]
# In the order in which they act: on the page as it was extracted, and on the lines that are left of it.
FIRST: Mapping[str, Callable[[Any, Reading], bool]] = {
    "few_paragraphs": quality.too_few_paragraphs,
    "repeated_paragraphs": repetition.too_many_paragraphs_again,
    "repeated_lines": repetition.too_many_lines_again,
    "top_ngrams": repetition.too_much_of_one_ngram,
    "repeated_ngrams": repetition.too_much_in_ngrams_again,
    "word_count": quality.wrong_word_count,
    "word_length": quality.wrong_word_length,
    "symbols": quality.too_many_symbols,
    "bullet_lines": quality.too_many_bullets,
    "ellipsis_lines": quality.too_many_ellipses,
    "alphabetic_words": quality.too_few_alphabetic,
    "stop_words": quality.too_few_stop_words,
}
LAST: Mapping[str, Callable[[Any, Reading], bool]] = {
    "unfinished_lines": quality.too_many_unfinished,
    "short_lines": quality.too_many_short,
    "repeated_characters": repetition.too_many_characters_again,
    "line_breaks": quality.too_many_line_breaks,
}
PAGE_REASONS = (
    "too_long",
    *FIRST,
    *(reason for reason in PHRASE_RULES if reason in DROPS_PAGE),
    "too_few_sentences",
    *LAST,
    "empty",
    "unsure_language",
    "other_language",
    *(f"bad_words_{language}" for language in bad_words(None)),
)


@dataclass(frozen=True)
class Cleaned:
    """A cleaned page: `reason` is "" and `text` its kept lines, or why it was dropped and "".

    `lines` counts the lines that are not blank, `dropped` those of them a line rule took out, by reason;
    `examples` has the first of each.
    """

    text: str
    reason: str
    lines: int
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settled:
    """A page without its repeats: `reason` is "" and `text` the document, or why it was dropped and "".

    `language` is "und" where that is not sure, "" where nobody asked; `masked` counts what was put out of
    sight.
    """

    text: str
    reason: str
    language: str = ""
    masked: Counter[str] = field(default_factory=Counter)


@functools.lru_cache(maxsize=8)
def cleaner_of(cleaning: Cleaning) -> "Cleaner":
    """The cleaner for `cleaning`, compiled once a process. DataError if its word lists cannot be read."""
    return Cleaner(cleaning)


class Cleaner:
    """Rules that are ready to work; use `cleaner_of`. `repeats` says what counts as a repeat."""

    def __init__(self, cleaning: Cleaning) -> None:
        rules = cleaning.rules_on
        words = rules.bad_words
        finder = None
        if words is not None and words.form == "line":
            finder, words = english_finder(words.lists), None
        self.repeats: Repeats = cleaning.repeats_found
        self._has_headers = rules.header_line is not None
        self._most = rules.too_long.max_characters if rules.too_long else sys.maxsize
        self._least = rules.too_few_sentences.min_sentences if rules.too_few_sentences else 0
        self._first, self._last = _checks(rules, FIRST), _checks(rules, LAST)
        self._lines = line_rules(rules, finder)
        self._tell = language_teller(cleaning.language_told)
        self._bad_words = words
        self._masks = cleaning.mask

    def clean(self, text: str) -> Cleaned:
        """What the rules leave of a page as it was extracted."""
        headers: list[str] = []
        if self._has_headers and self._needs_archive_form(text):
            text, headers = archive_form(text)
        if self._lines is None:
            lines = [line for raw in text.split("\n") if (line := raw.strip())]
        else:
            lines = [line for raw in text.splitlines() if (line := raw.strip())]
        whole = Cleaned("", "", len(lines) + len(headers))
        if headers:
            whole.dropped["header_line"] = len(headers)
            whole.examples["header_line"] = headers[0][:EXAMPLE_CHARACTERS]
        if len(text) > self._most:
            return replace(whole, reason="too_long")
        if reason := _first_that_holds(self._first, text):
            return replace(whole, reason=reason)
        if self._lines is not None:
            sifted = kept_lines(lines, self._lines)
            whole.dropped.update(sifted.dropped)
            for name, line in sifted.examples.items():
                whole.examples[name] = line[:EXAMPLE_CHARACTERS]
            if sifted.reason:
                return replace(whole, reason=sifted.reason)
            lines, text = sifted.kept, "\n".join(sifted.kept)
        if not lines_reach(lines, self._least):
            return replace(whole, reason="too_few_sentences")
        text = text.strip()
        reason = _first_that_holds(self._last, text) if text else "empty"
        return replace(whole, reason=reason, text="" if reason else text)

    def settle(self, text: str, url: str, sentences: int | None = None) -> Settled:
        """What becomes of a page without its repeats.

        `text` is not stripped, `url` is the page's, and `sentences` is how many were left when spans of
        sentences were taken out.
        """
        if not self._has_sentences(text, sentences):
            return Settled("", "too_few_sentences")
        if not text:
            return Settled("", "empty")
        told = self._tell(text)
        if told.reason:
            return Settled("", told.reason, told.language)
        if self._bad_words is not None:
            language = told.language.split("-")[0]
            finder = finder_of(self._bad_words.lists, language)
            if finder is not None and finder(text.lower()):
                if not spares(normalised_url(url), self._bad_words.filter_fraction):
                    return Settled("", f"bad_words_{language}", told.language)
        text, counts = masked(text, self._masks)
        return Settled(text, "", told.language, counts)

    def _needs_archive_form(self, text: str) -> bool:
        """Whether the page is another one as C4's reader would have given it to the line rules."""
        if self._lines is None or len(text) > self._most:
            return True
        return any(header in text for header in HEADERS)

    def _has_sentences(self, text: str, sentences: int | None) -> bool:
        """C4's second count: in 2019 of the sentences that were left, later of the whole text, where
        the end of a line is no end of a sentence.
        """
        if sentences is not None:
            return sentences >= self._least
        if self.repeats == "lines":
            return sentences_reach([text], self._least)
        return lines_reach([line for line in text.splitlines() if line.strip()], self._least)


def _checks(rules: r.Rules, kinds: Mapping[str, Callable[[Any, Reading], bool]]) -> list[Check]:
    """The page rules of `kinds` that are on, in order."""
    return [
        (name, functools.partial(kinds[name], rule)) for name, rule in rules.on() if name in kinds
    ]


def _first_that_holds(checks: list[Check], text: str) -> str:
    """The reason of the first rule that drops the page, or ""."""
    page = Reading(text)
    return next((name for name, drops in checks if drops(page)), "")
