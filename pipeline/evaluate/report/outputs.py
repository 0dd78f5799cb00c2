"""What finished stages left behind, read into the few facts that a report tells.

Everything is optional: a report on half a pipeline tells half the story.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import files

HELD_OUT = "held_out/"
LOCAL_UI = "http://127.0.0.1:5000"  # where `theseum ui` serves a store unless told otherwise
NOT_A_LOSS = ("accuracy",)
BASELINE_TITLES = {
    "majority": "majority class",
    "tfidf_logistic_regression": "TF-IDF + logistic regression",
    "mean": "mean of all numbers",
    "tfidf_ridge_regression": "TF-IDF + ridge regression",
}
TRAINING_KINDS = (
    "pretrain",
    "finetune",
    "theseus",
    "theseus_pretrain",
    "distill",
    "distill_pretrain",
)


@dataclasses.dataclass(frozen=True)
class Output:
    """One finished stage: its name, its folder and its `record.json`."""

    name: str
    folder: Path
    record: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The kind of stage."""
        return str(self.record["kind"])

    @property
    def counts(self) -> Mapping[str, Any]:
        """What the stage counted."""
        counts: Mapping[str, Any] = self.record.get("counts", {})
        return counts

    @property
    def seconds(self) -> float:
        """How long the stage took."""
        return float(self.record.get("seconds", 0.0))

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the stages it read."""
        return tuple(self.record.get("inputs", {}))

    @property
    def run_url(self) -> str | None:
        """Where its MLflow run is shown, if it has one: on its server, or by `theseum ui`."""
        tracking = self.facts("tracking.json")
        if "run_id" not in tracking:
            return None
        uri = tracking["uri"]
        server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else LOCAL_UI
        return f"{server}/#/experiments/{tracking['experiment_id']}/runs/{tracking['run_id']}"

    def facts(self, file: str) -> Any:
        """A JSON file of the folder, empty if it is not there."""
        path = self.folder / file
        return files.read_json(path) if path.exists() else {}

    def journal(self) -> Iterator[dict[str, Any]]:
        """Every entry of the training journal, in order; nothing if there is none."""
        path = self.folder / "journal.jsonl"
        yield from files.read_json_lines(path) if path.exists() else ()

    def series(self) -> dict[str, list[tuple[int, float]]]:
        """(step, value) of every name in the training journal, in order."""
        found: dict[str, list[tuple[int, float]]] = {}
        for entry in self.journal():
            if entry["type"] == "metrics":
                for name, value in entry["values"].items():
                    found.setdefault(name, []).append((entry["step"], value))
        return found

    def notes(self) -> list[dict[str, Any]]:
        """What the attempts to train said about themselves, in order."""
        return [entry for entry in self.journal() if entry["type"] == "note"]


def read_outputs(folders: Mapping[str, Path]) -> list[Output]:
    """The stages in `folders`, each after those it reads, otherwise by name."""
    waiting = {
        name: Output(name, folder, files.read_json(folder / "record.json"))
        for name, folder in sorted(folders.items())
    }
    ordered: list[Output] = []
    while waiting:
        ready = [o for o in waiting.values() if not any(name in waiting for name in o.reads)]
        assert ready, "records that read each other"
        ordered.append(waiting.pop(ready[0].name))
    return ordered


def of_kind(outputs: Sequence[Output], *kinds: str) -> list[Output]:
    """The outputs of these kinds, in order."""
    return [output for output in outputs if output.kind in kinds]


@dataclasses.dataclass(frozen=True)
class Account:
    """How many came in, how many were kept, and why the others were dropped, most frequent first."""

    came: int
    kept: int
    dropped: tuple[tuple[str, int], ...]


def account_of(counts: Mapping[str, Any]) -> Account:
    """An account as the corpus stage writes it, of pages or of lines."""
    dropped = sorted(counts["dropped"].items(), key=lambda item: (-item[1], item[0]))
    return Account(counts["in"], counts["kept"], tuple(dropped))


@dataclasses.dataclass(frozen=True)
class Training:
    """A training stage: how long, how fast, and its held-out values before and after."""

    name: str
    kind: str
    steps: int
    seconds: float
    tokens_per_second: float | None
    setting: (
        str  # precision and processes, such as "bf16 on 2 processes", "" if the journal is silent
    )
    held_out: tuple[tuple[str, float, float], ...]  # name, at the first and at the last measurement


def training_of(output: Output) -> Training:
    """What the journal of a training stage says."""
    series = output.series()
    speeds = sorted(value for _, value in series.get("tokens_per_second", ()))
    held_out = tuple(
        (name.removeprefix(HELD_OUT), values[0][1], values[-1][1])
        for name, values in series.items()
        if name.startswith(HELD_OUT)
    )
    return Training(
        output.name,
        output.kind,
        steps=max((values[-1][0] for values in series.values()), default=0),
        seconds=output.seconds,
        tokens_per_second=speeds[len(speeds) // 2] if speeds else None,
        setting=setting_of(output.notes()),
        held_out=held_out,
    )


def setting_of(notes: Sequence[Mapping[str, Any]]) -> str:
    """What the newest attempt computed in; float32 says so when bf16 was wished and is not there."""
    told = [note for note in notes if "precision" in note]
    if not told:
        return ""
    precision, processes = told[-1]["precision"], told[-1]["world_size"]
    wished = told[-1]["asked_precision"] == "auto" and told[-1]["engine"] == "deepspeed"
    lacking = " (no bf16 in this hardware)" if wished and precision == "float32" else ""
    return f"{precision}{lacking} on {processes} {'process' if processes == 1 else 'processes'}"


@dataclasses.dataclass(frozen=True)
class Classified:
    """One line of the result table; a baseline has neither size nor speed.

    The first classifier is not compared with itself. A line for several seeds has their median, and for an interval
    the lowest and the highest.
    """

    name: str
    value: float
    low: float
    high: float
    layers: int | None = None
    parameters: int | None = None
    num_bytes: int | None = None
    milliseconds: float | None = None
    relative_speed: float | None = None
    difference: float | None = None  # to the first classifier
    p_value: float | None = None

    @property
    def title(self) -> str:
        """The name as it is shown."""
        return BASELINE_TITLES.get(self.name, self.name) if self.layers is None else self.name


def classified_of(results: Mapping[str, Any]) -> list[Classified]:
    """Baselines, then classifiers, then medians over seeds, of a `results.json`."""
    lines = [
        Classified(name, score["value"], score["low"], score["high"])
        for name, score in results["baselines"].items()
    ]
    for name, model in results["classifiers"].items():
        score, latency = model["score"], model["latency"]
        against = model.get("against_first", {})
        lines.append(
            Classified(
                name,
                score["value"],
                score["low"],
                score["high"],
                layers=model["layers"],
                parameters=model["parameters"],
                num_bytes=model["bytes"],
                milliseconds=latency["median_ms"],
                relative_speed=latency["relative_speed"],
                difference=against.get("value"),
                p_value=against.get("p_value"),
            )
        )
    for name, spread in results.get("spreads", {}).items():
        title = f"{name}: median of {len(spread['models'])} seeds, lowest, highest"
        lines.append(Classified(title, spread["median"], spread["low"], spread["high"]))
    return lines
