"""How time and memory of every mixer grow with the length of the row.

    python benchmarks/attention_scaling.py

Measures forward and backward of one mixer of BERT-base's width per length, on a GPU if there is one and else on the
CPU, and writes `benchmarks/results/attention_scaling.txt` and `.json`: seconds, peak memory, the fitted exponent of the
linear family from 2048 tokens on, the length from which each mixer is faster than softmax attention (SDPA), causal
linear attention beside a loop over positions and beside the bidirectional form, chunk sizes, Random Synthesizer beside
softmax at its trained length, and what RealFormer adds to a whole layer at 512 tokens. Memory is read in a process
of its own. Fails when a promise does not hold.
"""

import dataclasses
import datetime
import json
import math
import multiprocessing
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.example import Visibility
from pipeline.models.attention import View
from pipeline.models.layers import FeedForward
from pipeline.models.mixers import (
    LinearConfig,
    MixerConfig,
    PerformerConfig,
    ResidualConfig,
    SoftmaxConfig,
    SynthesizerConfig,
    mixer_of,
    prepared,
)
from pipeline.models.mixers.mixer import Heads
from pipeline.models.prefix_sums import CHUNK, side_sums
from pipeline.models.state import CAUSAL, mean_of, with_ones
from pipeline.runtime import code_revision, library_versions

RESULTS = Path(__file__).resolve().parent / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LENGTHS = (512, 1024, 2048, 4096, 8192, 16_384, 32_768)
SQUARE_LIMIT = 4096 if DEVICE.type == "cpu" else 16_384  # rows beyond are too slow or too large
LINEAR_FROM = 2048
HIDDEN, NUM_HEADS, HEAD_SIZE = 768, 12, 64
TRAINED_LENGTH = 512
CHUNKS = (16, 32, 64, 128, 256)
LOOP_LENGTH = 8192
# A CPU's memory is kept between steps: glibc would give large tensors back, to get pages that are cleared anew
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
SECONDS_PER_POINT = 1.0
LINEAR_FAMILY = ("linear", "linear causal", "performer", "performer causal")
MIXERS: dict[str, tuple[MixerConfig, str]] = {
    "softmax": (SoftmaxConfig(), "all"),
    "softmax causal": (SoftmaxConfig(), "causal"),
    "residual": (ResidualConfig(), "all"),
    "synthesizer random": (SynthesizerConfig(), "all"),
    "linear": (LinearConfig(), "all"),
    "linear causal": (LinearConfig(), "causal"),
    "performer": (PerformerConfig(), "all"),
    "performer causal": (PerformerConfig(), "causal"),
}


def heads_of(length: int) -> Heads:
    """BERT-base's heads for rows of `length` tokens."""
    return Heads(
        HIDDEN,
        NUM_HEADS,
        HEAD_SIZE,
        HEAD_SIZE**-0.5,
        projection_bias=True,
        dropout=0.0,
        max_length=length,
    )


def seconds_of(work: Callable[[], Any], budget: float = SECONDS_PER_POINT) -> float:
    """The fastest of the runs that fit in `budget` seconds, 2 to 15, after one that does not count."""
    repeats = max(2, min(15, int(budget / clock(work))))
    return min(clock(work) for _ in range(repeats))


def clock(work: Callable[[], Any]) -> float:
    """Seconds of one run, the device's work included."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def step_of(name: str, length: int, batch: int = 1) -> Callable[[], None]:
    """Forward and backward of one mixer."""
    config, kind = MIXERS[name]
    mixer = mixer_of(config, heads_of(length)).to(DEVICE).train()
    x = torch.randn(batch, length, HIDDEN, device=DEVICE, requires_grad=True)
    view = prepared(config, View(Visibility(kind), length, length, DEVICE))

    def step() -> None:
        out, _ = mixer(x, x, view)
        out.backward(torch.ones_like(out))

    return step


def peak_memory(places: list[tuple[str, int]]) -> list[int]:
    """Bytes that a step of each mixer and length adds to what its process holds.

    Read in a process of its own, which gives memory back between steps.
    """
    for setting in ALLOCATOR:
        os.environ.pop(setting, None)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.starmap(_own_peak, places)


def _own_peak(name: str, length: int) -> int:
    step_of(name, 16)()  # libraries' own buffers
    step = step_of(name, length)
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before = resident_bytes("VmRSS")
    step()
    return resident_bytes("VmHWM") - before


def resident_bytes(line: str) -> int:
    """A figure of /proc/self/status."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{line}:\s*(\d+) kB", text)
    assert found is not None, line
    return int(found.group(1)) * 1024


def scaling() -> dict[str, dict[int, dict[str, float]]]:
    """Seconds and bytes of every mixer at every length it can be run at."""
    places = [
        (name, length)
        for name in MIXERS
        for length in LENGTHS
        if length <= SQUARE_LIMIT or name in LINEAR_FAMILY
    ]
    table: dict[str, dict[int, dict[str, float]]] = {name: {} for name in MIXERS}
    for name, length in places:
        seconds = seconds_of(step_of(name, length))
        table[name][length] = {"seconds": seconds}
        print(f"{name:20} {length:6} {seconds:9.4f} s", flush=True)
    for (name, length), count in zip(places, peak_memory(places), strict=True):
        table[name][length]["bytes"] = count
    return table


def exponent(points: dict[int, dict[str, float]]) -> float:
    """Slope of log seconds over log length by least squares, from 2048 tokens on."""
    pairs = [(math.log(n), math.log(p["seconds"])) for n, p in points.items() if n >= LINEAR_FROM]
    return statistics.linear_regression(*zip(*pairs, strict=True)).slope


def crossover(
    points: dict[int, dict[str, float]], softmax: dict[int, dict[str, float]]
) -> int | None:
    """The first measured length from which a mixer stays faster than softmax attention."""
    slower = [n for n in softmax if n in points and points[n]["seconds"] >= softmax[n]["seconds"]]
    faster = [n for n in softmax if n in points and n > max(slower, default=0)]
    return min(faster, default=None)


def features(length: int) -> list[Tensor]:
    """Features of queries and keys, and values, of 12 heads."""
    return [
        torch.rand(1, NUM_HEADS, length, HEAD_SIZE, device=DEVICE).requires_grad_()
        for _ in range(3)
    ]


def sums_step(form: Callable[[Tensor, Tensor, Tensor], Tensor], length: int) -> Callable[[], None]:
    """Forward and backward of one form of the sums of linear attention."""
    parts = features(length)

    def step() -> None:
        out = mean_of(form(parts[0], parts[1], with_ones(parts[2])))
        torch.autograd.grad(out, parts, torch.ones_like(out))

    return step


def both_ways(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """One sum over all keys."""
    return query @ (key.mT @ value)


def own_form(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal sums as mixers compute them."""
    return side_sums(query, key, value, CAUSAL)


def position_loop(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal sums as a recurrence, one position after the other."""
    sums = torch.zeros_like(key[:, :, :1].mT @ value[:, :, :1])
    outs = []
    for i in range(query.shape[2]):
        place = slice(i, i + 1)
        sums = sums + key[:, :, place].mT @ value[:, :, place]
        outs.append(query[:, :, place] @ sums)
    return torch.cat(outs, dim=2)


def causal_forms() -> dict[str, Any]:
    """Causal linear attention by chunk size, beside the loop over positions and the bidirectional form."""

    def chunked(chunk: int) -> Callable[[], None]:
        return sums_step(lambda q, k, v: side_sums(q, k, v, CAUSAL, None, chunk), LOOP_LENGTH)

    by_chunk = {chunk: seconds_of(chunked(chunk)) for chunk in CHUNKS}
    return {
        "by_chunk": by_chunk,
        "own": by_chunk[CHUNK],
        "bidirectional": seconds_of(sums_step(both_ways, LOOP_LENGTH)),
        # with gradients the loop would keep every sum: both are compared forward alone
        "own_forward": seconds_of(without_gradient(own_form)),
        "loop_forward": seconds_of(without_gradient(position_loop)),
    }


def without_gradient(form: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], None]:
    """Forward pass alone, at the length of the comparison."""
    query, key, value = (part.detach() for part in features(LOOP_LENGTH))
    value = with_ones(value)

    def step() -> None:
        form(query, key, value)

    return step


class Layer(nn.Module):
    """One post-norm layer of BERT-base: what RealFormer's overhead is a share of."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.mixer = mixer_of(config, heads_of(TRAINED_LENGTH))
        self.feed_forward = FeedForward(HIDDEN, 4 * HIDDEN, "gelu", bias=True, dropout=0.0)
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN) for _ in range(2))

    def forward(self, x: Tensor, view: View, carry: Any) -> tuple[Tensor, Any]:
        """x [B, T, D] to the same, and what the mixer carries."""
        change, carry = self.mixer(x, x, view, carry)
        x = self.norms[0](x + change)
        return self.norms[1](x + self.feed_forward(x)), carry


def layers_step(config: MixerConfig, num_layers: int = 3, batch: int = 2) -> Callable[[], None]:
    """Forward and backward of a few layers of BERT-base at 512 tokens."""
    layers = nn.ModuleList(Layer(config) for _ in range(num_layers)).to(DEVICE)
    x = torch.randn(batch, TRAINED_LENGTH, HIDDEN, device=DEVICE)
    segments = torch.ones(batch, TRAINED_LENGTH, dtype=torch.long, device=DEVICE)
    seen = Visibility("all", segments, segments)
    view = prepared(config, View(seen, TRAINED_LENGTH, TRAINED_LENGTH, DEVICE))

    def step() -> None:
        hidden, carry = x, None
        for layer in layers:
            hidden, carry = layer(hidden, view, carry)
        hidden.sum().backward()

    return step


def at_trained_length() -> dict[str, float]:
    """Seconds of whole layers at 512 tokens, alternately measured, and the median of their ratios to softmax."""
    configs = {
        "softmax": SoftmaxConfig(),
        "residual": ResidualConfig(),
        "random": SynthesizerConfig(),
    }
    steps = {name: layers_step(config) for name, config in configs.items()}
    rounds = [{name: clock(step) for name, step in steps.items()} for _ in range(6)][1:]
    facts = {name: statistics.median(one[name] for one in rounds) for name in steps}
    for name in ("residual", "random"):
        facts[f"{name}_ratio"] = statistics.median(one[name] / one["softmax"] for one in rounds)
    return facts


def machine() -> str:
    """What ran this, in words."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*:\s*(.*)", text)
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model.group(1) if model else platform.processor()}, no GPU"


def report(facts: dict[str, Any]) -> str:
    """The figures as text."""
    table, forms, layers = facts["scaling"], facts["causal"], facts["layers"]
    lines = [facts["words"], "", "milliseconds of forward and backward, and peak MB, batch 1"]
    lines.append(f"{'tokens':22}" + "".join(f"{n:>14}" for n in LENGTHS))
    for name, points in table.items():
        cells = [f"{1e3 * p['seconds']:.0f} ms {p['bytes'] / 1e6:.0f}" for p in points.values()]
        lines.append(f"{name:22}" + "".join(f"{cell:>14}" for cell in cells))
    lines += ["", "exponent from 2048 tokens on, and first length faster than softmax"]
    for name in LINEAR_FAMILY:
        lines.append(f"{name:22}{facts['exponents'][name]:.2f}  {facts['crossovers'][name]}")
    chunks = ", ".join(f"{chunk}: {1e3 * s:.0f}" for chunk, s in forms["by_chunk"].items())
    lines += [
        "",
        f"causal linear at {LOOP_LENGTH} tokens, ms by chunk: {chunks} (in use: {CHUNK})",
        f"bidirectional: {1e3 * forms['bidirectional']:.0f} ms",
        f"forward alone {1e3 * forms['own_forward']:.0f} ms, loop {1e3 * forms['loop_forward']:.0f} ms",
        f"RealFormer's layer at {TRAINED_LENGTH} tokens beside softmax: {layers['residual_ratio']:.2f}",
        f"Random Synthesizer's: {layers['random_ratio']:.2f}",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, write, judge; in a process with the allocator's settings, which are read when it starts."""
    if not ALLOCATOR.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    torch.manual_seed(0)
    table = scaling()
    beside = {name: table["softmax causal" if "causal" in name else "softmax"] for name in table}
    versions = library_versions()
    facts: dict[str, Any] = {
        "words": f"Measured on {datetime.datetime.now(datetime.UTC).date()} on {machine()}, float32, torch "
        f"{versions['torch']}, {' '.join(f'{k}={v}' for k, v in ALLOCATOR.items())} "
        "(`benchmarks/attention_scaling.py`).",
        "heads": dataclasses.asdict(heads_of(TRAINED_LENGTH)),
        "scaling": table,
        "exponents": {name: exponent(table[name]) for name in LINEAR_FAMILY},
        "crossovers": {name: crossover(table[name], beside[name]) for name in LINEAR_FAMILY},
        "causal": causal_forms(),
        "layers": at_trained_length(),
        "revision": code_revision(),
        "versions": versions,
    }
    RESULTS.mkdir(exist_ok=True)
    text = report(facts)
    (RESULTS / "attention_scaling.txt").write_text(text, encoding="utf-8")
    (RESULTS / "attention_scaling.json").write_text(
        json.dumps(facts, indent=2) + "\n", encoding="utf-8"
    )
    print(text)
    forms, layers = facts["causal"], facts["layers"]
    promises = {
        **{
            f"{name}: exponent at most 1.1": facts["exponents"][name] <= 1.1
            for name in LINEAR_FAMILY
        },
        "causal linear: 5 times as fast as the loop": forms["loop_forward"]
        >= 5 * forms["own_forward"],
        "causal linear: within 3 times of bidirectional": forms["own"]
        <= 3 * forms["bidirectional"],
        "Random Synthesizer faster than softmax": layers["random_ratio"] < 1,
        "RealFormer adds less than 25 %": layers["residual_ratio"] < 1.25,
    }
    for promise, kept in promises.items():
        print(f"{'kept' if kept else 'BROKEN':6} {promise}")
    return int(not all(promises.values()))


if __name__ == "__main__":
    raise SystemExit(main())
