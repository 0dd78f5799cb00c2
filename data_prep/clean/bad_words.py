"""Bad words: whether a page holds a word of a list, as C4 decides it.

All words of a list are looked for at once by an automaton (Aho and Corasick 1975), and an occurrence
counts if what stands around it ends a word; that gives the verdicts of C4's regular expressions in a
tenth of the time. Source: tensorflow_datasets `c4_utils.get_badwords_filter_fn`, builders 2.x and 3.x.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from string import ascii_lowercase

import ahocorasick

from pipeline.config import DataError

Finder = Callable[[str], bool]
# The list of Shutterstock, CC BY 4.0; see its `source` and `licence`.
LISTS = Path(__file__).with_name("bad_words.json")
WITHOUT_BLANKS = ("ja", "th", "zh")


@functools.cache
def bad_words(lists: Path | None) -> Mapping[str, tuple[str, ...]]:
    """Words of each language in the file `lists`, or in C4's; languages are named without suffixes."""
    if lists is None:
        data = json.loads(LISTS.read_text(encoding="utf-8"))["lists"]
    else:
        data = _own(lists)
    words: dict[str, list[str]] = {}
    for language, given in data.items():
        words.setdefault(language.split("-")[0], []).extend(word.strip() for word in given)
    return {language: tuple(dict.fromkeys(given)) for language, given in words.items()}


def _own(path: Path) -> dict[str, list[str]]:
    """A user's lists."""
    wanted = '{"en": ["word", "two words"], ...}'
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"bad_words.lists: {path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise DataError(f"bad_words.lists: {path}: not JSON in UTF-8; needed: {wanted}") from None
    if not isinstance(data, dict) or not all(
        isinstance(words, list) and words and all(isinstance(w, str) and w.strip() for w in words)
        for words in data.values()
    ):
        raise DataError(f"bad_words.lists: {path}: needed: {wanted}, no list or word empty")
    return data


@functools.cache
def finder_of(lists: Path | None, language: str) -> Finder | None:
    """What finds the bad words of `language` (without suffix) in a lower-cased page, if it has a list."""
    words = bad_words(lists).get(language)
    return page_finder(language, words) if words else None


@functools.cache
def english_finder(lists: Path | None) -> Finder:
    """What finds English bad words in a lower-cased line."""
    words = bad_words(lists).get("en")
    if words is None:
        raise DataError(f"bad_words.lists: {lists}: has no list 'en', which form 'line' looks in")
    return line_finder(words)


def page_finder(language: str, words: Iterable[str]) -> Finder:
    """C4 3.x, on a lower-cased page: a word between characters that belong to no word, or at an end of
    the page; in languages that write no blanks, anywhere.
    """
    automaton = _automaton(words)
    if language in WITHOUT_BLANKS:
        return lambda text: next(automaton.iter(text), None) is not None

    def found(text: str) -> bool:
        last = len(text) - 1
        for end, length in automaton.iter(text):
            before = end - length
            if (before < 0 or not _in_word(text[before])) and (
                end == last or not _in_word(text[end + 1])
            ):
                return True
        return False

    return found


def line_finder(words: Iterable[str]) -> Finder:
    """C4 2.x, on a lower-cased line: a word between characters that are not a to z, and never at an end
    of the line, where there is no such character.
    """
    automaton = _automaton(words)

    def found(line: str) -> bool:
        last = len(line) - 1
        for end, length in automaton.iter(line):
            before = end - length
            if before >= 0 and end < last:
                if line[before] not in ascii_lowercase and line[end + 1] not in ascii_lowercase:
                    return True
        return False

    return found


def _automaton(words: Iterable[str]) -> ahocorasick.Automaton:
    automaton = ahocorasick.Automaton()
    for word in words:
        automaton.add_word(word, len(word))
    automaton.make_automaton()
    return automaton


def _in_word(character: str) -> bool:
    """What `\\w` matches."""
    return character.isalnum() or character == "_"


def spares(url: str, filter_fraction: float) -> bool:
    """Whether the page at a normalised address stays in spite of a bad word."""
    part, whole = filter_fraction.as_integer_ratio()
    digest = hashlib.md5(url.encode("utf-8", "replace"), usedforsecurity=False).digest()
    return int.from_bytes(digest) % whole >= part
