"""MLflow, the only file that knows it: stage folders become runs, final models become registry versions.

`ship` sends one stage folder: it finds or makes the folder's run, sends what the journal holds beyond the watermark in
`tracking.json`, and closes the run when the stage has a record. It can be called at any time, any number of times;
the stored timestamps make a repeated point the same point. `Shipper` does so in a thread while stages run; a server
that is slow or dead delays nothing but the figures, and the next run sends what this one could not.
"""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline import files

TRACKING_FILE = "tracking.json"
REGISTERED = {"classifier": "model", "export": "huggingface"}
POINTS_A_BATCH = 1000
PARAM_CHARACTERS = 6000
SHIP_SECONDS = 2.0
FLUSH_SECONDS = 20.0
HURRY_SECONDS = 2.0
PARENT_TAG = "mlflow.parentRunId"

log = logging.getLogger("theseum.tracking")


def store_uri(store: Path) -> str:
    """Where a store keeps its runs when no tracking server is named."""
    return f"sqlite:///{(store / 'mlflow.db').resolve()}"


@dataclass(frozen=True)
class Door:
    """A connection to one tracking server and the experiment a run's stages go to."""

    client: MlflowClient
    experiment_id: str
    uri: str


def connect(uri: str | None, store: Path, experiment: str) -> Door:
    """Open the tracking server (or the store's SQLite file) and find or make the experiment."""
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    where = uri or store_uri(store)
    with _one_at_a_time(store):
        client = MlflowClient(tracking_uri=where, registry_uri=where)
        found = client.get_experiment_by_name(experiment)
        artifacts = (store / "mlflow-artifacts").resolve().as_uri() if uri is None else None
        identity = found.experiment_id if found else client.create_experiment(experiment, artifacts)
    return Door(client, identity, where)


@contextmanager
def _one_at_a_time(store: Path) -> Iterator[None]:
    """Two processes that create the same SQLite schema at once would meet in the middle of it."""
    path = store / ".locks" / "mlflow"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def find_run(door: Door, tags: Mapping[str, str], name: str) -> str:
    """Id of the run with these tags; made if there is none. Restarts find the run they left."""
    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = door.client.search_runs([door.experiment_id], condition, max_results=1)
    if found:
        return str(found[0].info.run_id)
    return str(
        door.client.create_run(door.experiment_id, run_name=name, tags=dict(tags)).info.run_id
    )


def ship(door: Door, folder: Path, parent: str) -> None:
    """Send what is new in a stage folder, running or finished."""
    about = _about(folder)
    if about is None:
        return
    state_path = folder / TRACKING_FILE
    state = files.read_json(state_path) if state_path.exists() else {}
    if state.get("uri") != door.uri:
        state = {**state, "uri": door.uri, "shipped": 0, "finished": False}
        state.pop("run_id", None)
    if state["finished"]:
        return
    if "run_id" not in state:
        tags = {"theseum.stage": about["stage"], "theseum.fingerprint": about["fingerprint"]}
        run_id = find_run(door, tags, about["stage"])
        door.client.set_tag(run_id, PARENT_TAG, parent)
        door.client.set_tag(run_id, "theseum.kind", about["kind"])
        door.client.update_run(run_id, status="RUNNING")
        state |= {"run_id": run_id, "experiment_id": door.experiment_id}
        _keep(state_path, state)
    state["shipped"] = _ship_journal(
        door, state["run_id"], folder / "journal.jsonl", state["shipped"]
    )
    if "counts" in about:
        _finish(door, state["run_id"], folder, about)
        state["finished"] = True
    _keep(state_path, state)


def _keep(path: Path, state: Mapping[str, Any]) -> None:
    """Write the watermark, unless the stage's folder has been renamed meanwhile."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(state), encoding="utf-8")
    beside.replace(path)


def _about(folder: Path) -> dict[str, Any] | None:
    """The record of a finished stage, or the task note of a running one."""
    for name in ("record.json", "running.json"):
        try:
            about: dict[str, Any] = files.read_json(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        return about
    return None


def _ship_journal(door: Door, run_id: str, journal: Path, shipped: int) -> int:
    """Send journal entries numbered `shipped` and above; return the next number."""
    if not journal.exists():
        return shipped
    points: list[Metric] = []
    for entry in files.read_json_lines(journal):
        if entry["seq"] < shipped:
            continue
        shipped = entry["seq"] + 1
        if entry["type"] == "metrics":
            moment = round(entry["time"] * 1000)
            points += [Metric(k, v, moment, entry["step"]) for k, v in entry["values"].items()]
        elif "precision" in entry:
            door.client.set_tag(run_id, "theseum.precision", entry["precision"])
            door.client.set_tag(run_id, "theseum.world_size", str(entry["world_size"]))
    for start in range(0, len(points), POINTS_A_BATCH):
        door.client.log_batch(run_id, metrics=points[start : start + POINTS_A_BATCH])
    return shipped


def _finish(door: Door, run_id: str, folder: Path, record: Mapping[str, Any]) -> None:
    """Config as params, counts as metrics, the record as artifact, final models into the registry."""
    params = dict(flattened(record["config"]))
    short = [Param(k, v) for k, v in params.items() if len(v) <= PARAM_CHARACTERS]
    for start in range(0, len(short), 100):
        door.client.log_batch(run_id, params=short[start : start + 100])
    end = round((record["started"] + record["seconds"]) * 1000)
    figures = [
        Metric(f"counts/{key}", float(value), end, 0)
        for key, value in flattened(record["counts"], plain=True)
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    tags = [RunTag("theseum.folder", str(folder)), RunTag("theseum.revision", record["revision"])]
    tags += [
        RunTag(f"theseum.input.{name}", given["fingerprint"])
        for name, given in record["inputs"].items()
    ]
    for start in range(0, len(figures), POINTS_A_BATCH):
        door.client.log_batch(run_id, metrics=figures[start : start + POINTS_A_BATCH])
    door.client.log_batch(run_id, tags=tags)
    for name in ("record.json", "results.json", "verification.json", "report.html"):
        if (folder / name).exists():
            door.client.log_artifact(run_id, str(folder / name))
    if record["makes"] in REGISTERED:
        register(door, run_id, folder / REGISTERED[record["makes"]], record)
    door.client.set_terminated(run_id, "FINISHED")


def register(door: Door, run_id: str, model: Path, record: Mapping[str, Any]) -> None:
    """A new version of the registered model named after the stage, with its lineage as tags."""
    name = f"{door.client.get_experiment(door.experiment_id).name}-{record['stage']}"
    try:
        door.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    door.client.log_artifacts(run_id, str(model), model.name)
    source = f"{door.client.get_run(run_id).info.artifact_uri}/{model.name}"
    lineage = {f"from.{k}": v["fingerprint"] for k, v in record["inputs"].items()}
    tags = {"fingerprint": record["fingerprint"], "folder": str(model), **lineage}
    if any(v.run_id == run_id for v in door.client.search_model_versions(f"name = '{name}'")):
        return
    version = door.client.create_model_version(name, source, run_id, tags=tags)
    door.client.set_registered_model_alias(name, "candidate", version.version)


def flattened(value: Any, name: str = "", *, plain: bool = False) -> Iterator[tuple[str, Any]]:
    """Leaves of nested data by dotted name; as text unless `plain`. Lists stay whole.

    >>> dict(flattened({"a": {"b": 1}, "c": [1, 2]}))
    {'a.b': '1', 'c': '[1, 2]'}
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flattened(inner, f"{name}.{key}" if name else str(key), plain=plain)
    elif plain:
        yield _allowed(name), value
    else:
        yield _allowed(name), value if isinstance(value, str) else json.dumps(value)


def _allowed(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)


class Shipper:
    """Ships the folders of a run from a thread, every two seconds and at the end.

    Which experiment and which parent a folder belongs to is written into the folder when its stage
    starts, without the server, so whoever sends it later sends it to the right place.
    """

    def __init__(self, uri: str | None, store: Path, run_name: str, run_digest: str) -> None:
        self.uri, self.store, self.run_name, self.run_digest = uri, store, run_name, run_digest
        self._folders: dict[str, Path] = {}
        self._failed: dict[str, Path] = {}
        self._parents: dict[tuple[str, str], tuple[Door, str]] = {}
        self._status: str | None = None
        self._wake = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def stage_started(self, name: str, partial: Path) -> None:
        """Follow a running stage's folder, which may not be there yet."""
        partial.mkdir(parents=True, exist_ok=True)
        path = partial / TRACKING_FILE
        state = files.read_json(path) if path.exists() else {}
        _keep(path, {**state, "experiment": self.run_name, "run": self.run_digest})
        self._failed.pop(name, None)
        self._folders[name] = partial

    def stage_finished(self, name: str, folder: Path) -> None:
        """The stage's folder has its final name."""
        self._folders[name] = folder

    def stage_failed(self, name: str) -> None:
        """Mark the stage's run as failed."""
        if name in self._folders:
            self._failed[name] = self._folders[name]

    def run_finished(self, status: str) -> None:
        """Send the rest, for a bounded time; what is left is sent by the next run."""
        self._status = status
        self._wake.set()
        self._thread.join(HURRY_SECONDS if status == "KILLED" else FLUSH_SECONDS)

    def _work(self) -> None:
        started = False
        while True:
            last = self._wake.wait(SHIP_SECONDS)
            try:
                door, parent = self._parent(self.run_name, self.run_digest)
                if not started:
                    door.client.update_run(parent, status="RUNNING")
                    self._left_behind()
                    started = True
                self._ship_all()
                if last:
                    door.client.set_terminated(parent, self._status)
            except (MlflowException, OSError) as error:
                if not self._warned:
                    log.warning("tracking is behind, the run goes on: %s", str(error)[:200])
                    self._warned = True
            if last:
                return

    def _parent(self, experiment: str, run: str) -> tuple[Door, str]:
        """The experiment of this name and the parent run in it."""
        if (experiment, run) not in self._parents:
            door = connect(self.uri, self.store, experiment)
            self._parents[experiment, run] = door, find_run(door, {"theseum.run": run}, experiment)
        return self._parents[experiment, run]

    def _left_behind(self) -> None:
        """Finished folders of the store that an earlier run could not send."""
        for record in self.store.glob("*/record.json"):
            path = record.parent / TRACKING_FILE
            state = files.read_json(path) if path.exists() else {}
            if "experiment" in state and not state.get("finished"):
                self._folders.setdefault(record.parent.name, record.parent)

    def _ship_all(self) -> None:
        for name, folder in list(self._folders.items()):
            try:
                state = files.read_json(folder / TRACKING_FILE)
                door, parent = self._parent(state["experiment"], state["run"])
                ship(door, folder, parent)
                state = files.read_json(folder / TRACKING_FILE)
            except FileNotFoundError:
                # The stage was finished and renamed meanwhile; its new name comes with the next round.
                continue
            if "run_id" not in state:
                continue
            if self._failed.pop(name, None):
                door.client.set_terminated(state["run_id"], "FAILED")
                del self._folders[name]
            elif state["finished"]:
                del self._folders[name]


def open_ui(store: Path, port: int) -> int:
    """Serve the MLflow UI of a store to this machine alone, until it is interrupted."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store_uri(store)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, start_new_session=True)
    stopped = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)
        os.killpg(server.pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    code = server.wait()
    return 0 if stopped else code
