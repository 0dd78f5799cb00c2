"""What studies of pretraining share: text made ready by a run of Theseum, a bare loop, and seeds side by side."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import ROOT
from real_pages import archive_in

from pipeline import files
from pipeline.config import build_from
from pipeline.data.loader import Loader
from pipeline.stages.pretrain import Pretrain
from pipeline.train.engine import StepResult
from pipeline.train.engine_torch import TorchEngine
from pipeline.train.loop import global_counts
from pipeline.train.run import Trainable

PROCESSES = 2


def english(pages: Path, *, vocab_size: int, row_length: int) -> dict[str, Any]:
    """The stages `corpus`, `vocab` and `tokens` of a run file: English manuals and essays of Debian packages."""
    source = {"type": "warc", "name": "pages", "paths": [str(archive_in(pages))]}
    return {
        "corpus": {
            "kind": "corpus",
            "inputs": [source],
            "clean": {"language": {"type": "fast", "keep": ["en"]}},
            "validation_fraction": 0.02,
        },
        "vocab": {"kind": "vocab", "corpus": "corpus", "size": vocab_size},
        "tokens": {
            "kind": "tokens",
            "corpus": "corpus",
            "vocab": "vocab",
            "row_length": row_length,
        },
    }


def outputs(folder: Path, stages: Mapping[str, Any]) -> dict[str, Path]:
    """Run `stages` with a store inside `folder`; where each stage's output is."""
    folder.mkdir(parents=True, exist_ok=True)
    run_file, store = folder / "run.yaml", folder / "store"
    run_file.write_text(json.dumps({"stages": stages, "tracking": {"enabled": False}}))
    command = [sys.executable, "-m", "pipeline", "run", str(run_file), f"store={store}"]
    subprocess.run(command, cwd=ROOT, check=True)
    return {name: next(store.glob(f"{name}-*[0-9a-f]")) for name in stages}


def pretraining(
    objective: Mapping[str, Any], model: Mapping[str, Any], steps: int, train: Mapping[str, Any]
) -> Pretrain:
    """The stage that pretrains `model` on the plain engine, with what `train` says."""
    settings = {"engine": {"type": "torch"}, "micro_batch": train["batch"], **train}
    stage = {"kind": "pretrain", "tokens": "tokens", "steps": steps, "train": settings}
    return build_from(Pretrain, {**stage, "objective": objective, "model": model}, "study")


@dataclass(frozen=True)
class Moment:
    """Training after `steps` updates, the last one's result, and the CPU `seconds` that all took."""

    steps: int
    result: StepResult
    seconds: float


def training(trainable: Trainable) -> Iterator[Moment]:
    """Train to the end, on this CPU; what is done between two moments is not counted as training."""
    objective, settings, steps = trainable.objective, trainable.settings, trainable.steps
    engine = TorchEngine(objective, settings, rank=0, device=torch.device("cpu"))
    loader = Loader(
        trainable.source, seed=settings.seed, batch=settings.batch, micro_batch=settings.micro_batch
    )
    seconds = 0.0
    for step in range(steps):
        began = time.process_time()
        micro_batches = loader.micro_batches(step)
        counts = global_counts(objective.counts(micro_batches[0]))
        objective.train().at_step(step)
        lr = settings.optimizer.lr * settings.schedule.share(step, steps)
        result = engine.step(micro_batches, counts, lr, settings.seed * 1_000_003 + step)
        seconds += time.process_time() - began
        yield Moment(step + 1, result, seconds)
    loader.close()


def side_by_side(script: str, folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """What `script --job JOB` left for each of the jobs, in their order; a job that is done is not done again.

    Each runs in a process of its own, of one thread, PROCESSES at a time. The name of a job says all it depends on.
    """

    def start(name: str) -> Any:
        out = folder / f"{name.replace(' ', '-')}.json"
        if not out.exists():
            asked = json.dumps({**jobs[name], "out": str(out)})
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            command = [sys.executable, script, "--job", asked]
            subprocess.run(command, cwd=ROOT, check=True, env=environment)
        return files.read_json(out)

    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(start, jobs))
