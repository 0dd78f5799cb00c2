"""The fast C4 rules against the literal procedure, on generated and on real pages."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.clean import Rules, clean, sentences_reach, splitter
from data_prep.extract import extract
from data_prep.sources import Page, read_archive

PAGES = Path(__file__).parents[2] / "data/quickstart/pages.warc.gz"
POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


def literal(text, rules):
    """Table of rules 7 to 17, one after another, with every line split into sentences."""
    kept, sentences = [], 0
    for line in text.splitlines():
        line = line.strip()
        if any(len(word) > rules.max_word_characters for word in line.split()):
            continue
        line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line)
        if not line.endswith((".", "?", "!", '"')) or line.endswith("..."):
            continue
        if len(line.split()) < rules.min_words_per_line:
            continue
        lower = line.lower()
        if "lorem ipsum" in lower:
            return "", "lorem_ipsum"
        if "javascript" in lower:
            continue
        if "{" in line:
            return "", "curly_bracket"
        if any(phrase in lower for phrase in POLICY):
            continue
        sentences += len(splitter().tokenize(line))
        kept.append(line)
    if sentences < rules.min_sentences:
        return "", "too_few_sentences"
    return "\n".join(kept).strip(), ""


PIECES = "The cat Dr. e.g. sat! Why? [1] [edit] [] 3.5 { JavaScript Lorem ipsum end. no. and so on... \x85 “"
words = st.sampled_from([*PIECES.split(" "), "x" * 1001, 'said "no."', "use cookies"])
lines = st.lists(words, max_size=9).map(" ".join)
pages = st.lists(lines | st.text(max_size=30), max_size=8).map("\n".join)
limits = st.builds(
    Rules,
    min_words_per_line=st.sampled_from([1, 3, 5]),
    min_sentences=st.sampled_from([1, 3, 5]),
)


@given(pages, limits)
def test_the_fast_rules_equal_the_literal_ones(text, rules):
    cleaned = clean(text, rules)
    assert (cleaned.text, cleaned.reason) == literal(text, rules)


def test_the_fast_rules_equal_the_literal_ones_on_real_pages():
    seen = set()
    for page in [page for page in read_archive(PAGES) if isinstance(page, Page)][::6]:
        text = extract(page).text
        for rules in (Rules(), Rules(min_words_per_line=3, min_sentences=5)):
            cleaned = clean(text, rules)
            assert (cleaned.text, cleaned.reason) == literal(text, rules), page.url
            seen.add(cleaned.reason)
    assert {"", "too_few_sentences"} <= seen


GOOD = "The first sentence stands here. The second one does too. And a third."


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("This line ends with a citation.[3]", None),
        ("This line ends with a citation. [3]", "no_end_mark"),
        ("This line ends in three dots...", "no_end_mark"),
        ("This line has no end mark", "no_end_mark"),
        ("This line ends with a curly quote.”", "no_end_mark"),
        ("Only four words here.", "few_words"),
        ("Only four [1] words here.", "few_words"),
        ("Please turn on JavaScript to read.", "javascript"),
        ("By reading you accept our Cookie Policy here.", "policy_notice"),
        ("A word of a thousand and one: " + "x" * 1001 + ".", "long_word"),
        ("A word of a thousand: " + "x" * 999 + ".", None),
    ],
)
def test_line_rules(line, reason):
    cleaned = clean(f"{GOOD}\n\n{line}\n", Rules())
    assert cleaned.lines == 2
    assert dict(cleaned.dropped) == ({reason: 1} if reason else {})
    assert len(cleaned.text.split("\n")) == (1 if reason else 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Here is lorem ipsum for you.", "lorem_ipsum"),
        ("Here is a brace { for you.", "curly_bracket"),
        ("if (x) { return 1; }", ""),
        ("JavaScript code such as { is a line rule.", ""),
    ],
)
def test_page_rules(line, reason):
    assert clean(f"{GOOD}\n{line}", Rules()).reason == reason


def test_an_abbreviation_ends_no_sentence():
    text = "We met Dr. Smith at 3 p.m. on Monday. It was fine."
    assert sentences_reach([text], 2)
    assert not sentences_reach([text], 3)
    assert clean(text, Rules()).reason == "too_few_sentences"
