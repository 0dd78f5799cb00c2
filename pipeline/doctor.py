"""What this machine has and what is missing for which feature: the text behind `theseum doctor`."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

Verdict = Literal["ok", "note", "missing"]
GIB = 1 << 30
LIBRARIES = {
    "deepspeed": "training with engine deepspeed",
    "ray": "running anything (theseum run)",
    "mlflow": "tracking and theseum ui",
    "transformers": "export to Hugging Face",
    "sentencepiece": "vocabularies",
    "fastwarc": "reading WARC files",
    "resiliparse": "extracting text from HTML",
    "pyarrow": "the corpus",
}
# Linux names of instructions that multiply bfloat16 in hardware, x86 and Arm.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class Finding:
    """One line of the report; `words` say what there is, or what is missing for which feature."""

    verdict: Verdict
    topic: str
    words: str


def examine(store: Path) -> Iterator[Finding]:
    """Every finding about this machine; takes as long as importing torch."""
    yield from _python()
    yield from _devices()
    yield from _libraries()
    yield from _tools()
    yield from _room(store)


def _python() -> Iterator[Finding]:
    fit = sys.version_info >= (3, 11)
    words = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("ok" if fit else "missing", "python", words if fit else f"{words}; needs 3.11")


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    yield Finding("ok", "torch", f"{torch.__version__}, {cores} cores for this process")
    flags = cpu_flags() & BF16_FLAGS
    if flags:
        yield Finding("ok", "cpu bf16", f"in hardware ({', '.join(sorted(flags))})")
    else:
        yield Finding("note", "cpu bf16", "emulated: on this CPU float32 trains faster")
    if not torch.cuda.is_available():
        yield Finding("note", "gpu", "none: training runs on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        half = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield Finding(
            "ok", "gpu", f"{index}: {facts.name}, {facts.total_memory / GIB:.0f} GiB, {half}"
        )


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Instruction sets of the first CPU; empty where the system does not tell."""
    if not path.exists():
        return set()
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, words = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(words.split())
    return set()


def _libraries() -> Iterator[Finding]:
    for name, use in LIBRARIES.items():
        if importlib.util.find_spec(name) is None:
            yield Finding("missing", name, f"needed for {use}; install it with: pip install {name}")
        else:
            yield Finding("ok", name, importlib.metadata.version(name))


def _tools() -> Iterator[Finding]:
    compiler = next(
        (found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None
    )
    if compiler:
        yield Finding("ok", "compiler", compiler)
    else:
        yield Finding("note", "compiler", "no C++ compiler: compiled models are not available")
    sbatch = shutil.which("sbatch")
    words = sbatch or "no sbatch: jobs run on this machine only"
    yield Finding("ok" if sbatch else "note", "slurm", words)


def _room(store: Path) -> Iterator[Finding]:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield Finding("ok", "memory", f"{free / GIB:.1f} GiB free of {total / GIB:.1f}")
    for topic, folder in (("store", store), ("temporary", Path("/tmp"))):
        known = next(
            path for path in (folder.resolve(), *folder.resolve().parents) if path.exists()
        )
        room = shutil.disk_usage(known).free / GIB
        if not os.access(known, os.W_OK):
            yield Finding("missing", topic, f"{known} cannot be written")
        elif room < 1:
            yield Finding(
                "missing", topic, f"{room:.2f} GiB free in {known}; a run needs 1 or more"
            )
        else:
            yield Finding("ok", topic, f"{room:.1f} GiB free in {known}")
