"""The fast rules against the literal ones, for every preset, on generated and on real pages."""

from collections import Counter
from pathlib import Path

import pytest
from c4_reference import GENERATIONS, reference, settled_reference
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.extract.html2text import extract_plain_text

from data_prep.clean import LINE_REASONS, PAGE_REASONS, PRESETS, Cleaning, cleaner_of
from data_prep.clean.presets import NoLanguage
from data_prep.clean.rules import FewWords, Rules

PAGES = Path(__file__).parents[2] / "data/quickstart/pages.warc.gz"


@pytest.fixture(scope="module")
def real_pages():
    """(address, text) of every twelfth page: what is said, all that is on it, and the end of both."""
    responses = ArchiveIterator(PAGES.open("rb"), record_types=WarcRecordType.response)
    texts = []
    for number, record in enumerate(responses):
        if number % 12 == 0:
            html = record.reader.read().decode("utf-8", "replace")
            for main in (True, False):
                url = record.headers["WARC-Target-URI"]
                text = extract_plain_text(html, main_content=main)
                texts += [(url, text), (url, "\n".join(text.split("\n")[-9:]))]
    assert len(texts) > 160
    return texts


PIECES = [
    *"The cat Dr. e.g. sat! Why? [1] [edit] [] 3.5 { end. no. and so on... \x85 “ ass, shit".split(
        " "
    ),
    *(
        "JavaScript",
        "Lorem ipsum",
        "java[2]script",
        "Ipsum",
        "x" * 1001,
        'said "no."',
        "use cookies",
    ),
    *(
        "WARC/1.0",
        "Content-Type: x",
        "\r",
        "\r\n",
        "\u2028",
        "# #",
        "… …",
        "- one",
        "y" * 199,
        "of",
    ),
]
words = st.sampled_from(PIECES) | st.text(max_size=5)
lines = st.lists(words, max_size=9).map(" ".join)
pages = st.lists(lines | st.text(max_size=30), max_size=12).map("\n".join)
# Long and repetitive enough for the rules that count words.
few = st.sampled_from("the cat of sat and ran to be end. That, # ... 12".split(" "))
proses = st.lists(st.lists(few, max_size=12).map(" ".join), max_size=16).map("\n".join)


@pytest.mark.parametrize("preset", PRESETS)
@given(pages | proses)
def test_the_fast_rules_equal_the_literal_ones(preset, text):
    cleaned = cleaner_of(Cleaning(preset=preset)).clean(text)
    kept, reason = reference(preset, text)
    # A page of which nothing is left says so even where the rules have nothing against it.
    assert (cleaned.text, cleaned.reason) == (kept, reason or ("" if kept else "empty"))
    assert cleaned.reason in ("", *PAGE_REASONS)
    assert set(cleaned.dropped) == set(cleaned.examples) <= set(LINE_REASONS)
    assert cleaned.dropped.total() <= cleaned.lines


@pytest.mark.parametrize("preset", PRESETS)
def test_the_fast_rules_equal_the_literal_ones_on_real_pages(preset, real_pages):
    cleaner, seen = cleaner_of(Cleaning(preset=preset)), Counter()
    for url, text in real_pages:
        cleaned = cleaner.clean(text)
        assert (cleaned.text, cleaned.reason) == reference(preset, text), url
        seen[cleaned.reason] += 1
    assert seen[""] > 20
    assert len(seen) > 1


@pytest.mark.parametrize("preset", GENERATIONS)
def test_pages_settle_as_in_c4(preset, real_pages):
    cleaning = Cleaning(preset=preset)
    if preset == "c4-code":
        cleaning = Cleaning(preset=preset, language=NoLanguage())
    cleaner, seen = cleaner_of(cleaning), Counter()
    left = 5 if cleaner.repeats == "sentence_spans" else None
    for url, page in real_pages[::17]:
        for text in ("", "\n".join(page.split("\n")[-4:]), page[:3000]):
            settled = cleaner.settle(text, url, left)
            wanted = settled_reference(preset, text, url, left)
            assert (settled.text, settled.reason) == wanted
            seen[settled.reason] += 1
    assert len(seen) > 1


def test_what_is_left_is_counted_as_one_text():
    # Three kept lines are enough before repeats go; afterwards the end of a line ends no sentence.
    cleaner = cleaner_of(Cleaning(language=NoLanguage()))
    text = 'they then said "no"\nand went home to "rest"\nuntil it was "over"'
    assert cleaner.clean(text).text == ""
    assert (
        cleaner_of(Cleaning(rules=Rules(few_words=FewWords(min_words=4)))).clean(text).text == text
    )
    assert cleaner.settle(text, "").reason == "too_few_sentences"
    assert cleaner.settle(text, "", 3).reason == ""
    assert cleaner_of(Cleaning(language=NoLanguage(), repeats="none")).settle(text, "").reason == ""
    assert cleaner.settle(" One is here. Two is here. Three is here.", "").text.startswith(" ")


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
        ("Please turn on Java[1]Script to read.", "javascript"),
        ("By reading you accept our Cookie Policy here.", "policy_notice"),
        ("A word of a thousand and one: " + "x" * 1001 + ".", "long_word"),
        ("A word of a thousand: " + "x" * 999 + ".", None),
        ("Content-based rules are good for you.", "header_line"),
    ],
)
def test_line_rules(line, reason):
    cleaned = cleaner_of(Cleaning()).clean(f"{GOOD}\n\n {line}\n")
    assert cleaned.lines == 2
    assert dict(cleaned.dropped) == ({reason: 1} if reason else {})
    assert set(cleaned.examples) == ({reason} if reason else set())
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
    assert cleaner_of(Cleaning()).clean(f"{GOOD}\n{line}").reason == reason


def test_a_page_goes_for_the_line_that_comes_first():
    braces, bad = "Here is a brace { for you.", "There is some shit in here."
    cleaner = cleaner_of(Cleaning(preset="c4-2019-sentences"))
    assert cleaner.clean(f"{braces}\n{bad}").reason == "curly_bracket"
    assert cleaner.clean(f"{bad}\n{braces}").reason == "bad_words_en"


def test_the_length_of_a_page_is_that_of_its_lines():
    cleaner = cleaner_of(Cleaning())
    line = "x" * 94_999
    assert cleaner.clean(f"  {line}\n\n\n\n{line}x\n\n").reason == "too_few_sentences"
    assert cleaner.clean(f"{line}x\n{line}x").reason == "too_long"
