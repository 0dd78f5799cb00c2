"""The tokens stage writes every document once, in order, and does nothing twice."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.tokens import Tokens
from data_prep.vocab import Vocab
from pipeline import files
from pipeline.config import DataError
from pipeline.data.shards import TokenRows
from pipeline.tokenizer import load_vocabulary

PAGES = {
    "train": [
        [f"Page {n} of part {part}.\nIt is {n * n} lines long." for n in range(20)]
        for part in range(3)
    ],
    "validation": [["One short page."], []],
}


@dataclass
class Here:
    """The work of a stage, done in this process, units last to first as a cluster might."""

    out: Path
    inputs: Mapping[str, Path]

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], **_about: Any
    ) -> Iterator[Any]:
        return reversed([function(item) for item in reversed(items)])

    def progress(self, done: int, total: int, unit: str, **figures: float) -> None:
        raise NotImplementedError

    def train(self, stage: Any) -> None:
        raise NotImplementedError


def write_corpus(folder: Path, pages: Mapping[str, list[list[str]]]) -> None:
    for split, parts in pages.items():
        (folder / split).mkdir(parents=True)
        for number, texts in enumerate(parts):
            table = pa.table({"text": pa.array(texts, pa.string())})
            pq.write_table(table, folder / split / f"part-{number:05d}.parquet")


@pytest.fixture
def work(tmp_path: Path) -> Here:
    write_corpus(tmp_path / "corpus", PAGES)
    work = Here(tmp_path / "vocab", {"c": tmp_path / "corpus", "v": tmp_path / "vocab"})
    Vocab(corpus="c", size=310, algorithm="bpe", num_threads=1, num_sentinels=5).run(work)
    return Here(tmp_path / "out", work.inputs)


STAGE = Tokens(corpus="c", vocab="v", row_length=16)
FIGURES = ("documents", "rows", "tokens", "pack_efficiency")


def test_every_document_is_there_once_in_order(work: Here) -> None:
    counts = STAGE.run(work)
    vocabulary = load_vocabulary(work.inputs["v"])
    for split in ("train", "validation"):
        rows = TokenRows(work.out, split)
        rows.verify()
        documents = [ids for texts in PAGES[split] for ids in vocabulary.encode(texts)]
        expected = np.concatenate(documents)
        got = np.concatenate([rows.row(index).ids for index in range(len(rows))])
        assert np.array_equal(got, expected)
        assert counts[split] == {
            "documents": len(documents),
            "rows": len(rows),
            "tokens": len(expected),
            "shards": len(PAGES[split]),
            "pack_efficiency": round(len(expected) / (16 * len(rows)), 6),
            "sources": {"": {key: counts[split][key] for key in FIGURES}},
        }
        assert rows.vocabulary().digest == vocabulary.digest


def test_a_document_of_one_row_keeps_its_ends(work: Here) -> None:
    STAGE.run(work)
    vocabulary = load_vocabulary(work.inputs["v"])
    row = TokenRows(work.out, "train").row(0)
    first = len(vocabulary.encode(PAGES["train"][0][:1])[0])
    assert row.lengths[0] == min(first, 16)


@pytest.mark.parametrize("packing", ["concatenate", "best_fit", "one_document"])
def test_rows_never_mix_sources(work: Here, packing: Any) -> None:
    path = work.inputs["c"] / "train" / "part-00001.parquet"
    owners = ["web", "books"] * 10
    pq.write_table(pa.table({"text": PAGES["train"][1], "source": owners}), path)
    files.write_json(work.inputs["c"] / "counts.json", {"sources": {"books": {"weight": 2.5}}})
    counts = Tokens(corpus="c", vocab="v", row_length=16, packing=packing).run(work)["train"]
    vocabulary, rows = load_vocabulary(work.inputs["v"]), TokenRows(work.out, "train")
    found = {one.name: one for one in rows.sources()}
    assert {name: one.weight for name, one in found.items()} == {"": 1, "books": 2.5, "web": 1}
    for name, one in found.items():
        own = [rows.row(row).ids for row in one.at(np.arange(one.num_rows)).tolist()]
        texts = [
            text
            for part, page in enumerate(PAGES["train"])
            for text, owner in zip(page, owners if part == 1 else [""] * 20, strict=True)
            if owner == name
        ]
        expected = np.concatenate(vocabulary.encode(texts))
        assert np.array_equal(np.sort(np.concatenate(own)), np.sort(expected))
        assert counts["sources"][name]["tokens"] == len(expected)
        assert counts["sources"][name]["documents"] == len(texts)


def test_one_document_a_row_keeps_documents_apart(work: Here) -> None:
    counts = Tokens(corpus="c", vocab="v", row_length=16, packing="one_document").run(work)
    vocabulary, rows = load_vocabulary(work.inputs["v"]), TokenRows(work.out, "train")
    ids = iter([rows.row(index).ids for index in range(len(rows))])
    for document in vocabulary.encode([text for part in PAGES["train"] for text in part]):
        for start in range(0, len(document), 16):
            assert np.array_equal(next(ids), document[start : start + 16])
    assert next(ids, None) is None
    places = 16 * len(rows)
    assert counts["train"]["pack_efficiency"] == round(counts["train"]["tokens"] / places, 6)


def test_a_second_run_keeps_finished_shards_and_says_the_same(work: Here) -> None:
    first = STAGE.run(work)
    shards = sorted(work.out.rglob("*.arrow"))
    for path in shards[1:]:
        os.utime(path, ns=(1, 1))
    shards[0].unlink()
    (work.out / "train" / ".shard-00000.arrow.123").write_bytes(b"half a shard")
    before = files.checksums_of(work.out)
    assert STAGE.run(work) == first
    assert [path.stat().st_mtime_ns == 1 for path in shards] == [False] + [True] * 4
    after = files.checksums_of(work.out)
    assert {name for name in before if name not in after} == {"train/.shard-00000.arrow.123"}
    assert all(after[name] == before[name] for name in after if name in before)


def test_two_runs_write_the_same_bytes(work: Here, tmp_path: Path) -> None:
    STAGE.run(work)
    STAGE.run(Here(tmp_path / "again", work.inputs))
    assert files.checksums_of(work.out) == files.checksums_of(tmp_path / "again")


def test_a_corpus_without_text_is_refused(work: Here, tmp_path: Path) -> None:
    write_corpus(tmp_path / "empty", {"train": [[]], "validation": [[]]})
    with pytest.raises(DataError, match="train split has no text"):
        STAGE.run(Here(tmp_path / "out", {**work.inputs, "c": tmp_path / "empty"}))


def test_a_part_that_is_not_parquet_is_refused(work: Here) -> None:
    (work.inputs["c"] / "train" / "part-00001.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=r"part-00001.parquet: cannot be read as Parquet"):
        STAGE.run(work)


def test_a_part_without_text_column_is_refused(work: Here) -> None:
    pq.write_table(pa.table({"body": ["x"]}), work.inputs["c"] / "train" / "part-00001.parquet")
    with pytest.raises(DataError, match="has no column 'text', only body"):
        STAGE.run(work)
