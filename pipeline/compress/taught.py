"""What a teacher said of labelled rows: computed once, kept in a file by row, and handed to a student with its rows.

Only what depends on nothing but the row can be kept: logits, and the states of first tokens. The rows of
pretraining are corrupted anew in every epoch, so nothing that is said of them is.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save

from pipeline import files
from pipeline.compress.answers import asked, logits_of
from pipeline.compress.matching import Pass
from pipeline.compress.methods.pkd import firsts
from pipeline.compress.walk import walked
from pipeline.config import DataError
from pipeline.data.example import Example, Source
from pipeline.runtime import rng_of

LOGITS, FIRSTS = "teacher_logits", "teacher_firsts"
FACTS = "taught.json"


def said_of(network: Any, source: Source, *, batch: int) -> Iterator[tuple[int, Pass]]:
    """Passes of `network` over all rows in order, `batch` at a time, with the number of the first row."""
    network.eval()
    for start in range(0, len(source), batch):
        rows = range(start, min(start + batch, len(source)))
        host = source.collate([source.example(row, rng_of(0, "taught", row)) for row in rows])
        read = asked(network, {n: torch.from_numpy(v) for n, v in host.items()}, None)
        with torch.no_grad(), walked(network) as walks:
            logits = logits_of(network, read)
        yield start, Pass(logits, read["labels"], walks)


def write_taught(path: Path, network: Any, source: Source, *, batch: int) -> Iterator[int]:
    """Write what `network` says of `source`; yields how many rows are done."""
    logits, states = [], []
    for start, made in said_of(network, source, batch=batch):
        logits.append(made.logits.numpy())
        states.append(firsts(made).numpy())
        yield min(start + batch, len(source))
    said = {LOGITS: np.concatenate(logits), FIRSTS: np.concatenate(states)}
    files.write_bytes(path, save(said))


def facts_of(model: Path, task: Path, max_length: int) -> dict[str, Any]:
    """What teacher, rows and reading are known by: digests of files, and the longest sequence."""
    splits = {split: files.sha256_of(task / f"{split}.jsonl") for split in ("train", "validation")}
    weights = files.read_json(model / "config.json")["weights_sha256"]
    return {"weights": weights, "max_length": max_length, **splits}


class TaughtRows:
    """A source whose examples bring `teacher_logits` [C] and `teacher_firsts` [layers, D], float32."""

    def __init__(self, rows: Source, path: Path) -> None:
        if not path.exists():
            raise DataError(f"{path}: no such file; run the teach stage again")
        self.rows, self.said = rows, load_file(path)
        if len(self.said[LOGITS]) != len(rows):
            raise DataError(
                f"{path}: says something of {len(self.said[LOGITS])} rows, the task has {len(rows)}; "
                "teach on the same task"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Row `index`, and what was said of it."""
        return {**self.rows.example(index, rng), **{n: v[index] for n, v in self.said.items()}}

    def collate(self, examples: Sequence[Example]) -> Mapping[str, np.ndarray]:
        """One batch of the rows as their own source makes it, and what was said of them."""
        plain = [{n: v for n, v in e.items() if n not in self.said} for e in examples]
        said = {name: np.stack([e[name] for e in examples]) for name in self.said}
        return {**self.rows.collate(plain), **said}
