"""The quickstart itself, with fewer steps: from pages to a compressed model, interrupted in every way."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from pipeline import files

pytestmark = [pytest.mark.slow, pytest.mark.ray]
ROOT = Path(__file__).parent.parent
QUICKSTART, T5 = ROOT / "configs/runs/quickstart.yaml", ROOT / "configs/runs/quickstart-t5.yaml"
STEPS = 14
SHORT = {
    "pretrain": {
        "steps": STEPS,
        "train": {
            "batch": 8,
            "micro_batch": 4,
            "checkpoint_every": 4,
            "schedule": {"warmup_steps": 10},
        },
    },
    "finetune": {"epochs": 0.7, "train": {"schedule": {"warmup_steps": 10}}},
    "compress": {"schedule": {"replacing_epochs": 0.1}, "successor_epochs": 0.05},
    "evaluate": {"sentences": 10, "rounds": 1},
    "pretrain-t5": {"steps": 4, "train": {"schedule": {"warmup_steps": 2}}},
}


def shortened(source, target, keep=None):
    """The run file with fewer steps, and only the stages of `keep` if it is given."""
    run = yaml.safe_load(source.read_text())
    for name, changes in SHORT.items():
        if name in run["stages"]:
            merge(run["stages"][name], changes)
    run["stages"] = {k: v for k, v in run["stages"].items() if keep is None or k in keep}
    target.write_text(yaml.safe_dump(run))
    return target


def merge(tree, changes):
    for key, value in changes.items():
        if isinstance(value, dict):
            merge(tree[key], value)
        else:
            tree[key] = value


def start(run_file, store, *overrides):
    command = [sys.executable, "-m", "pipeline", "run", str(run_file), f"store={store}", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process, seconds=400):
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def only(pattern, store):
    [found] = store.glob(pattern)
    return found


def losses_of(folder):
    """Values by step and name, clock-dependent ones left out."""
    return {
        (entry["step"], name): value
        for entry in files.read_json_lines(folder / "journal.jsonl")
        if entry["type"] == "metrics"
        for name, value in entry["values"].items()
        if not name.endswith("_per_second")
    }


def processes_of(store):
    found = subprocess.run(["pgrep", "-f", str(store)], capture_output=True, text=True)
    return found.stdout.split()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Store and output of one undisturbed short quickstart."""
    folder = tmp_path_factory.mktemp("quickstart")
    code, output = finish(
        start(shortened(QUICKSTART, folder / "quickstart.yaml"), folder / "store")
    )
    assert code == 0, output
    return folder, output


def test_ends_with_a_table_a_person_can_judge(world):
    folder, output = world
    for words in (
        r"531 pages in, 49\d kept, 3\d dropped: .*duplicate url",
        r"6,100 ids \(6,000 pieces",
        r"majority class\s+12.5 %",
        r"TF-IDF \+ logistic regression\s+8\d",
        r"finetune\s+\d\d.\d % .* 4 layers",
        r"compress\s+\d\d.\d % .* 2 layers",
        r"logits differ by at most",
        r"report: .*report.html",
    ):
        assert re.search(words, output, re.DOTALL), words
    page = only("report-[0-9a-f]*/report.html", folder / "store").read_text()
    assert "<svg" in page
    assert not re.search(r"(src|href)=[\"']https?://(?!localhost|127)", page), "self-contained"
    assert not (folder / "store" / ".partial").exists() or not any(
        (folder / "store" / ".partial").iterdir()
    )


def test_learning_shows_even_in_a_few_steps(world):
    store = world[0] / "store"
    results = json.loads(only("evaluate-*/results.json", store).read_text())
    majority = results["baselines"]["majority"]["value"]
    assert results["classifiers"]["finetune"]["score"]["value"] > majority + 0.03
    held_out = {
        k: v for k, v in losses_of(only("pretrain-[0-9a-f]*", store)).items() if "held_out/mlm" in k
    }
    assert held_out[STEPS, "held_out/mlm"] < held_out[0, "held_out/mlm"] - 0.3


def test_export_equals_the_model(world):
    found = json.loads(only("export-[0-9a-f]*/verification.json", world[0] / "store").read_text())
    assert found["max_abs_difference"] <= 1e-5


def test_final_models_are_registered_with_their_lineage(world):
    store = world[0] / "store"
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}", f"sqlite:///{store / 'mlflow.db'}")
    names = {model.name for model in client.search_registered_models()}
    assert names == {"quickstart-finetune", "quickstart-compress", "quickstart-export"}
    version = client.get_model_version_by_alias("quickstart-compress", "candidate")
    record = files.read_json(only("finetune-[0-9a-f]*/record.json", store))
    assert version.tags["from.finetune"] == record["fingerprint"]
    experiment = client.get_experiment_by_name("quickstart")
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert len(children) == 10
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}


def test_running_again_takes_seconds_and_says_why(world):
    folder, _ = world
    began = time.monotonic()
    code, output = finish(start(folder / "quickstart.yaml", folder / "store"))
    assert code == 0
    assert "all 10 stages are done: nothing to do" in output
    assert time.monotonic() - began < 15


def test_t5_shares_corpus_and_vocabulary_and_exports_exactly(world):
    folder, _ = world
    run_file = shortened(T5, folder / "quickstart-t5.yaml")
    code, output = finish(start(run_file, folder / "store"))
    assert code == 0, output
    assert re.search(r"was done corpus", output)
    assert re.search(r"was done vocab", output)
    found = json.loads(only("export-t5-*/verification.json", folder / "store").read_text())
    assert found["max_abs_difference"] <= 1e-5
    assert found["architecture"] == "T5ForConditionalGeneration"


def wait_for_step(store, step):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for journal in store.glob(".partial/pretrain-*/journal.jsonl"):
            steps = [entry.get("step", 0) for entry in files.read_json_lines(journal)]
            if max(steps, default=0) >= step:
                return
        time.sleep(0.01)
    raise AssertionError(f"pretraining did not reach step {step}")


def test_interrupted_killed_and_raced_the_losses_are_the_same_bits(world, tmp_path):
    """Ctrl-C at step 3, kill -9 of a rank at step 7, then two runs side by side to the end."""
    folder, _ = world
    keep = ("corpus", "vocab", "tokens", "pretrain")
    run_file, store = shortened(QUICKSTART, tmp_path / "quickstart.yaml", keep), tmp_path / "store"

    first = start(run_file, store)
    wait_for_step(store, 3)
    began = time.monotonic()
    os.killpg(first.pid, signal.SIGINT)
    code, _ = finish(first)
    assert time.monotonic() - began < 10
    assert code == 130
    assert processes_of(store) == []
    assert not Path(f"/tmp/theseum-{first.pid}").exists()

    second = start(run_file, store, "launch.restarts=0")
    wait_for_step(store, 7)
    ranks = subprocess.run(
        ["pgrep", "-f", f"pipeline.train {store}"], capture_output=True, text=True
    ).stdout.split()
    assert len(ranks) == 2
    os.kill(int(ranks[-1]), signal.SIGKILL)
    code, output = finish(second)
    assert code == 1
    assert "was killed by signal 9" in output
    assert processes_of(store) == []
    assert not Path(f"/tmp/theseum-{second.pid}").exists()

    racing = [start(run_file, store), start(run_file, store)]
    outputs = [finish(process) for process in racing]
    assert [code for code, _ in outputs] == [0, 0], outputs
    assert sum("waiting (for the run" in output for _, output in outputs) == 1
    assert len(list(store.glob("pretrain-[0-9a-f]*"))) == 1
    undisturbed = losses_of(only("pretrain-[0-9a-f]*", folder / "store"))
    assert losses_of(only("pretrain-[0-9a-f]*", store)) == undisturbed
    assert processes_of(store) == []
