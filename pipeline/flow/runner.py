"""The door to Ray: a cluster for a run, stages as tasks on it, and units spread by stages.

Without an address the cluster is this run's own: a short temporary folder, loopback only, and gone
afterwards, whatever ends the run. A cluster named by the environment is never joined by accident.
"""

import contextlib
import os
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launch.job import Machine
from pipeline.config import LaunchError
from pipeline.flow.keeper import clean, start_keeper
from pipeline.flow.run_file import RayConfig
from pipeline.flow.store import Presence
from pipeline.flow.work import Task, perform
from pipeline.runtime import give_back_memory, process_alive

Item = TypeVar("Item")
Result = TypeVar("Result")
TEMPORARY, PREFIX = Path("/tmp"), "theseum-"
OBJECT_STORE_BYTES = 200_000_000
KEEPER_SECONDS = 5.0
UNITS_AHEAD = 2  # units handed out per CPU, so that a CPU never waits for the next one
MOST_DEATHS = 3  # workers that one unit may take down before it is given up


class Cluster:
    """A Ray cluster in use. Start it in the main thread: its processes die with the thread."""

    def __init__(self, working_folder: Path) -> None:
        self.capacity = Machine(0, 0)
        self._working_folder = working_folder
        self._keeper: subprocess.Popen[bytes] | None = None
        self._tasks: dict[Any, str] = {}

    def start(self, config: RayConfig) -> None:
        """Start a cluster of our own, or join the one at `config.address`; seconds, up to half a minute."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ["PYTHONPATH"] = _search_path()
        if config.address is None:
            _clean_stale()
            folder = TEMPORARY / f"{PREFIX}{os.getpid()}"
            folder.mkdir(mode=0o700, exist_ok=True)
            self._keeper = start_keeper(folder)
            with _quiet(folder / "driver.log"):
                _start_local(folder, config.cpus or len(os.sched_getaffinity(0)))
        else:
            _join(config.address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.capacity = Machine(
            max(int(node.get("CPU", 0)) for node in nodes),
            max(int(node.get("GPU", 0)) for node in nodes),
        )

    @property
    def busy(self) -> bool:
        """Whether a stage that was submitted has not been reported as finished."""
        return bool(self._tasks)

    def submit(self, task: Task, *, cpus: int, gpus: int) -> None:
        """Start a stage as soon as these resources are free."""
        options: dict[str, Any] = {"num_cpus": cpus, "max_retries": 0, "name": task.name}
        if gpus:
            options["num_gpus"] = gpus
        if not cpus:
            # It only hands out units. Here it lives as long as the run, whichever machine is lost.
            here = ray.get_runtime_context().get_node_id()
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=True)
        reference = _stage.options(**options).remote(task, str(self._working_folder))
        self._tasks[reference] = task.name

    def finished(self, timeout_seconds: float) -> list[tuple[str, str | None]]:
        """Stages that ended since the last call, each with an error message or None."""
        if not self._tasks:
            return []
        first, _ = ray.wait(list(self._tasks), num_returns=1, timeout=timeout_seconds)
        if not first:
            return []
        ready, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        return [(self._tasks.pop(reference), _message(reference)) for reference in ready]

    def cancel(self) -> None:
        """Interrupt every running stage, as Ctrl-C would."""
        for reference in self._tasks:
            # A cluster that was told to leave as well has nothing left to interrupt.
            with contextlib.suppress(RayError):
                ray.cancel(reference, recursive=True)

    def stop(self) -> None:
        """End all of the cluster's processes, if it is our own, and remove its folder."""
        ray.shutdown()
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            self._keeper.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._keeper.wait(KEEPER_SECONDS)


def _start_local(folder: Path, cpus: int) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=str(folder),
        )
    except (RayError, RuntimeError, OSError, ValueError) as error:
        raise LaunchError(f"Ray cannot be started on this machine: {error}") from None
    token = Path.home() / ".ray" / "auth_token"
    if token.exists() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def _join(address: str) -> None:
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
        )
    except (ConnectionError, RayError, ValueError) as error:
        raise LaunchError(f"ray.address {address}: cannot be joined: {error}") from None


def _search_path() -> str:
    """Where workers find this package, and whatever else this process was told to find."""
    root = str(Path(__file__).resolve().parents[2])
    told = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join(dict.fromkeys([root, *told]))


def _clean_stale() -> None:
    """Clean up after runs that are gone, keeper and all, for example after a reboot."""
    for folder in TEMPORARY.glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX)
        with contextlib.suppress(FileNotFoundError):
            mine = folder.stat().st_uid == os.getuid()
            if pid.isdigit() and mine and not process_alive(int(pid)):
                clean(folder, os.getpid())


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Ray's greetings go to a file: what it prints while starting is not for the user."""
    sys.stderr.flush()
    kept = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _message(reference: Any) -> str | None:
    try:
        ray.get(reference)
    except RayTaskError as error:
        return f"{type(error.cause).__name__}: {error.cause}"
    except RayError as error:
        text = str(error).strip().splitlines()
        return f"its worker process died: {text[0] if text else type(error).__name__}"
    return None


@ray.remote
def _stage(task: Task, working_folder: str) -> None:
    os.chdir(working_folder)
    perform(task, _spread)


@ray.remote(num_cpus=1, max_retries=0)
def _unit(function: Callable[[Any], Any], item: Any, presence: Path, working_folder: str) -> Any:
    os.chdir(working_folder)
    with Presence(presence):
        result = function(item)
    give_back_memory()
    return result


class _WorkerDied(Exception):
    """The worker of a unit is gone, and nothing of the unit came back."""


class _MachineDied(Exception):
    """The machine of a unit is gone; the unit is not to blame."""


def _spread(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    presence: Path,
    finished: Callable[[int, Any], None],
    lost: Callable[[Item], Result] | None,
) -> Iterator[Result]:
    """The `Spread` of the cluster this process is a worker of.

    A unit whose worker died is given twice the CPUs each time, so that fewer run beside it.
    """
    most_cpus = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes()), default=1)
    window = UNITS_AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)
    here, waiting = str(Path.cwd()), deque(range(len(items)))
    deaths: Counter[int] = Counter()
    running: dict[Any, int] = {}
    results: dict[int, Any] = {}
    done = 0
    try:
        for turn in range(len(items)):
            while turn not in results:
                while waiting and len(running) < window:
                    index = waiting.popleft()
                    cpus = max(1, min(2 ** deaths[index], most_cpus))
                    task = _unit.options(num_cpus=cpus)
                    running[task.remote(function, items[index], presence, here)] = index
                [reference], _ = ray.wait(list(running), num_returns=1)
                index = running.pop(reference)
                try:
                    results[index] = _value(reference)
                except _MachineDied:
                    waiting.appendleft(index)
                    continue
                except _WorkerDied as death:
                    deaths[index] += 1
                    if deaths[index] < MOST_DEATHS:
                        waiting.appendleft(index)
                        continue
                    results[index] = _given_up(lost, items[index], str(death))
                done += 1
                finished(done, results[index])
            yield results.pop(turn)
    finally:
        for reference in running:
            ray.cancel(reference)


def _given_up(lost: Callable[[Item], Result] | None, item: Item, death: str) -> Result:
    """What stands for a unit that took down its worker every time."""
    if lost is None:
        raise LaunchError(f"the same unit took down its worker {MOST_DEATHS} times; {death}")
    return lost(item)


def _value(reference: Any) -> Any:
    """The result of a unit; its own error, as it was raised, when it failed."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, MemoryError):
            raise _WorkerDied("it ran out of memory") from None
        raise error.cause from error
    except (NodeDiedError, ObjectLostError):
        raise _MachineDied from None
    except OutOfMemoryError:
        raise _WorkerDied("the machine was running out of memory") from None
    except WorkerCrashedError:
        raise _WorkerDied("the process ended without a word, as one killed for memory") from None
