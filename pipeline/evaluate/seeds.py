"""Several seeds of one thing: which models differ in nothing but their seed, and how their scores spread."""

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.flow.record import read_record

SEED = "seed"


def alike(folder: Path) -> str:
    """What a stage's folder was made by, seeds aside: equal for folders that differ in nothing else."""
    record = read_record(folder)
    if record is None:
        return str(folder)
    read = {name: alike(folder.parent / one["folder"]) for name, one in record.inputs.items()}
    return json.dumps(
        [record.kind, record.sources, _seedless(record.config, read)], sort_keys=True, default=str
    )


def _seedless(value: Any, read: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _seedless(one, read) for key, one in value.items() if key != SEED}
    if isinstance(value, list | tuple):
        return [_seedless(one, read) for one in value]
    return read.get(value, value) if isinstance(value, str) else value


def spreads(folders: Mapping[str, Path], scores: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Median, extremes and standard deviation of the scores of models that differ in the seed only, two or more.

    By what their names have in common.
    """
    groups: dict[str, list[str]] = {}
    for name, folder in folders.items():
        groups.setdefault(alike(folder), []).append(name)
    found = {}
    for names in groups.values():
        if len(names) > 1:
            values = np.array([scores[name] for name in names])
            found[_common(names)] = {
                "models": names,
                "median": float(np.median(values)),
                "low": float(values.min()),
                "high": float(values.max()),
                "deviation": float(values.std(ddof=1)),
            }
    return found


def _common(names: list[str]) -> str:
    letters = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    start = "".join(column[0] for column in letters)
    return re.sub(f"-({SEED}[0-9]*)?$", "", start) or " + ".join(names)
