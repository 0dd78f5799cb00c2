"""The variance of gradients at a checkpoint or a finished model: the text behind `theseum variance`.

A stage's folder knows its config and its inputs, so data, objective and noise are those it was trained with.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline import files
from pipeline.config import ConfigError, DataError, build_from
from pipeline.flow.record import read_record
from pipeline.models.artifact import CONFIG_FILE, load_model
from pipeline.objectives.objective import Objective
from pipeline.train import checkpoint
from pipeline.train.run import Trainable
from pipeline.train.variance import (
    KEPT,
    Variance,
    filled,
    gradient_variance,
    samplings,
    without_dropout,
)

JOB, DONE, MODEL, CHECKPOINTS = "job.json", "done.json", "model", "checkpoints"
HEAD = ("weights", "data", "mask", "+-", "mask share", "signal", "noise scale")


class Trained(NamedTuple):
    """What was trained, ready to be measured: a copy of its networks with the weights of `words`."""

    trainable: Trainable
    objective: Objective
    step: int
    words: str


def measured(
    folder: Path, stage_class: Callable[[str], Any], *, rows: int, masks: int
) -> Iterator[str]:
    """Lines about a stage's folder, one of its checkpoints, or its model folder.

    Raises DataError for a folder that is none of these, and for a model whose objective has further networks that it
    does not hold.
    """
    found = read_trained(folder, stage_class)
    source = found.trainable.source
    if rows < 2 or masks < 2 or len(source) < 2:
        raise ConfigError(
            [f"a variance needs two rows and two masks; got {min(rows, len(source))} and {masks}"]
        )
    yield f"{found.words}, {min(rows, len(source))} rows with {masks} corruptions each"
    for name, sampled in samplings(found.objective).items():
        parts = gradient_variance(
            sampled(),
            source,
            rows=rows,
            masks=masks,
            seed=found.trainable.settings.seed,
            step=found.step,
        )
        yield ""
        if name:
            yield "with masks drawn uniformly:"
        yield from lines_of(parts)


def lines_of(parts: Mapping[str, Variance]) -> Iterator[str]:
    """A table of groups, the whole network last."""
    order = [group for group in parts if group != KEPT] + [KEPT]
    width = max(map(len, (*order, HEAD[0])))
    yield f"{HEAD[0]:{width}}" + "".join(f"{name:>13}" for name in HEAD[1:])
    for group in order:
        part = parts[group]
        cells = (part.data, part.mask, part.mask_error, part.mask_share, part.signal)
        text = "".join(f"{cell:13.4g}" for cell in (*cells, part.noise_scale))
        yield f"{group:{width}}{text}"


def read_trained(folder: Path, stage_class: Callable[[str], Any]) -> Trained:
    """The stage at or around `folder`, and a copy of its networks with the weights in question."""
    home = next((f for f in (folder, folder.parent, folder.parent.parent) if _is_stage(f)), None)
    if home is None:
        raise DataError(
            f"{folder}: neither a training stage's folder in a store nor a checkpoint or model in one"
        )
    config, inputs = _description(home)
    kind = config.get("kind", "")
    stage = build_from(stage_class(kind), config, str(home))
    if not hasattr(stage, "trainable"):
        raise DataError(f"{home}: a {kind} stage trains nothing, so it has no gradients")
    trainable = stage.trainable(inputs)
    objective = without_dropout(trainable.objective)
    if folder.parent.name == CHECKPOINTS:
        if reason := checkpoint.damage_of(folder):
            raise DataError(f"{folder}: {reason}; name another checkpoint")
        saved = checkpoint.Checkpoint(folder, int(folder.name.removeprefix("step-")), {})
    else:
        newest, _ = checkpoint.newest_intact(home / CHECKPOINTS)
        if newest is None or folder == home / MODEL:
            words = _take_model(objective, home / MODEL)
            steps = trainable.steps or files.read_json(home / DONE)["steps"]
            return Trained(trainable, objective, steps - 1, words)
        saved = newest
    state: Mapping[str, Tensor] = checkpoint.read_state(saved).tensors
    objective.at_step(max(saved.step - 1, 0))
    filled(objective, state)
    return Trained(trainable, objective, max(saved.step - 1, 0), f"{saved.folder}")


def _is_stage(folder: Path) -> bool:
    return read_record(folder) is not None or (folder / JOB).exists()


def _description(home: Path) -> tuple[Mapping[str, Any], dict[str, Path]]:
    """Config and input folders of a finished stage, or of a job that is not a finished stage yet."""
    if (record := read_record(home)) is not None:
        inputs = {name: home.parent / one["folder"] for name, one in record.inputs.items()}
        return {"kind": record.kind, **record.config}, inputs
    job = files.read_json(home / JOB)
    return job["stage"], {name: Path(path) for name, path in job["inputs"].items()}


@torch.no_grad()
def _take_model(objective: Objective, folder: Path) -> str:
    """Give the kept network the weights of a model folder, which must hold all that is trained."""
    if not (folder / CONFIG_FILE).exists():
        raise DataError(f"{folder}: no model and no checkpoint is here yet; train first")
    network, _ = load_model(folder)
    kept = {id(p) for p in objective.kept().parameters()}
    missing = [name for name, p in objective.named_parameters() if id(p) not in kept]
    if missing:
        raise DataError(
            f"{folder}: the objective trains more than the model holds ({missing[0]} and others); "
            "name a checkpoint"
        )
    objective.kept().load_state_dict(network.state_dict())
    return str(folder)
