"""The `corpus_export` stage: a corpus as gzipped JSON lines, in the shape in which C4 is published.

`c4-train.00000-of-01024.json.gz` and so on, each line an object with text, timestamp and url (Dodge et al. 2021; the
`en` folder of allenai/c4). One file for each part of the corpus.
"""

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from data_prep.documents import SPLITS, parts_of
from data_prep.part_columns import columns_of, sources_in
from pipeline import files
from pipeline.config import config
from pipeline.flow.stage import Artifact, Claim, Reads, Work

COLUMNS = ("text", "timestamp", "url")
GZIP_LEVEL = 6


@config
class CorpusExport:
    """Writes `corpus` as `<name>-<split>.00000-of-00012.json.gz`."""

    makes: ClassVar[Artifact] = "export"
    claims: ClassVar[Claim] = "units"
    version: ClassVar[int] = 1

    kind: Literal["corpus_export"] = "corpus_export"
    corpus: Annotated[str, Reads("corpus")]
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "c4"

    def sources(self) -> Sequence[Path]:
        """None: everything comes from another stage."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write the files; report how many, and their documents, for each split."""
        counts = {}
        for split in SPLITS:
            parts = parts_of(work.inputs[self.corpus], split)
            units = [
                ExportUnit(
                    part, work.out / f"{self.name}-{split}.{number:05d}-of-{len(parts):05d}.json.gz"
                )
                for number, part in enumerate(parts)
            ]
            documents = sum(work.map(export_part, units, unit=f"{split} files"))
            counts[split] = {"files": len(units), "documents": documents}
        return counts


@dataclass(frozen=True)
class ExportUnit:
    """One part and the file it goes into."""

    part: Path
    path: Path


def export_part(unit: ExportUnit) -> int:
    """Write one file unless it is there; returns its documents."""
    if not unit.path.exists():
        buffer = io.BytesIO()
        # No time and no name in the header, so that the same documents are the same bytes.
        with gzip.GzipFile("", "wb", GZIP_LEVEL, buffer, mtime=0) as file:
            for batch in columns_of(unit.part, COLUMNS):
                for row in batch.to_pylist():
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        files.write_bytes(unit.path, buffer.getvalue())
    return sum(sources_in(unit.part).values())
