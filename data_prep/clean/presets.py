"""Presets of cleaning: which rules are on with which limits, how repeats and languages are told.

The C4 presets are the generations of its code and its first description; `gopher` and `fineweb` are the
quality rules of those corpora over words divided at blanks. `Cleaning` is what a run file says: a preset
and what is different from it.
"""

import dataclasses
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic

from data_prep.clean import rules as r
from pipeline.config import config

Repeats = Literal["lines", "sentence_spans", "none"]
Mask = Literal["emails", "ip_addresses", "phones"]
LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(-[A-Za-z]+)?")
UNSURE = "und"
MC4_LANGUAGES = tuple(
    (
        "af am ar az be bg bg-Latn bn ca ceb co cs cy da de el el-Latn en eo es et eu fa fi fil fr fy "
        "ga gd gl gu ha haw hi hi-Latn hmn ht hu hy id ig is it iw ja ja-Latn jv ka kk km kn ko ku ky "
        "la lb lo lt lv mg mi mk ml mn mr ms mt my ne nl no ny pa pl ps pt ro ru ru-Latn sd si sk sl "
        "sm sn so sq sr st su sv sw ta te tg th tr uk ur uz vi xh yi yo zh zh-Latn zu"
    ).split()
)


def _codes(languages: tuple[str, ...]) -> tuple[str, ...]:
    for language in languages:
        if not LANGUAGE_CODE.fullmatch(language):
            raise ValueError(
                f"{language!r} is no code of a language; write them as en, de or zh-cn"
            )
    return languages


Languages = Annotated[tuple[str, ...], pydantic.AfterValidator(_codes)]


@config
class FastLanguage:
    """fastText's lid.176 on the first 2000 characters. Pages whose best guess has less than `min_score`
    are of language `und`; `keep` names the languages that stay, all if it names none.
    """

    type: Literal["fast"] = "fast"
    keep: Languages = ()
    min_score: r.Share = 0.5


@config
class C4Language:
    """langdetect with a fixed seed, as C4 `en`; `keep` and `min_score` as for `fast`."""

    type: Literal["c4"] = "c4"
    keep: Languages = ("en",)
    min_score: r.Share = 0.99


@config
class Mc4Language:
    """CLD3, reliable and on 100 to 10,000 bytes, as mC4; `keep` and `min_score` as for `fast`."""

    type: Literal["mc4"] = "mc4"
    keep: Languages = (*MC4_LANGUAGES, UNSURE)
    min_score: r.Share = 0.95


@config
class NoLanguage:
    """Tell no languages."""

    type: Literal["none"] = "none"


Language = Annotated[
    FastLanguage | C4Language | Mc4Language | NoLanguage, pydantic.Field(discriminator="type")
]


@dataclass(frozen=True)
class Preset:
    """The rules that are on, how repeats are found and how languages are told."""

    rules: r.Rules
    repeats: Repeats
    language: FastLanguage | C4Language | Mc4Language | NoLanguage


_CODE = r.Rules(
    header_line=r.HeaderLine(),
    too_long=r.TooLong(),
    long_word=r.LongWord(),
    citations=r.Citations(),
    no_end_mark=r.NoEndMark(),
    few_words=r.FewWords(),
    lorem_ipsum=r.LoremIpsum(),
    javascript=r.Javascript(),
    curly_bracket=r.CurlyBracket(),
    policy_notice=r.PolicyNotice(),
    too_few_sentences=r.TooFewSentences(),
)
_PAPER = r.Rules(
    no_end_mark=r.NoEndMark(),
    few_words=r.FewWords(min_words=3),
    lorem_ipsum=r.LoremIpsum(),
    javascript=r.Javascript(),
    curly_bracket=r.CurlyBracket(),
    too_few_sentences=r.TooFewSentences(min_sentences=5),
    bad_words=r.BadWords(),
)
_GOPHER = r.Rules(
    repeated_paragraphs=r.Repeated(),
    repeated_lines=r.Repeated(),
    top_ngrams=r.TopNgrams(),
    repeated_ngrams=r.RepeatedNgrams(),
    word_count=r.WordCount(),
    word_length=r.WordLength(),
    symbols=r.Symbols(),
    bullet_lines=r.BulletLines(),
    ellipsis_lines=r.EllipsisLines(),
    alphabetic_words=r.AlphabeticWords(),
    stop_words=r.StopWords(),
)
_FINEWEB = dataclasses.replace(
    _GOPHER,
    long_word=r.LongWord(),
    citations=r.Citations(),
    few_words=r.FewWords(min_words=3),
    lorem_ipsum=r.LoremIpsum(),
    javascript=r.Javascript(),
    curly_bracket=r.CurlyBracket(),
    policy_notice=r.PolicyNotice(),
    too_few_sentences=r.TooFewSentences(min_sentences=5),
    unfinished_lines=r.UnfinishedLines(),
    short_lines=r.ShortLines(),
    repeated_characters=r.RepeatedCharacters(),
    line_breaks=r.LineBreaks(),
)
_MC4 = r.Rules(
    header_line=r.HeaderLine(),
    too_long=r.TooLong(),
    few_paragraphs=r.FewParagraphs(),
    bad_words=r.BadWords(),
)
PRESETS = {
    "c4-code": Preset(_CODE, "lines", FastLanguage()),
    "c4-en": Preset(dataclasses.replace(_CODE, bad_words=r.BadWords()), "lines", C4Language()),
    "c4-paper": Preset(_PAPER, "sentence_spans", C4Language()),
    "c4-2019-sentences": Preset(
        dataclasses.replace(_CODE, long_word=None, bad_words=r.BadWords(form="line")),
        "sentence_spans",
        C4Language(),
    ),
    "mc4": Preset(_MC4, "lines", Mc4Language()),
    "gopher": Preset(_GOPHER, "none", FastLanguage()),
    "fineweb": Preset(_FINEWEB, "none", FastLanguage(keep=("en",), min_score=0.65)),
}
PresetName = Literal[
    "c4-code", "c4-en", "c4-paper", "c4-2019-sentences", "mc4", "gopher", "fineweb"
]
RuleName = Literal[
    "header_line",
    "too_long",
    "few_paragraphs",
    "repeated_paragraphs",
    "repeated_lines",
    "top_ngrams",
    "repeated_ngrams",
    "word_count",
    "word_length",
    "symbols",
    "bullet_lines",
    "ellipsis_lines",
    "alphabetic_words",
    "stop_words",
    "long_word",
    "citations",
    "no_end_mark",
    "few_words",
    "lorem_ipsum",
    "javascript",
    "curly_bracket",
    "policy_notice",
    "too_few_sentences",
    "unfinished_lines",
    "short_lines",
    "repeated_characters",
    "line_breaks",
    "bad_words",
]
assert set(get_args(PresetName)) == set(PRESETS)


@config
class Cleaning:
    """A preset, and what is different from it.

    `without` names rules of the preset that are off; `rules` holds rules that are added, or that have
    other limits; `language` and `repeats` are the preset's where they are not given.
    """

    preset: PresetName = "c4-code"
    without: tuple[RuleName, ...] = ()
    rules: r.Rules = dataclasses.field(default_factory=r.Rules)
    language: Language | None = None
    repeats: Repeats | None = None
    mask: tuple[
        Mask, ...
    ] = ()  # what is put out of sight in documents: emails, ip_addresses, phones

    def __post_init__(self) -> None:
        given, there = dict(self.rules.on()), dict(PRESETS[self.preset].rules.on())
        for name in self.without:
            if name in given:
                raise ValueError(
                    f"rule {name!r} is in `without` and in `rules`; it needs one of them"
                )
            if name not in there:
                raise ValueError(
                    f"without: {name!r} is not on in preset {self.preset!r}; on: {', '.join(there)}"
                )
        words = self.rules_on.bad_words
        if words and words.form == "page" and isinstance(self.language_told, NoLanguage):
            raise ValueError(
                "rule 'bad_words' has a list for each language, and language.type 'none' tells none; "
                "use another language.type, rules.bad_words.form: line, or without: [bad_words]"
            )

    @cached_property
    def rules_on(self) -> r.Rules:
        """The rules of the preset, with what is different from them."""
        changes: dict[str, Any] = dict.fromkeys(self.without)
        return dataclasses.replace(PRESETS[self.preset].rules, **changes, **dict(self.rules.on()))

    @property
    def language_told(self) -> FastLanguage | C4Language | Mc4Language | NoLanguage:
        """How languages are told."""
        return self.language or PRESETS[self.preset].language

    @property
    def repeats_found(self) -> Repeats:
        """What counts as a repeat."""
        return self.repeats or PRESETS[self.preset].repeats

    @property
    def files(self) -> tuple[Path, ...]:
        """Files the rules are read from, beside what comes with the program."""
        words = self.rules_on.bad_words
        return (words.lists,) if words and words.lists else ()
