"""The third pass: what becomes of each page of a block, now that repeats in the corpus are known.

Pages that occur elsewhere go, lines or spans that occur elsewhere are taken out, and what is left
is judged as a whole: sentences, language, bad words, privacy, contamination.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.clean import Cleaning, cleaner_of, sentences
from data_prep.corpus.reading import PAGE_SCHEMA, PAGES
from data_prep.dedup import exact, lines, repeats, spans
from data_prep.dedup.contamination import Exposure, Grams
from data_prep.documents import rows_of
from data_prep.tally import SAMPLE_CHARACTERS

CONTAMINATED, EMPTIED = "contaminated", "emptied_by_line_dedup"
NOTHING_LEFT = ("too_few_sentences", "empty")
REPEAT_REASONS = {"lines": "duplicate_line", "sentence_spans": "duplicate_span", "none": ""}
SETTLED_SCHEMA = pa.schema(
    [
        *PAGE_SCHEMA,
        pa.field("row", pa.int64()),
        pa.field("language", pa.string()),
        pa.field("masked", pa.map_(pa.string(), pa.int64())),
        pa.field("gone_lines", pa.int64()),
        pa.field("repeated", pa.string()),  # an example of what was taken out
    ]
)


@dataclass(frozen=True)
class Block:
    """A block of pages: its place among all blocks, its folder, and the name of its source."""

    number: int
    folder: Path
    source: str


@dataclass(frozen=True)
class Settling:
    """A block to be settled: how, what was found to repeat, and grams it must not hold."""

    block: Block
    cleaning: Cleaning
    found: tuple[Path, ...]
    grams: Path | None
    removes_contaminated: bool


def settled_rows(task: Settling, exposure: Exposure) -> Iterator[dict[str, Any]]:
    """Rows of SETTLED_SCHEMA, in the order of the block: `reason` is "" for what stays. What they
    share with evaluation sets is added to `exposure`.
    """
    gone = repeats.gone_in(task.found, task.block.number)
    verdicts = exact.verdict_of(task.block.folder)
    for number, row in enumerate(rows_of(task.block.folder / PAGES)):
        row |= {"row": number, "language": "", "masked": {}, "gone_lines": 0, "repeated": ""}
        verdict = int(verdicts[number])
        if verdict == exact.STAYS:
            row |= _settled(task, row, gone.get(number, set()))
            if not row["reason"] and _is_contaminated(task, row, exposure):
                row |= {"text": "", "reason": CONTAMINATED, "masked": {}}
        else:
            row |= {"text": "", "reason": exact.REASONS.get(verdict, row["reason"])}
        yield row


def _settled(task: Settling, row: Mapping[str, Any], gone: set[int]) -> dict[str, Any]:
    """What changes in a row that no other page replaces."""
    cleaner, sentences_left = cleaner_of(task.cleaning), None
    text, gone_lines, repeated = row["text"], 0, ""
    if cleaner.repeats == "sentence_spans":
        left = spans.without(text, gone, sentences)
        text, sentences_left = left.text, left.sentences
    elif gone:
        gone_lines, repeated = len(gone), text.split("\n")[min(gone)][:SAMPLE_CHARACTERS]
        text = lines.without(text, gone)
    settled = cleaner.settle(text, row["url"], sentences_left)
    facts: dict[str, Any] = {"language": settled.language, "masked": dict(settled.masked)}
    facts |= {"gone_lines": gone_lines, "repeated": repeated}
    if settled.reason:
        emptied = bool(gone) and settled.reason in NOTHING_LEFT
        return facts | {"text": "", "reason": EMPTIED if emptied else settled.reason, "masked": {}}
    return facts | {"text": settled.text}


def _is_contaminated(task: Settling, row: Mapping[str, Any], exposure: Exposure) -> bool:
    """Whether a document goes because of what it shares with an evaluation set."""
    if task.grams is None:
        return False
    grams = _grams(task.grams)
    before = grams.checked
    hits = grams.hits(row["text"])
    facts = {"url": row["url"], "source": task.block.source}
    exposure.add(facts | {name: row[name] for name in ("file", "record")}, hits)
    exposure.checked += grams.checked - before
    return bool(hits) and task.removes_contaminated


@functools.lru_cache(maxsize=1)
def _grams(path: Path) -> Grams:
    return Grams(path)
