"""Each rule of Gopher and FineWeb drops the page it is there for; n-grams are counted as one counts by hand."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.clean import PRESETS, Cleaning, cleaner_of
from data_prep.clean.cleaner import FIRST, LAST
from data_prep.clean.ngrams import ONCE, Ngrams

NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
GOOD = """The mill stands where the river leaves the forest and bends towards the town.

In summer children swim below the weir, although a sign has told them not to for forty years.
Nobody has ground corn here since the war; the wheel turns because the owners like its sound.
They keep bees, write letters to newspapers, and let two rooms to people who come for the birds.

When the water is high you can hear it from the church. Old men say that means rain, but it has
rained already by then, far up in the hills, and what arrives is only the news of it."""
PAGES = {
    "repeated_paragraphs": f"{GOOD}\n\n{GOOD}",
    "repeated_lines": f"{GOOD}\n{GOOD}",
    "top_ngrams": " ".join(f"{word} interesting things" for word in GOOD.split()),
    "repeated_ngrams": f"{GOOD}\n{GOOD}",
    "word_count": GOOD[:200],
    "word_length": " ".join(f"the {'x' * 20}{number}" for number in range(50)),
    "symbols": GOOD.replace(" the ", " the # ... #"),
    "bullet_lines": "- " + GOOD.replace("\n\n", "\n").replace("\n", "\n• "),
    "ellipsis_lines": GOOD.replace("\n", "...\n"),
    "alphabetic_words": GOOD + " 1,000" * 40,
    "stop_words": GOOD.upper(),
    "unfinished_lines": GOOD.replace(".", ","),
    "short_lines": GOOD.replace(" ", "\n"),
    "repeated_characters": f"{GOOD}\nWhat there is to be said.\nWhat there is to be said.",
    "line_breaks": GOOD.replace(" ", "\n", 40),
}


def only(reason, **limits):
    """A cleaner with one rule."""
    preset = "fineweb" if reason in LAST else "gopher"
    others = tuple(name for name, _ in PRESETS[preset].rules.on() if name != reason)
    return cleaner_of(Cleaning(preset=preset, without=others, rules={reason: limits}))


def test_good_text_stays():
    assert set(PAGES) == set(FIRST) - {"few_paragraphs"} | set(LAST)
    for preset in ("gopher", "fineweb"):
        assert cleaner_of(Cleaning(preset=preset)).clean(GOOD).reason == ""


@pytest.mark.parametrize("reason", PAGES)
def test_a_rule_drops_its_page(reason):
    assert only(reason).clean(GOOD).reason == ""
    assert only(reason).clean(PAGES[reason]).reason == reason


@pytest.mark.parametrize(
    ("reason", "text", "stays", "goes"),
    [
        ("bullet_lines", "• one\n" * 9 + "two\n", {"max_share": 0.9}, {"max_share": 0.89}),
        ("word_count", "one, two - 3.", {"min_words": 3}, {"min_words": 4}),
        ("word_length", "«abc», (de)", {"min_mean": 2.5}, {"min_mean": 2.6}),
        ("alphabetic_words", "a 1 b2 (3)", {"min_share": 0.5}, {"min_share": 0.51}),
        ("short_lines", "abcd\nabcdefg\n", {"characters": 3}, {"characters": 7}),
        # Twice "a b" with its blank is 6 of 9 characters.
        ("top_ngrams", "a b c a b", {"max_shares": [0.67]}, {"max_shares": [0.66]}),
        (
            "repeated_ngrams",
            "a b c d e a b c d e",
            {"max_shares": [0.27]},  # 5 of 19 are 0.263
            {"max_shares": [0.26]},
        ),
    ],
)
def test_a_limit_is_what_it_says(reason, text, stays, goes):
    assert only(reason, **stays).clean(text).reason == ""
    assert only(reason, **goes).clean(text).reason == reason


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.integers(1, 10))
def test_ngrams_are_counted_as_by_hand(words, size):
    if size > len(words):
        return
    grams = [tuple(words[place : place + size]) for place in range(len(words) - size + 1)]
    times, found = Counter(grams), Ngrams(words).of(size)
    assert [number != ONCE for number in found.number] == [times[gram] > 1 for gram in grams]
    named = {}
    for gram, number in zip(grams, found.number.tolist(), strict=True):
        if number != ONCE:
            assert named.setdefault(number, gram) == gram
            assert found.times[number] == times[gram]
    assert len(set(named.values())) == len(named) == len(found.times)
    if size > 1:
        assert found.first.tolist() == [grams.index(named[number]) for number in sorted(named)]
