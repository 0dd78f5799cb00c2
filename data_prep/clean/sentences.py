"""Sentences: NLTK's Punkt splitter with its English parameters, as C4 uses it for every language."""

import functools
from collections.abc import Iterable
from itertools import islice

import punkt
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer


def sentences(text: str) -> list[str]:
    """The sentences of a line or text; one at least if it is not blank."""
    found: list[str] = splitter().tokenize(text)
    return found


def sentences_reach(parts: Iterable[str], least: int) -> bool:
    """Whether `parts`, each split by itself, hold `least` sentences together."""
    found = 0
    for part in parts:
        found += sum(1 for _ in islice(splitter().span_tokenize(part), least - found))
        if found >= least:
            return True
    return found >= least


def lines_reach(lines: list[str], least: int) -> bool:
    """The same for lines that are not blank: each holds one sentence at least, so enough lines need
    no splitter.
    """
    return len(lines) >= least or sentences_reach(lines, least)


@functools.cache
def splitter() -> PunktSentenceTokenizer:
    """The splitter; its parameters come from a package instead of a download."""
    learnt = punkt.load_model("english")
    parameters = PunktParameters()
    parameters.abbrev_types.update(learnt.abbrev_types)
    parameters.collocations.update(learnt.collocations)
    parameters.sent_starters.update(learnt.sent_starters)
    parameters.ortho_context.update(learnt.ortho_context)
    return PunktSentenceTokenizer(parameters)
