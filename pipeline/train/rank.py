"""One rank of a training job: what the job file names is built here and trained to its end.

What `pipeline.train.__main__` has made ready to be stopped.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline import files
from pipeline.complaints import shown
from pipeline.config import ConfigError, build_from
from pipeline.data.loader import check_shares
from pipeline.models.transformer import recompute
from pipeline.runtime import EXIT_PREEMPTED, Ranks, StopRequest
from pipeline.stages import stage_class
from pipeline.track.tracker import Journal
from pipeline.train.checkpoint import Keep
from pipeline.train.consolidate import hand_on
from pipeline.train.device import device_of, resolve_precision
from pipeline.train.engine import Engine
from pipeline.train.engine_deepspeed import DeepSpeedEngine, leave_distributed, start_distributed
from pipeline.train.engine_torch import TorchEngine
from pipeline.train.loop import Job, Preempted, best_weights, fit
from pipeline.train.rehearsal import without_numbers
from pipeline.train.run import Trainable
from pipeline.train.saving import Saver


def train(description: Mapping[str, Any], ranks: Ranks, stop: StopRequest) -> int:
    """Train what `description` names; returns the exit code, 0 or EXIT_PREEMPTED. UserErrors are raised."""
    try:
        run(description, ranks, stop)
    except Preempted:
        return EXIT_PREEMPTED
    leave_distributed()
    return 0


def run(description: Mapping[str, Any], ranks: Ranks, stop: StopRequest) -> None:
    """Train what `description` names and write the model artifact and the completion marker."""
    out = Path(description["out"])
    inputs = {name: Path(folder) for name, folder in description["inputs"].items()}
    stage = build_from(stage_class(description["stage"]["kind"]), description["stage"], "job.json")
    device = device_of(ranks)
    trainable: Trainable = stage.trainable(inputs)
    settings = trainable.settings
    if words := settings.schedule.why_not(trainable.steps):
        raise ConfigError([f"train.schedule: {words}"])
    patience = settings.patience_for(trainable.objective.rising)
    judged = {*trainable.objective.weights, *trainable.objective.rising}
    if settings.keep_best is not None and settings.keep_best not in judged:
        words = f"allowed: a held-out figure ({', '.join(sorted(judged))})"
        raise ConfigError([f"train.keep_best: got {shown(settings.keep_best)}; {words}"])
    check_shares(
        batch=settings.batch, micro_batch=settings.micro_batch, world_size=ranks.world_size
    )
    start_distributed(device)
    recompute(trainable.objective, settings.recompute_blocks)
    shapes = without_numbers(trainable.objective)  # no engine has cut it up yet
    engine = engine_of(trainable, ranks, device)
    journal = Journal(out / "journal.jsonl") if ranks.rank == 0 else None
    if journal:
        journal.note(
            world_size=ranks.world_size,
            device=str(device),
            precision=engine.precision,
            asked_precision=trainable.settings.precision,
            engine=trainable.settings.engine.type,
            deepspeed=getattr(engine, "config", None),
        )
    keep = Keep(settings.keep_checkpoints, settings.keep_every, settings.keep_best, patience.sign)
    saver = (
        Saver(out / "checkpoints", keep, journal, settings.checkpoint_minutes) if journal else None
    )
    job = Job(
        trainable,
        engine,
        ranks,
        out,
        journal,
        lambda: stop.asked,
        saver,
        fresh=lambda: stage.trainable(inputs).objective,
        shapes=shapes,
    )
    try:
        steps = fit(job)
        weights = best_weights(job)
    finally:
        if journal:
            journal.close()
    if ranks.rank == 0:
        hand_on(stage.trainable(inputs), weights, out / "model")
        files.write_json(out / "done.json", {"steps": steps})


def engine_of(trainable: Trainable, ranks: Ranks, device: torch.device) -> Engine:
    """The engine the settings ask for, in a precision this device has."""
    settings = trainable.settings
    if settings.engine.type == "torch":
        return TorchEngine(trainable.objective, settings, rank=ranks.rank, device=device)
    whole = settings.engine.zero_stage == 0  # without float32 copies of narrow weights
    asked = "float32" if whole else settings.precision
    return DeepSpeedEngine(
        trainable.objective,
        settings,
        rank=ranks.rank,
        device=device,
        precision=resolve_precision(asked, device),
    )
