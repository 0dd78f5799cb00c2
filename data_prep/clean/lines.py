"""Line rules: which lines of a page stay, in the order of C4's `clean_page`.

`kept_lines` gives what rule after rule on line after line gives, at a fraction of the time. Of most pages
no line holds what the rare rules look for; then whole lists of lines are sifted at once. Only where the
lines that are left hold such a phrase anywhere are they gone through one by one.
Source: tensorflow_datasets `c4_utils.clean_page`, builder 3.0.1.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from data_prep.clean.rules import Rules

CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
HEADERS = ("WARC", "CONTENT-", "Content-")
BAD_ENGLISH = "bad_words_en"
DROPS_PAGE = ("lorem_ipsum", "curly_bracket", BAD_ENGLISH)
PHRASE_RULES = ("lorem_ipsum", "javascript", "curly_bracket", "policy_notice")
LINE_REASONS = (
    "header_line",
    "long_word",
    "no_end_mark",
    "few_words",
    "javascript",
    "policy_notice",
)


@dataclass(frozen=True)
class LineRules:
    """The line rules with their limits; those that are off have limits that every line meets."""

    max_word_characters: int
    deletes_citations: bool
    marks: tuple[str, ...]
    never: tuple[str, ...]
    min_words: int
    phrases: tuple[tuple[str, tuple[str, ...]], ...]  # of each rule, in order
    bad_words: Callable[[str], bool] | None  # of a lower-cased line


@dataclass
class Lines:
    """Lines that stay; how many do not, by reason, with the first of each; why the page goes, or ""."""

    kept: list[str]
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    reason: str = ""


def line_rules(rules: Rules, bad_words: Callable[[str], bool] | None) -> LineRules | None:
    """The line rules that are on, or None if none is."""
    phrases = tuple((name, rule.phrases) for name, rule in rules.on() if name in PHRASE_RULES)
    ends, words, long = rules.no_end_mark, rules.few_words, rules.long_word
    if not (phrases or ends or words or long or rules.citations or bad_words):
        return None
    return LineRules(
        max_word_characters=long.max_characters if long else sys.maxsize,
        deletes_citations=rules.citations is not None,
        marks=ends.marks if ends else ("",),
        never=ends.never if ends else (),
        min_words=words.min_words if words else 0,
        phrases=phrases,
        bad_words=bad_words,
    )


def archive_form(text: str) -> tuple[str, list[str]]:
    """A page as C4's reader of WET files would give it: stripped lines that are not blank, without those
    it takes for headers; and the latter.
    """
    raw = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [line for one in raw if (line := one.strip())]
    headers = [line for line in lines if line.startswith(HEADERS)]
    return "\n".join(line for line in lines if not line.startswith(HEADERS)), headers


def kept_lines(lines: list[str], rules: LineRules) -> Lines:
    """Sift stripped lines that are not blank."""
    longest = rules.max_word_characters
    if longest < sys.maxsize and max(map(len, lines), default=0) > longest:
        return _one_by_one(lines, rules)
    bare = lines
    if rules.deletes_citations:
        bare = [CITATION.sub("", line) if "[" in line else line for line in lines]
    marks, never, few, most = rules.marks, rules.never, rules.min_words, max(0, rules.min_words - 1)
    ended = [line for line in bare if line.endswith(marks) and not line.endswith(never)]
    # Words are counted up to the least number only.
    kept = [line for line in ended if len(line.split(None, most)) >= few]
    if _hold_a_phrase(kept, rules):
        return _one_by_one(lines, rules)
    sifted = Lines(kept)
    if dropped := len(bare) - len(ended):
        sifted.dropped["no_end_mark"] = dropped
        sifted.examples["no_end_mark"] = next(
            line for line in bare if not line.endswith(marks) or line.endswith(never)
        )
    if dropped := len(ended) - len(kept):
        sifted.dropped["few_words"] = dropped
        sifted.examples["few_words"] = next(
            line for line in ended if len(line.split(None, most)) < few
        )
    return sifted


def _hold_a_phrase(lines: list[str], rules: LineRules) -> bool:
    """Whether a rule that looks for phrases could find one; it may find none after all, for here a
    line's ends count as ends of words.
    """
    if not rules.phrases and rules.bad_words is None:
        return False
    lower = "\n".join(lines).lower()
    if any(phrase in lower for _, phrases in rules.phrases for phrase in phrases):
        return True
    return rules.bad_words is not None and rules.bad_words(f"\n{lower}\n")


def _one_by_one(lines: list[str], rules: LineRules) -> Lines:
    """Every rule on every line, up to the line for which the page goes."""
    sifted = Lines([])
    for line in lines:
        bare = CITATION.sub("", line) if rules.deletes_citations and "[" in line else line
        reason = _reason(line, bare, rules)
        if not reason:
            sifted.kept.append(bare)
        elif reason in DROPS_PAGE:
            sifted.kept, sifted.reason = [], reason
            return sifted
        else:
            sifted.dropped[reason] += 1
            sifted.examples.setdefault(reason, bare)
    return sifted


def _reason(line: str, bare: str, rules: LineRules) -> str:
    """Why a line, or the page because of it, goes; "" if it stays. `bare` is without citations."""
    longest = rules.max_word_characters
    if len(line) > longest and any(len(word) > longest for word in line.split()):
        return "long_word"
    if not bare.endswith(rules.marks) or bare.endswith(rules.never):
        return "no_end_mark"
    if len(bare.split()) < rules.min_words:
        return "few_words"
    lower = bare.lower()
    for reason, phrases in rules.phrases:
        if any(phrase in lower for phrase in phrases):
            return reason
    if rules.bad_words is not None and rules.bad_words(lower):
        return BAD_ENGLISH
    return ""
