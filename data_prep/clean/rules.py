"""The rules of cleaning and their limits: one config class a rule, named by the reason it gives.

`Rules` holds one of each, or None for a rule that is off, in the order in which they act: on the page
as it was extracted, on its lines, on what is left of it, and on what is left once repeats are gone.
Sources: Raffel et al. 2020 (arXiv 1910.10683), section 2.2, and its released code; Xue et al. 2021
(arXiv 2010.11934), section 3.1; Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1; Penedo et al. 2024
(arXiv 2406.17557), section 3.4 and its released code.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from pipeline.config import config

Positive = Annotated[int, pydantic.Field(ge=1)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Ratio = Annotated[float, pydantic.Field(ge=0)]
Marks = Annotated[
    tuple[Annotated[str, pydantic.Field(min_length=1)], ...], pydantic.Field(min_length=1)
]


def _findable(phrases: tuple[str, ...]) -> tuple[str, ...]:
    for phrase in phrases:
        if phrase != phrase.lower() or phrase != " ".join(phrase.split()) or not phrase:
            raise ValueError(
                f"{phrase!r} would never be found: lines are lower-cased; "
                "write phrases in lower case, without blanks around them"
            )
    return phrases


Phrases = Annotated[
    tuple[str, ...], pydantic.Field(min_length=1), pydantic.AfterValidator(_findable)
]


@config
class HeaderLine:
    """Drop lines that begin as headers of an archive do (`WARC`, `Content-`, `CONTENT-`).

    C4's reader of WET files takes them for headers wherever they stand. A page's length, too, is that
    of its stripped lines that are not blank.
    """


@config
class TooLong:
    """Drop pages of more than `max_characters`."""

    max_characters: Positive = 190_000


@config
class FewParagraphs:
    """Drop pages with fewer than `min_paragraphs` lines of at least `min_characters` (mC4)."""

    min_paragraphs: Positive = 3
    min_characters: Positive = 200


@config
class Repeated:
    """Drop pages too many of whose lines, or paragraphs, stood there before: more than `max_share` of
    them, or more than `max_character_share` of the characters (Gopher).
    """

    max_share: Share = 0.30
    max_character_share: Share = 0.20


@config
class TopNgrams:
    """Drop pages too many of whose characters are in the commonest n-gram of words: more than
    `max_shares` for n = 2, 3, ... (Gopher).
    """

    max_shares: Annotated[tuple[Share, ...], pydantic.Field(min_length=1, max_length=3)] = (
        0.20,
        0.18,
        0.16,
    )


@config
class RepeatedNgrams:
    """Drop pages too many of whose characters are in n-grams of words that stood there before: more
    than `max_shares` for n = 5, 6, ... (Gopher).
    """

    max_shares: Annotated[tuple[Share, ...], pydantic.Field(min_length=1, max_length=6)] = (
        0.15,
        0.14,
        0.13,
        0.12,
        0.11,
        0.10,
    )


@config
class WordCount:
    """Drop pages of fewer than `min_words` or more than `max_words` (Gopher)."""

    min_words: Positive = 50
    max_words: Positive = 100_000


@config
class WordLength:
    """Drop pages whose words have fewer than `min_mean` or more than `max_mean` characters on average
    (Gopher).
    """

    min_mean: Ratio = 3.0
    max_mean: Ratio = 10.0


@config
class Symbols:
    """Drop pages with more than `max_per_word` hashes, or ellipses, a word (Gopher)."""

    max_per_word: Ratio = 0.1


@config
class BulletLines:
    """Drop pages more than `max_share` of whose lines begin with a bullet or a hyphen (Gopher)."""

    max_share: Share = 0.9


@config
class EllipsisLines:
    """Drop pages more than `max_share` of whose lines end with an ellipsis (Gopher)."""

    max_share: Share = 0.3


@config
class AlphabeticWords:
    """Drop pages fewer than `min_share` of whose words hold a letter (Gopher)."""

    min_share: Share = 0.8


@config
class StopWords:
    """Drop pages that hold fewer than `min_different` of `words` (Gopher)."""

    min_different: Positive = 2
    words: Marks = ("the", "be", "to", "of", "and", "that", "have", "with")


@config
class LongWord:
    """Drop lines with a word of more than `max_characters`."""

    max_characters: Positive = 1000


@config
class Citations:
    """Delete what Wikipedia puts in brackets: `[12]`, `[]`, `[edit]`, `[citation needed]`."""


@config
class NoEndMark:
    """Drop lines that do not end with one of `marks`, or that end with one of `never`."""

    marks: Marks = (".", "?", "!", '"')
    never: tuple[str, ...] = ("...",)


@config
class FewWords:
    """Drop lines of fewer than `min_words`."""

    min_words: Positive = 5


@config
class LoremIpsum:
    """Drop pages with a kept line that holds one of `phrases`, in any case."""

    phrases: Phrases = ("lorem ipsum",)


@config
class Javascript:
    """Drop lines that hold one of `phrases`, in any case."""

    phrases: Phrases = ("javascript",)


@config
class CurlyBracket:
    """Drop pages with a kept line that holds one of `phrases`."""

    phrases: Phrases = ("{",)


@config
class PolicyNotice:
    """Drop lines that hold one of `phrases`, in any case."""

    phrases: Phrases = (
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    )


@config
class TooFewSentences:
    """Drop pages of fewer than `min_sentences`, before and after repeats are removed."""

    min_sentences: Positive = 3


@config
class UnfinishedLines:
    """Drop pages fewer than `min_share` of whose lines end with one of `marks` (FineWeb)."""

    min_share: Share = 0.12
    marks: Marks = (
        ".",
        "?",
        "!",
        "。",
        "？",
        "！",
        "．",
        "｡",
        "؟",
        "۔",
        "।",
        "॥",
        "։",
        "።",
        "។",
        "။",
    )


@config
class ShortLines:
    """Drop pages more than `max_share` of whose lines have `characters` or fewer (FineWeb)."""

    max_share: Share = 0.67
    characters: Positive = 30


@config
class RepeatedCharacters:
    """Drop pages more than `max_share` of whose characters are in lines that stood there before
    (FineWeb).
    """

    max_share: Share = 0.01


@config
class LineBreaks:
    """Drop pages with more than `max_per_word` line breaks a word (FineWeb)."""

    max_per_word: Ratio = 0.3


@config
class BadWords:
    """Drop pages that hold a word of the list of their language, `bad_words_<language>`.

    `form` is `page`, as C4 3.x, which knows all languages, or `line`, as C4 2.x, which looks for English
    words, and never at an end of a line. Which pages this takes, and whose, is told by Dodge et al. 2021
    (arXiv 2104.08758), section 5.3: look at the report.
    """

    form: Literal["page", "line"] = "page"
    filter_fraction: Share = 1.0  # of the pages found, by MD5 of the address
    lists: Path | None = None  # JSON, {language: [words]}; else the lists of C4


@config
class Rules:
    """One of each rule, None for off, in the order in which they act; their names are the reasons.

    On the page as it was extracted: header_line, too_long, few_paragraphs; repetition as Gopher
    measures it, repeated_paragraphs, repeated_lines, top_ngrams, repeated_ngrams; and its quality,
    word_count, word_length, symbols, bullet_lines, ellipsis_lines, alphabetic_words, stop_words.
    On each line, in C4's order: long_word, citations, no_end_mark, few_words, lorem_ipsum, javascript,
    curly_bracket, policy_notice, and the `line` form of bad_words. On the lines that are left:
    too_few_sentences, and FineWeb's unfinished_lines, short_lines, repeated_characters, line_breaks.
    On what is left of the page without repeats: too_few_sentences again, and bad_words.
    """

    header_line: HeaderLine | None = None
    too_long: TooLong | None = None
    few_paragraphs: FewParagraphs | None = None
    repeated_paragraphs: Repeated | None = None
    repeated_lines: Repeated | None = None
    top_ngrams: TopNgrams | None = None
    repeated_ngrams: RepeatedNgrams | None = None
    word_count: WordCount | None = None
    word_length: WordLength | None = None
    symbols: Symbols | None = None
    bullet_lines: BulletLines | None = None
    ellipsis_lines: EllipsisLines | None = None
    alphabetic_words: AlphabeticWords | None = None
    stop_words: StopWords | None = None
    long_word: LongWord | None = None
    citations: Citations | None = None
    no_end_mark: NoEndMark | None = None
    few_words: FewWords | None = None
    lorem_ipsum: LoremIpsum | None = None
    javascript: Javascript | None = None
    curly_bracket: CurlyBracket | None = None
    policy_notice: PolicyNotice | None = None
    too_few_sentences: TooFewSentences | None = None
    unfinished_lines: UnfinishedLines | None = None
    short_lines: ShortLines | None = None
    repeated_characters: RepeatedCharacters | None = None
    line_breaks: LineBreaks | None = None
    bad_words: BadWords | None = None

    def on(self) -> Iterator[tuple[str, Any]]:
        """Name and limits of the rules that are on, in order."""
        for field in dataclasses.fields(self):
            if (rule := getattr(self, field.name)) is not None:
                yield field.name, rule

    @pydantic.model_serializer
    def _shown(self) -> dict[str, Any]:
        """As it would be written, without the rules that are off."""
        return dict(self.on())
