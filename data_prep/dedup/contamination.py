"""Contamination: documents that share a long run of words with a text models are evaluated on.

The 13-grams of all evaluation texts are kept as sorted 64-bit hashes; a document with any of them is
contaminated. Words are compared in lower case and without punctuation. Source: Brown et al. 2020
(arXiv 2005.14165), appendix C.

Two different n-grams share a hash with a probability of 2^-64, so of a corpus with C n-grams
checked against E of evaluation texts at most C * E / 2^64 hits are expected to be false: one in two
million for a thousand million by ten thousand. The report names the bound for the run.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from data_prep.dedup import exact, tables
from data_prep.dedup.words import gram_hashes, gram_places, words_of
from pipeline import files
from pipeline.complaints import listed
from pipeline.config import DataError, config

GRAMS, NAMES = "grams.npy", "grams.json"
FILTER_BITS = 20
EXAMPLES_PER_SET = 5
NonEmpty = Annotated[tuple[str, ...], pydantic.Field(min_length=1)]


@config
class EvaluationSet:
    """Texts that models are evaluated on: `paths` are files, with `*` if wanted; `.txt` is one
    text a file, `.jsonl` and `.jsonl.gz` one document a line, whose texts are in `fields`.
    """

    name: Annotated[str, pydantic.Field(min_length=1)]
    paths: NonEmpty
    fields: NonEmpty = ("text",)


@config
class Contamination:
    """Documents that share `gram_words` words in a row with one of `sets` are removed, or only
    counted: `action`.
    """

    sets: Annotated[tuple[EvaluationSet, ...], pydantic.Field(min_length=1)]
    gram_words: Annotated[int, pydantic.Field(ge=3)] = 13
    action: Literal["remove", "count"] = "remove"

    def sources(self) -> list[Path]:
        """Every evaluation file once."""
        return sorted({path for each in self.sets for path in files_of(each)})


@dataclass(frozen=True)
class Hit:
    """Words that a document shares with an evaluation text: the set, the text (file and line), the
    first shared n-gram as the document has it, and how many n-grams it shares with that text.
    """

    set: str
    text: str
    gram: str
    count: int


def files_of(evaluation: EvaluationSet) -> list[Path]:
    """Files of a set in order of their names."""
    found: set[Path] = set()
    for pattern in map(Path, evaluation.paths):
        found.update(Path(pattern.anchor).glob(pattern.relative_to(pattern.anchor).as_posix()))
    if not found:
        raise DataError(
            f"evaluation set {evaluation.name!r}: no file matches {listed(evaluation.paths)} "
            f"(looked from {Path.cwd()}); correct the path"
        )
    return sorted(found)


def texts_of(evaluation: EvaluationSet) -> Iterator[tuple[str, str]]:
    """(file and line, text) of every text of a set."""
    for path in files_of(evaluation):
        if path.name.endswith(".txt"):
            yield path.as_posix(), path.read_text(encoding="utf-8", errors="replace")
        elif path.name.endswith((".jsonl", ".jsonl.gz")):
            for number, row in _json_rows(path):
                place = f"{path.as_posix()}:{number}"
                for name in evaluation.fields:
                    if not isinstance(row, dict) or name not in row:
                        keys = listed(row) if isinstance(row, dict) else "no keys"
                        raise DataError(f"{place}: has no field {name!r}, only {keys}")
                    yield place, str(row[name])
        else:
            raise DataError(f"{path}: evaluation sets are .txt, .jsonl or .jsonl.gz")


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    with opened as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}:{number}: is not JSON ({error})") from None


def write_grams(folder: Path, contamination: Contamination) -> Path:
    """Save the n-grams of every evaluation text, once; returns `folder`, for `Grams`.

    `grams.npy` is uint64 [2, n-grams]: the hash, and the first text that has it; sorted.
    """
    if (folder / NAMES).exists():
        return folder
    size, places, sets = contamination.gram_words, list[list[str]](), list[dict[str, Any]]()
    parts = [np.zeros((2, 0), dtype=np.uint64)]
    for each in contamination.sets:
        short = total = 0
        for place, text in texts_of(each):
            found = np.unique(gram_hashes(words_of([text]).hashes, size))
            total, short = total + 1, short + (not len(found))
            parts.append(np.stack((found, np.full(len(found), len(places), dtype=np.uint64))))
            places.append([each.name, place])
        sets.append({"name": each.name, "texts": total, "too_short": short})
    table = np.concatenate(parts, axis=1)
    table = table[:, np.lexsort((table[1], table[0]))]
    tables.save(folder / GRAMS, table[:, tables.first_of_group(table[0])])
    files.write_json(folder / NAMES, {"gram_words": size, "sets": sets, "texts": places})
    return folder


class Grams:
    """The n-grams of the evaluation texts, to look up those of documents in.

    `checked` counts the n-grams of documents that were looked up.
    """

    def __init__(self, folder: Path) -> None:
        names = files.read_json(folder / NAMES)
        self.size: int = names["gram_words"]
        self.texts: list[list[str]] = names["texts"]
        self.hashes, self.owners = np.load(folder / GRAMS)
        # Nearly every n-gram of a document is told to be none of these by its first bits.
        self._maybe = np.zeros(1 << FILTER_BITS, dtype=bool)
        self._maybe[self._bits(self.hashes)] = True
        self.checked = 0

    @staticmethod
    def _bits(hashes: np.ndarray) -> np.ndarray:
        return (hashes >> np.uint64(64 - FILTER_BITS)).astype(np.int64)

    def hits(self, text: str) -> list[Hit]:
        """What a document shares with evaluation texts, one hit for each text; none if it is
        clean.
        """
        return self.hits_of([text])[0]

    def hits_of(self, texts: Sequence[str]) -> list[list[Hit]]:
        """The hits of several documents; quicker than one at a time."""
        words = words_of(texts)
        found = gram_hashes(words.hashes, self.size)
        inside = gram_places(words.counts, self.size)
        self.checked += int(inside.sum())
        maybe = np.flatnonzero(self._maybe[self._bits(found)] & inside)
        places = maybe[tables.is_among(found[maybe], self.hashes)]
        hits: list[list[Hit]] = [[] for _ in texts]
        if not len(places):
            return hits
        document_of = np.repeat(np.arange(len(texts)), words.counts)
        owners = self.owners[np.searchsorted(self.hashes, found[places])]
        shared = list(zip(document_of[places].tolist(), owners.tolist(), strict=True))
        firsts = dict(reversed(list(zip(shared, places.tolist(), strict=True))))
        for (document, owner), count in Counter(shared).items():
            place = firsts[document, owner]
            start, end = words.starts[place], words.ends[place + self.size - 1]
            name, where = self.texts[owner]
            hits[document].append(Hit(name, where, texts[document][start:end], count))
        return hits


@dataclass
class Exposure:
    """What was found in the documents of a unit or a corpus: for each set how many documents share
    how many n-grams with it, which of its texts, and examples.
    """

    documents: int = 0
    contaminated: int = 0
    checked: int = 0
    in_documents: Counter[str] = field(default_factory=Counter)
    grams: Counter[str] = field(default_factory=Counter)
    texts: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, document: Mapping[str, Any], hits: Sequence[Hit]) -> None:
        """Count one document, which is named by `document` (address, file, record)."""
        self.documents += 1
        self.contaminated += bool(hits)
        self.in_documents.update({hit.set for hit in hits})
        for hit in hits:
            self.grams[hit.set] += hit.count
            self.texts.setdefault(hit.set, Counter())[hit.text] += 1
            self._offer(hit.set, dict(document) | {"text": hit.text, "gram": hit.gram})

    def merge(self, other: "Exposure") -> None:
        """Add the counts of `other` to these."""
        self.documents += other.documents
        self.contaminated += other.contaminated
        self.checked += other.checked
        self.in_documents.update(other.in_documents)
        self.grams.update(other.grams)
        for name, texts in other.texts.items():
            self.texts.setdefault(name, Counter()).update(texts)
        for name, examples in other.examples.items():
            for example in examples:
                self._offer(name, example)

    def _offer(self, name: str, example: dict[str, Any]) -> None:
        rivals = [*self.examples.get(name, []), example]
        self.examples[name] = sorted(rivals, key=_key)[:EXAMPLES_PER_SET]


def _key(example: Mapping[str, Any]) -> bytes:
    return exact.digest_of(json.dumps(example, sort_keys=True, default=str))


def exposure_of(value: Mapping[str, Any]) -> Exposure:
    """The counts whose `vars` were saved as JSON."""
    whole = Exposure(**value)
    whole.in_documents, whole.grams = Counter(whole.in_documents), Counter(whole.grams)
    whole.texts = {name: Counter(texts) for name, texts in whole.texts.items()}
    return whole


def contamination_report(folder: Path, exposure: Exposure) -> dict[str, Any]:
    """The report on contamination: for each set what was found, and the bound on false hits."""
    names = files.read_json(folder / NAMES)
    known = np.load(folder / GRAMS, mmap_mode="r").shape[1]
    sets = [
        dict(each)
        | {
            "texts_found": len(exposure.texts.get(each["name"], ())),
            "documents_with_it": exposure.in_documents[each["name"]],
            "shared_grams": exposure.grams[each["name"]],
            "examples": exposure.examples.get(each["name"], []),
        }
        for each in names["sets"]
    ]
    return {
        "gram_words": names["gram_words"],
        "documents": {"checked": exposure.documents, "contaminated": exposure.contaminated},
        "grams": {"of_sets": known, "checked": exposure.checked},
        "expected_false_hits_at_most": exposure.checked * known / 2.0**64,
        "sets": sets,
    }
