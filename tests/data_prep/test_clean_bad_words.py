"""Bad words are found where C4's regular expressions find them, and nowhere else."""

import json
import re

import pytest
from c4_reference import bad_words as all_words
from c4_reference import has_bad_word, is_spared, page_pattern
from hypothesis import given
from hypothesis import strategies as st

from data_prep.clean import Cleaning, cleaner_of
from data_prep.clean.bad_words import bad_words, english_finder, finder_of, spares
from data_prep.clean.presets import FastLanguage
from data_prep.clean.rules import BadWords, Rules
from data_prep.dedup.exact import normalised_url
from pipeline.config import DataError

LANGUAGES = sorted(bad_words(None))
LINE = re.compile("[^a-z](" + "|".join(all_words("en")) + ")[^a-z]")
SAID = "The sentence stands here. The second one does too, you {}. And so does a third of them."


def texts(language):
    """Texts in which words of a list stand alone, inside other words, and at ends."""
    word = st.sampled_from(all_words(language))
    around = st.sampled_from(["", " ", "_", "-", ".", "s", "é", "1", "\n", "²", "ा"])
    return st.lists(st.one_of(around, word, st.text(max_size=2)), max_size=8).map("".join)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_of_every_list_is_found_as_the_pattern_finds_it(language):
    # Words with capitals are never found in a text that is lower-cased; that is so in C4.
    find, pattern = finder_of(None, language), page_pattern(language)
    for word in all_words(language):
        for text in (word, f"x {word} x", f"x{word}", f"{word}x", f"_{word}_", f"{word}\n"):
            assert find(text.lower()) == bool(pattern.search(text.lower())), text


@pytest.mark.parametrize("language", ["en", "de", "hi", "ja"])
def test_pages_are_judged_as_by_the_pattern(language):
    @given(texts(language))
    def judged(text):
        assert finder_of(None, language)(text.lower()) == has_bad_word(language, text)

    judged()
    assert finder_of(None, "xx") is None


@given(texts("en"))
def test_lines_are_judged_as_by_the_pattern_of_2019(text):
    assert english_finder(None)(text.lower()) == bool(LINE.search(text.lower()))


def test_the_lists_are_those_of_c4():
    assert len(bad_words(None)["en"]) == 403
    assert len(LANGUAGES) == 27
    assert {"tabarnak", "merde"} <= set(bad_words(None)["fr"])


def test_a_page_goes_by_the_list_of_its_language_unless_its_address_spares_it():
    cleaning = Cleaning(
        language=FastLanguage(), rules=Rules(bad_words=BadWords(filter_fraction=0.75))
    )
    cleaner, spared = cleaner_of(cleaning), 0
    for number in range(200):
        url = f"https://www.example.org/{number}/"
        settled = cleaner.settle(SAID.format("shit"), url)
        assert (settled.reason == "") == is_spared(normalised_url(url), 0.75)
        assert settled.reason in ("", "bad_words_en")
        spared += settled.reason == ""
    assert 30 < spared < 70
    assert cleaner.settle(SAID.format("merde"), "").reason == ""
    french = (
        "C'est une longue phrase en français. En voici une autre, merde. Et voici la troisième."
    )
    assert not spares("example.org/1", 0.75)
    assert cleaner.settle(french, "example.org/1").reason == "bad_words_fr"


def test_lists_of_ones_own(tmp_path):
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"en": ["teapot"], "de": ["Kanne"]}))
    page, line = (
        cleaner_of(
            Cleaning(
                language=FastLanguage(), rules=Rules(bad_words=BadWords(form=form, lists=path))
            )
        )
        for form in ("page", "line")
    )
    assert page.settle(SAID.format("teapot"), "").reason == "bad_words_en"
    assert page.settle(SAID.format("shit"), "").reason == ""
    assert line.clean(SAID.format("teapot")).reason == "bad_words_en"
    assert Cleaning(rules=Rules(bad_words=BadWords(lists=path))).files == (path,)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"en": []}', '{"en": [""]}', '{"en": "word"}', "\ud800"]
)
def test_lists_that_are_none_are_refused(tmp_path, text):
    path = tmp_path / "words.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(DataError, match="needed"):
        finder_of(path, "en")
    with pytest.raises(DataError, match="cannot be read"):
        finder_of(tmp_path, "en")
