"""Run files load, say what they are, and mean today what they meant when their golden copy was written.

`tests/golden/<name>.json` holds every key of a run with its value, so a changed default shows in a change's diff.
After a deliberate one, `make golden` writes them again.
"""

import json
import os
import re

import pytest
import rules

from pipeline.flow.run_file import RunFile, read_run_file
from pipeline.flow.show import run_as_dict
from pipeline.stages import CATALOGUE, stage_class

GOLDEN = rules.ROOT / "tests" / "golden"
REFRESH = os.environ.get("THESEUM_REFRESH_GOLDEN") == "1"
RUNS = sorted(
    p for folder in ("runs", "studies") for p in (rules.ROOT / "configs" / folder).glob("*.yaml")
)
MODELS = sorted((rules.ROOT / "configs" / "models").glob("*.yaml"))
RUN_HEADER = (
    r"# What:     \S.*\n# Cost:     \S.*\n# Expect:   \S.*\n# Command:  theseum run {place}\n\n"
)
MODEL_HEADER = (
    r"# [A-Z].*: \d+ .*layers.*\.\n"
    r"# Parameters: [\d,]+ with a vocabulary of \d+.*\.\n"
    r"# Source: .*\.\n"
    r"# Use in a run file: `model: \{{extends: \.\./models/{name}\}}`\n"
    r"type: "
)


def read(path) -> RunFile:
    """The run that a file describes."""
    return read_run_file(path, kinds=CATALOGUE, stage_class=stage_class)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_means_what_its_golden_copy_says(path):
    now = json.dumps(run_as_dict(read(path)), indent=2, ensure_ascii=False) + "\n"
    golden = GOLDEN / f"{path.stem}.json"
    if REFRESH:
        golden.write_text(now, encoding="utf-8")
    assert golden.exists(), f"{golden.name} is missing; `make golden` writes it"
    assert now == golden.read_text(encoding="utf-8"), "if this is meant, run `make golden`"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_file_opens_with_what_it_is(path):
    place = re.escape(path.relative_to(rules.ROOT).as_posix())
    assert re.match(RUN_HEADER.format(place=place), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_file_opens_with_what_it_is(path):
    # That it builds and has that many parameters is shown in tests/models/test_model_files.py.
    pattern = MODEL_HEADER.format(name=re.escape(path.name))
    assert re.match(pattern, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_reads_only_files_of_the_repository(path, monkeypatch):
    monkeypatch.chdir(rules.ROOT)
    for entry in read(path).stages.values():
        for source in entry.config.sources():
            assert source.exists(), f"{entry.name} reads {source}"
            assert source.resolve().is_relative_to(rules.ROOT)


def test_no_two_runs_share_a_name_and_no_golden_copy_is_stale():
    names = [path.stem for path in RUNS]
    assert len(set(names)) == len(names) > 0
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(names)
    assert [path.name for path in (rules.ROOT / "configs").iterdir() if path.is_file()] == []
