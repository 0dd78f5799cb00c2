"""The denoisers of T5's study on real text, at equal steps, by the one figure they share: the loss of infilling.

    python benchmarks/t5_denoisers.py [folder] [--pages FOLDER] [--size 1] [--seeds 3]      (build/t5_denoisers)

A small encoder-decoder learns English manuals and essays from Debian packages (`real_pages.py`) by each denoiser. Seeds
share initial weights and rows. Their own losses cannot be compared, for their targets differ, so two figures are taken
on the same held-out rows: the loss of infilling as each network is, which favours those that have met its form, and
after a quarter as many steps of T5's spans on top, which all of them take in the same way; a network with random
weights takes these alone. Steps are equal, not computation: CPU seconds a step are in the table, and longer targets
cost more. Intervals are Student's over seeds, 95 %. Two seeds run side by side. `--size` scales the steps: at 1 the
study takes about 10 minutes on two cores. Writes `results/t5_denoisers.txt`, `.json` and `.svg`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from measure import RESULTS, ROOT, conclude
from real_pages import DEFAULT
from scipy import stats
from study import english, outputs, pretraining, side_by_side, training

from pipeline import files
from pipeline.data.shards import TokenRows
from pipeline.evaluate.held_out import held_out_means
from pipeline.objectives.pairs import TextToText
from pipeline.stages.pretrain import CorruptedRows
from pipeline.train.yardstick import yardstick_of

PROCESSES = 2
STEPS, BATCH, ROW_LENGTH = 200, 32, 70  # rows of 70 become inputs of 64 and targets of 14
ADAPTATION = 0.25  # steps of T5's spans on top, as a share of those before
HELD_OUT_ROWS = 512
MODEL = {
    "type": "encoder_decoder",
    "num_layers": 2,
    "hidden_size": 128,
    "num_heads": 4,
    "head_size": 32,
    "ffn_size": 512,
    "dropout": 0.0,
}
LEARNING_RATE, WARMUP_SHARE = 5e-3, 0.1
ARMS: dict[str, dict[str, Any]] = {
    "random spans of 3": {"type": "spans"},
    "random spans of 10": {"type": "spans", "mean_span_length": 10},
    "replaced runs (i.i.d.)": {"type": "replaced_runs"},
    "MASS-style": {"type": "mass_style"},
    "dropped tokens": {"type": "dropped_tokens"},
    "deshuffling": {"type": "deshuffling"},
    "prefix LM": {"type": "prefix_lm"},
}
NONE = "random weights"


def trained(
    denoiser: Mapping[str, Any],
    seed: int,
    steps: int,
    tokens: Path,
    begin: torch.nn.Module | None = None,
) -> tuple[Any, float]:
    """The network after training, from the weights of `begin` if it is given, and CPU seconds a step."""
    train = {
        "batch": BATCH,
        "seed": seed,
        "optimizer": {"type": "adamw", "lr": LEARNING_RATE},
        "schedule": {"type": "linear", "warmup_steps": max(1, round(WARMUP_SHARE * steps))},
    }
    objective = {"type": "denoising", "denoisers": [denoiser]}
    trainable = pretraining(objective, MODEL, steps, train).trainable({"tokens": tokens})
    kept: Any = trainable.objective.kept()
    if begin is not None:
        kept.load_state_dict(begin.state_dict())
    *_, last = training(trainable)
    return kept, last.seconds / steps


def infilling(network: Any, tokens: Path) -> float:
    """Nats a target token of the yardstick, on held-out rows that are the same for all."""
    yardstick, rows = yardstick_of(network), TokenRows(tokens, "validation")
    assert yardstick is not None
    corruption = yardstick.corruption(network, rows.vocabulary(), rows.row_length)
    source, objective = CorruptedRows(rows, corruption), yardstick.around(network)
    assert isinstance(objective, TextToText)
    return held_out_means(objective, source, rows=HELD_OUT_ROWS, seed=0, micro_batch=BATCH)[
        "denoising"
    ]


def one(arm: str, seed: int, tokens: Path, steps: int) -> dict[str, float]:
    """Both figures of one network, and what a step of its denoiser costs."""
    torch.set_num_threads(1)
    network, seconds = None, 0.0
    found = {}
    if arm != NONE:
        network, seconds = trained(ARMS[arm], seed, steps, tokens)
        found["as it is"] = infilling(network, tokens)
    further = max(1, round(ADAPTATION * steps))
    adapted, _ = trained({"type": "spans"}, seed, further, tokens, network)
    return found | {"adapted": infilling(adapted, tokens), "seconds a step": seconds}


def all_runs(folder: Path, tokens: Path, steps: int, seeds: int) -> dict[str, list[Any]]:
    """What every arm gave with each seed."""
    names = [*ARMS, NONE]
    given = {"tokens": str(tokens), "steps": steps}
    jobs = {
        f"{arm}-{seed}-{steps}": {"arm": arm, "seed": seed, **given}
        for arm in names
        for seed in range(seeds)
    }
    found = side_by_side(__file__, folder, jobs)
    return {arm: found[n * seeds : (n + 1) * seeds] for n, arm in enumerate(names)}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values)), float(half)


def plot(results: Mapping[str, list[Any]]) -> None:
    """A point for every network, both figures side by side."""
    figure, both = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axes, name in zip(both, ("as it is", "adapted"), strict=True):
        for place, runs in enumerate(results.values()):
            values = [run[name] for run in runs if name in run]
            axes.plot(values, [place] * len(values), "o", alpha=0.6)
        axes.set_xlabel(f"infilling loss, {name} (nats a target token)")
        axes.set_yticks(range(len(results)), list(results))
    both[0].invert_yaxis()
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "t5_denoisers.svg", metadata={"Date": None})


def rows_of(results: Mapping[str, list[Any]]) -> list[list[str]]:
    """The table: both losses with their intervals, and seconds."""
    rows = [["denoiser", "infilling as it is", "infilling adapted", "CPU ms a step"]]
    for arm, runs in results.items():
        cells = []
        for name in ("as it is", "adapted"):
            values = [run[name] for run in runs if name in run]
            mean, half = interval(values) if values else (0.0, 0.0)
            cells.append(f"{mean:.3f} ± {half:.3f}" if values else "-")
        milliseconds = 1000 * float(np.median([run["seconds a step"] for run in runs]))
        rows.append([arm, *cells, f"{milliseconds:.0f}" if arm != NONE else "-"])
    return rows


def promises_of(results: Mapping[str, list[Any]]) -> dict[str, bool]:
    """What the published study says where it can be asked at this size, judged seed by seed."""
    values = {arm: [run["adapted"] for run in runs] for arm, runs in results.items()}

    def below(one: str, other: str) -> bool:
        return all(a < b for a, b in zip(values[one], values[other], strict=True))

    return {
        "every denoiser is worth more than random weights, in every seed": all(
            below(arm, NONE) for arm in ARMS
        ),
        "spans and replaced runs are below deshuffling, in every seed": all(
            below(arm, "deshuffling") for arm in ("random spans of 3", "replaced runs (i.i.d.)")
        ),
    }


def main() -> int:
    """Prepare, train, compare, write; or do one job of another such process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "t5_denoisers")
    parser.add_argument("--pages", type=Path, default=DEFAULT)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job = options.job
        found = one(job["arm"], job["seed"], Path(job["tokens"]), job["steps"])
        files.write_json(Path(job["out"]), found)
        return 0
    steps = max(4, round(options.size * STEPS))
    stages = english(options.pages, vocab_size=4000, row_length=ROW_LENGTH)
    tokens = outputs(options.folder, stages)["tokens"]
    results = all_runs(options.folder, tokens, steps, options.seeds)
    plot(results)
    words = (
        f"T5's denoisers at {steps} steps of {BATCH} rows of {ROW_LENGTH} tokens, {options.seeds} seeds, "
        f"{MODEL['num_layers']} + {MODEL['num_layers']} layers of {MODEL['hidden_size']}: held-out loss of "
        f"infilling T5's spans, as the networks are and after {round(ADAPTATION * steps)} steps of it; "
        "means and 95 % intervals over seeds."
    )
    facts = {"steps": steps, "runs": results}
    return conclude("t5_denoisers", words, rows_of(results), facts, promises_of(results))


if __name__ == "__main__":
    raise SystemExit(main())
