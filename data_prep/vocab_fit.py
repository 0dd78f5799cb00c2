"""How a vocabulary does on validation text: of all of it, of each source and of each language.

Fertility is tokens per word (a stretch without white space); where words are not set apart it says little, and
characters per token says more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.documents import parts_of
from data_prep.part_columns import texts_by_kind
from pipeline.flow.stage import Work
from pipeline.tokenizer import Vocabulary, load_vocabulary

MEASURES = ("characters", "words", "tokens", "unknown")
Sums = dict[tuple[str, str], np.ndarray]  # (source, language) to the sums of MEASURES


@dataclass(frozen=True)
class FitUnit:
    """One part to be encoded with the vocabulary in a folder."""

    part: Path
    vocab: Path


def validation_fit(work: Work, corpus: Path, vocab: Path) -> dict[str, Any]:
    """Figures of the validation split of `corpus`, and those of its sources and languages."""
    units = [FitUnit(part, vocab) for part in parts_of(corpus, "validation")]
    sums: Sums = {}
    for found in work.map(fit_part, units, unit="parts encoded"):
        for kind, measured in found.items():
            sums[kind] = sums.get(kind, 0) + measured
    return {
        **_figures(list(sums.values())),
        "sources": _by(sums, 0),
        "languages": _by(sums, 1),
    }


def fit_part(unit: FitUnit) -> Sums:
    """Sums of one part."""
    vocabulary = load_vocabulary(unit.vocab)
    sums: Sums = {}
    for source, language, texts in texts_by_kind(unit.part):
        before = sums.get((source, language), 0)
        sums[source, language] = before + measured_texts(vocabulary, texts)
    return sums


def measured_texts(vocabulary: Vocabulary, texts: Sequence[str]) -> np.ndarray:
    """Characters, words, tokens and unknown tokens of these texts. [4], int64."""
    encoded = vocabulary.encode(texts)
    return np.array(
        [
            sum(map(len, texts)),
            sum(len(text.split()) for text in texts),
            sum(map(len, encoded)),
            sum(int(np.count_nonzero(ids == vocabulary.unk)) for ids in encoded),
        ],
        dtype=np.int64,
    )


def _by(sums: Mapping[tuple[str, str], np.ndarray], place: int) -> dict[str, dict[str, Any]]:
    """Figures of each source (place 0) or language (place 1), by name."""
    names = sorted({kind[place] for kind in sums})
    return {
        name: _figures([found for kind, found in sums.items() if kind[place] == name])
        for name in names
    }


def _figures(sums: Sequence[np.ndarray]) -> dict[str, Any]:
    totals = dict(zip(MEASURES, sum(sums, np.zeros(4, np.int64)).tolist(), strict=True))
    tokens, words = totals["tokens"], totals["words"]
    return {
        **totals,
        "characters_per_token": round(totals["characters"] / tokens, 4) if tokens else None,
        "tokens_per_word": round(tokens / words, 4) if words else None,
        "unknown_rate": round(totals["unknown"] / tokens, 6) if tokens else None,
    }
