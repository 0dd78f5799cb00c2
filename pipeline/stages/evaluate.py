"""The `evaluate` stage: how good, how large and how fast models are, against simple baselines."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch

from pipeline import files
from pipeline.config import DataError, build_from, config
from pipeline.data.shards import TokenRows
from pipeline.evaluate.baselines import BASELINES
from pipeline.evaluate.forms import EncodedRows, Reading
from pipeline.evaluate.forms.form import TaskRow, inputs_of
from pipeline.evaluate.held_out import held_out_means
from pipeline.evaluate.metrics import measure
from pipeline.evaluate.seeds import spreads
from pipeline.evaluate.significance import difference
from pipeline.evaluate.speed import measure_latency
from pipeline.evaluate.task import LabelledTask, load_task
from pipeline.flow.stage import Artifact, Claim, Conflict, Reads, Work
from pipeline.models.artifact import WEIGHTS_FILE, Classifier, load_model
from pipeline.stages.finetune import loaded_classifier
from pipeline.stages.pretrain import CorruptedRows
from pipeline.tokenizer import load_vocabulary
from pipeline.train.run import AtLeastOne, TrainSettings
from pipeline.train.yardstick import yardstick_of

HELD_OUT = "held_out/"


@config
class Evaluate:
    """Compare `classifiers` on the test split of `task`; speeds are relative to the first.

    Scores are given with intervals, differences to the first with their significance, and for models that differ in
    the seed only there are median and spread.
    Speed is the latency of single sentences: the first `sentences` of the split, `rounds` times.
    `language_models` are judged by their held-out loss on `tokens` before and after training.
    """

    makes: ClassVar[Artifact] = "results"
    claims: ClassVar[Claim] = "cpu"
    version: ClassVar[int] = 2

    kind: Literal["evaluate"] = "evaluate"
    classifiers: Annotated[tuple[str, ...], Reads("classifier")]
    language_models: Annotated[tuple[str, ...], Reads("language_model")] = ()
    task: Annotated[str, Reads("task")]
    tokens: Annotated[str | None, Reads("tokens")] = None
    sentences: AtLeastOne = 100
    rounds: AtLeastOne = 3

    def __post_init__(self) -> None:
        if not self.classifiers:
            raise ValueError("classifiers is empty; name one stage or more that make a classifier")
        if self.language_models and self.tokens is None:
            raise ValueError(
                "language_models need tokens: the stage whose validation rows they are judged on"
            )

    def sources(self) -> Sequence[Path]:
        """Nothing from outside the store."""
        return ()

    def conflicts(self, stages: Mapping[str, Any], _processes: int) -> Iterator[Conflict]:
        """Language models that were trained, and judged before training, on other rows."""
        for name in self.language_models:
            if not hasattr(stages[name], "objective"):
                words = f"stage {name!r} was not trained here, so there are no losses to compare"
                yield ("language_models",), f"{words}; name stages of kind pretrain"
            own = getattr(stages[name], "tokens", self.tokens)
            if own != self.tokens:
                words = f"stage {name!r} was trained on {own!r}; judge it on the same rows"
                yield ("tokens",), f"got {self.tokens!r}; {words}"

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write `results.json`; the same figures are the stage's counts."""
        task = load_task(work.inputs[self.task])
        test = task.rows("test")
        candidates = [
            candidate_of(name, work.inputs[name], task, test) for name in self.classifiers
        ]
        total = len(self.classifiers) + len(self.language_models) + 2
        results: dict[str, Any] = {
            "task": {
                "form": task.form.name,
                "metric": task.metric,
                "labels": list(task.labels),
                "rows": len(test),
            },
            "threads": torch.get_num_threads(),
            "baselines": baseline_scores(task, test),
        }
        work.progress(1, total, "measurements")
        measured: dict[str, dict[str, Any]] = {}
        first: list[Any] = []
        for done, candidate in enumerate(candidates, start=2):
            answers = candidate.answers(task)
            first = first or answers
            measured[candidate.name] = candidate.sizes() | scores_of(task, test, answers, first)
            work.progress(done, total, "measurements")
        for name, speed in self._speeds(candidates).items():
            measured[name] |= speed
        losses: dict[str, Any] = {}
        for name in self.language_models:
            assert self.tokens is not None
            losses[name] = losses_of(work.inputs[name], work.inputs[self.tokens])
        work.progress(total, total, "measurements")
        folders = {name: work.inputs[name] for name in self.classifiers}
        values = {name: found["score"]["value"] for name, found in measured.items()}
        results |= {"classifiers": measured, "spreads": spreads(folders, values)}
        results["language_models"] = losses
        files.write_json(work.out / "results.json", results)
        return results

    def _speeds(self, candidates: Sequence["Candidate"]) -> dict[str, dict[str, Any]]:
        """Latency of each candidate, all measured in turns on the same sentences."""
        sentences = range(min(self.sentences, len(candidates[0].source)))
        calls = {
            c.name: partial(_answer, c, [c.inputs(row) for row in sentences]) for c in candidates
        }
        measured = measure_latency(calls, sentences, rounds=self.rounds)
        return {
            name: {"latency": dataclasses.asdict(latency)} for name, latency in measured.items()
        }


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One classifier and the test split in its own vocabulary."""

    name: str
    folder: Path
    network: Classifier
    source: EncodedRows

    def inputs(self, row: int) -> tuple[torch.Tensor, ...]:
        """One test sentence as a batch of one."""
        return inputs_of(self.source, [row])

    def answers(self, task: LabelledTask) -> list[Any]:
        """What the model answers to every row, as metrics have it."""
        return task.form.answered(self.network, self.source)

    def sizes(self) -> dict[str, Any]:
        """Parameters, layers and bytes."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "layers": self.network.config.num_layers,
            "bytes": (self.folder / "model" / WEIGHTS_FILE).stat().st_size,
        }


def _answer(candidate: Candidate, inputs: Sequence[tuple[torch.Tensor, ...]], row: int) -> None:
    with torch.inference_mode():
        candidate.network(*inputs[row])


def candidate_of(name: str, folder: Path, task: LabelledTask, test: Sequence[TaskRow]) -> Candidate:
    """The classifier in `folder` with the test split; DataError if it knows other labels or another form of task."""
    network, facts = loaded_classifier(folder)
    if facts.get("form", "classification") != task.form.name:
        raise DataError(
            f"{folder}: was trained on a task of another form than {task.folder}; "
            "evaluate a classifier on its own task"
        )
    if facts["labels"] != list(task.labels):
        raise DataError(
            f"{folder}: was trained on other labels than those of {task.folder}; "
            "evaluate a classifier on its own task"
        )
    vocabulary = load_vocabulary(folder / "model" / "tokenizer")
    reading = Reading(facts["max_length"], facts.get("stride"))
    return Candidate(name, folder, network, task.form.encoded(test, vocabulary, reading))


def scores_of(
    task: LabelledTask, test: Sequence[TaskRow], answers: list[Any], first: list[Any]
) -> dict[str, Any]:
    """Every metric of the task with its interval, and the difference to the answers of the first model."""
    golds = task.form.golds(test)
    measured = {
        name: dataclasses.asdict(measure(name, golds, answers, task.labels))
        for name in (task.metric, *task.also)
    }
    found: dict[str, Any] = {"score": measured[task.metric], "scores": measured}
    if answers is not first:
        against = difference(task.metric, golds, (answers, first), task.labels)
        found["against_first"] = dataclasses.asdict(against)
    return found


def baseline_scores(task: LabelledTask, test: Sequence[TaskRow]) -> dict[str, Any]:
    """The score of every baseline on the test split."""
    train, golds = task.rows("train"), task.form.golds(test)
    return {
        name: dataclasses.asdict(measure(task.metric, golds, answer(train, test)))
        for name, answer in BASELINES.get(task.form.name, {}).items()
    }


def losses_of(folder: Path, tokens: Path) -> dict[str, Any]:
    """Held-out means of the language model in `folder` before its first update and after its last.

    Both are what training measured. `common` is measured here, on the finished model: its loss on
    the yardstick of all networks of its kind, on the validation rows of `tokens`.
    """
    network, facts = load_model(folder / "model")
    record = files.read_json(folder / "record.json")
    settings = build_from(TrainSettings, record["config"]["train"])
    rows = TokenRows(tokens, "validation")
    vocabulary = load_vocabulary(folder / "model" / "tokenizer")
    if rows.vocabulary().digest != vocabulary.digest:
        raise DataError(f"{tokens}: made with another vocabulary than the model of {folder}")
    yardstick = yardstick_of(network)
    common: dict[str, float] = {}
    corruption = yardstick and yardstick.corruption(network, vocabulary, rows.row_length)
    if yardstick and corruption:
        common = held_out_means(
            yardstick.around(network),
            CorruptedRows(rows, corruption),
            rows=settings.evaluate_rows,
            seed=settings.seed,
        )
    before, after = journal_means(folder / "journal.jsonl")
    return {
        "objective": facts["objective"]["type"],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "before": before,
        "after": after,
        "yardstick": yardstick.name if yardstick else None,
        "common": common,
    }


def journal_means(journal: Path) -> tuple[dict[str, float], dict[str, float]]:
    """The first and the last held-out values that a training job wrote into its journal."""
    found: dict[int, dict[str, float]] = {}
    for entry in files.read_json_lines(journal):
        if entry["type"] == "metrics":
            values = entry["values"].items()
            held_out = {k.removeprefix(HELD_OUT): v for k, v in values if k.startswith(HELD_OUT)}
            if held_out:
                found.setdefault(entry["step"], {}).update(held_out)
    return (found[min(found)], found[max(found)]) if found else ({}, {})
