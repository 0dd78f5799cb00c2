"""The same job file under other launchers: torchrun, the deepspeed launcher, and the batch script for SLURM."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.local import run_job
from pipeline import files
from pipeline.runtime import EXIT_PREEMPTED, free_port

ROOT = Path(__file__).parent.parent.parent
SBATCH = ROOT / "slurm" / "train.sbatch"
TORCHRUN = ("torch.distributed.run", "--nproc-per-node=2", "--master-port={port}", "-m")
DEEPSPEED = ("deepspeed.launcher.runner", "--num_gpus=2", "--master_port={port}", "--module")


def write_job(out, tokens, **train):
    stage = {
        "kind": "pretrain",
        "tokens": "tokens",
        "model": {
            "type": "encoder",
            "num_layers": 1,
            "hidden_size": 32,
            "num_heads": 2,
            "ffn_size": 64,
            "max_length": 32,
            "dropout": 0.1,
        },
        "objective": {"type": "mlm"},
        "steps": 6,
        "train": {"batch": 8, "micro_batch": 2, "precision": "float32", **train},
    }
    out.mkdir()
    job = {"stage": stage, "inputs": {"tokens": str(tokens)}, "out": str(out)}
    files.write_json(out / "job.json", job)
    return out / "job.json"


def losses(out):
    entries = [e for e in files.read_json_lines(out / "journal.jsonl") if e["type"] == "metrics"]
    return [
        (e["step"], name, value)
        for e in entries
        for name, value in e["values"].items()
        if not name.endswith("_per_second")
    ]


def launched(launcher, job):
    """The finished launcher process; `job` ran as two ranks below it."""
    arguments = [part.format(port=free_port()) for part in launcher]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", *arguments, "pipeline.train", str(job)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def supervised(token_folder, tmp_path_factory):
    """The losses under Theseum's own supervisor, one thread a rank."""
    out = tmp_path_factory.mktemp("supervised") / "job"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        run_job(write_job(out, token_folder), processes=2)
    return losses(out)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, DEEPSPEED], ids=["torchrun", "deepspeed"])
def test_losses_are_those_of_the_supervisor_bit_for_bit(
    launcher, supervised, token_folder, tmp_path
):
    out = tmp_path / "job"
    ended = launched(launcher, write_job(out, token_folder))
    assert ended.returncode == 0, ended.stderr[-2000:]
    notes = [e for e in files.read_json_lines(out / "journal.jsonl") if e["type"] == "note"]
    assert notes[0]["world_size"] == 2
    assert {step for step, _, _ in supervised} == set(range(7))
    assert losses(out) == supervised


@pytest.mark.slow
def test_torchrun_shows_a_mistake_in_words(token_folder, tmp_path):
    out = tmp_path / "job"
    ended = launched(TORCHRUN, write_job(out, token_folder, batch=6))
    assert ended.returncode != 0
    assert "need a multiple of 4" in files.read_json(out / "failure.json")["message"]
    assert not (out / "done.json").exists()


def directives():
    text = SBATCH.read_text(encoding="utf-8")
    words = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line[:8] == "#SBATCH "]
    return dict(word.removeprefix("--").partition("=")[::2] for word in words)


def test_batch_script_asks_for_what_preemption_needs():
    asked = directives()
    assert asked["requeue"] == ""
    assert asked["open-mode"] == "append"
    assert asked["signal"] == "USR1@120"
    assert {"nodes", "ntasks-per-node", "cpus-per-task", "time"} <= asked.keys()


def run_batch_script(folder, *, code, checkpoint="", done=False):
    """Run the batch script with a stand-in for srun that leaves `checkpoint` and exits with `code`."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    out = folder / "job"
    (out / "checkpoints").mkdir(parents=True)
    files.write_text(out / "checkpoints" / "latest", "step-00000003\n")
    files.write_json(out / "job.json", {"out": str(out)})
    srun = ["#!/bin/bash", f'printf "%s\\n" "$@" "OMP=$OMP_NUM_THREADS" > {folder}/asked']
    if checkpoint:
        srun.append(f"echo {checkpoint} > {out}/checkpoints/latest")
    if done:
        srun.append(f"echo '{{}}' > {out}/done.json")
    scripts = {
        "srun": "\n".join([*srun, f"exit {code}"]),
        "scontrol": f'#!/bin/bash\necho "$@" > {folder}/scontrol',
        "python": f'#!/bin/bash\nexec {sys.executable} "$@"',
    }
    for name, text in scripts.items():
        files.write_text(commands / name, text + "\n")
        (commands / name).chmod(0o755)
    ended = subprocess.run(
        ["bash", str(SBATCH), str(out / "job.json")],
        env={
            "PATH": f"{commands}:/usr/bin:/bin",
            "SLURM_JOB_ID": "17",
            "SLURM_CPUS_PER_TASK": "3",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    requeued = folder / "scontrol"
    return ended, requeued.read_text().strip() if requeued.exists() else ""


def test_batch_script_starts_one_rank_a_task_with_the_allocated_threads(tmp_path):
    ended, _ = run_batch_script(tmp_path, code=0, done=True)
    assert ended.returncode == 0
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[-4:-1] == ["-m", "pipeline.train", str(tmp_path / "job" / "job.json")]
    assert {"--cpus-per-task=3", "--kill-on-bad-exit=1", "OMP=3"} <= set(asked)


def test_batch_script_goes_back_into_the_queue_only_with_a_newer_checkpoint(tmp_path):
    saved = "step-00000009"
    _, requeued = run_batch_script(tmp_path / "a", code=EXIT_PREEMPTED, checkpoint=saved)
    assert requeued == "requeue 17"
    ended, requeued = run_batch_script(tmp_path / "b", code=EXIT_PREEMPTED)
    assert (ended.returncode, requeued) == (EXIT_PREEMPTED, "")
    ended, requeued = run_batch_script(tmp_path / "c", code=2, checkpoint=saved)
    assert (ended.returncode, requeued) == (2, "")


def test_batch_script_believes_the_completion_marker_and_not_the_exit_code(tmp_path):
    ended, _ = run_batch_script(tmp_path / "a", code=1, done=True)
    assert ended.returncode == 0
    ended, _ = run_batch_script(tmp_path / "b", code=0)
    assert ended.returncode == 1
    assert "not finished" in ended.stderr
