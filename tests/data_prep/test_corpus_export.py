"""The export has C4's names, fields and documents, and the same bytes each time."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.corpus_export import CorpusExport
from pipeline import files


@dataclass
class Here:
    """The work of a stage, done in this process."""

    out: Path
    inputs: dict[str, Path]

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], *, unit: str
    ) -> Iterator[Any]:
        return map(function, items)


def test_the_shape_is_that_of_the_published_c4(tmp_path: Path) -> None:
    rows = [
        [{"text": f"Größe {part}.\nLine two.", "url": f"http://a.example/{part}/{n}", "record": n}
         for n in range(part + 1)]
        for part in range(3)
    ]  # fmt: skip
    for split, chosen in (("train", rows), ("validation", [[]])):
        for number, documents in enumerate(chosen):
            path = tmp_path / "corpus" / split / f"part-{number:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            names = ("text", "url", "record")
            table = {name: [document[name] for document in documents] for name in names}
            stamps = ["2019-04-25T12:57:54Z"] * len(documents)
            pq.write_table(pa.table({**table, "timestamp": pa.array(stamps, pa.string())}), path)
    sums = []
    for name in ("a", "b"):
        work = Here(tmp_path / name, {"c": tmp_path / "corpus"})
        counts = CorpusExport(corpus="c").run(work)
        sums.append(files.checksums_of(work.out))
    assert counts["train"] == {"files": 3, "documents": 6}
    assert counts["validation"] == {"files": 1, "documents": 0}
    assert sums[0] == sums[1]
    assert list(sums[0]) == [
        *(f"c4-train.{number:05d}-of-00003.json.gz" for number in range(3)),
        "c4-validation.00000-of-00001.json.gz",
    ]
    with gzip.open(tmp_path / "a/c4-train.00002-of-00003.json.gz", "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert lines[1].startswith('{"text": "Größe 2.\\nLine two.", "timestamp": "2019-04-25T')
    assert json.loads(lines[1]) == {
        "text": "Größe 2.\nLine two.",
        "timestamp": "2019-04-25T12:57:54Z",
        "url": "http://a.example/2/1",
    }
