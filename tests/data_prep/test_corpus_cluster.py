"""The corpus on a cluster of two machines, one of which dies in the middle: nothing is lost."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from test_corpus_kills import RUN

from pipeline import files

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def machines():
    """A head that runs one unit at a time, and a machine for two more."""
    Path("/tmp/ray").mkdir(exist_ok=True)  # where Ray notes the newest cluster
    common = {"object_store_memory": 80_000_000, "include_dashboard": False}
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        head = {"num_cpus": 1, "temp_dir": folder, **common}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield cluster, cluster.add_node(num_cpus=2, **common)
        cluster.shutdown()


def run(folder, run_file, *overrides):
    command = [sys.executable, "-m", "pipeline", "run", str(run_file), f"store={folder}"]
    return subprocess.Popen(
        [*command, *overrides],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def outputs(folder):
    [output] = folder.glob("corpus-*")
    return files.checksums_of(output, without=("record.json",))


def test_one_of_two_machines_dies_in_the_middle(machines, tmp_path):
    cluster, other = machines
    run_file = tmp_path / "run.yaml"
    run_file.write_text(RUN, encoding="utf-8")
    with run(tmp_path / "alone", run_file, "ray.cpus=1") as process:
        assert process.wait(200) == 0, process.stdout.read()
    with run(tmp_path / "together", run_file, f"ray.address={cluster.address}") as process:
        deadline = time.monotonic() + 100
        while len(list((tmp_path / "together").glob(".partial/*/.scratch/units/*.json"))) < 6:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        cluster.remove_node(other, allow_graceful=False)
        assert process.wait(200) == 0, process.stdout.read()
    assert outputs(tmp_path / "together") == outputs(tmp_path / "alone")
    assert not list((tmp_path / "together" / ".partial").glob("*"))
