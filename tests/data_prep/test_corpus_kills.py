"""Driver, worker and raylet are killed at random: the corpus is the same, byte for byte."""

from pathlib import Path

import pytest
from kills import disturbed, undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
PAGES = Path(__file__).parents[2] / "data/quickstart/pages.warc.gz"
RUN = f"""
tracking: {{enabled: false}}
stages:
  corpus:
    kind: corpus
    inputs: [{{type: warc, name: manuals, paths: ["{PAGES}"]}}]
    near: {{threshold: 0.8}}
    unit_bytes: 100000
    validation_fraction: 0.05
    shard_documents: 100
"""


def test_five_random_kills_change_nothing(tmp_path):
    run_file = tmp_path / "run.yaml"
    run_file.write_text(RUN, encoding="utf-8")
    expected = undisturbed(tmp_path / "undisturbed", run_file, cpus=2)
    assert len(expected.outputs) > 6
    trials = list(disturbed(tmp_path, run_file, kills=5, seed=3))
    assert sum(len(trial.killed) for trial in trials) == 5
    for trial in trials:
        assert trial.outputs == expected.outputs, trial.killed
        assert trial.leftovers == [], trial.killed
