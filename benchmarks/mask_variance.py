"""Masks proposed by MAP-Net against uniform ones on real text: variance of gradients, and held-out loss.

    python benchmarks/mask_variance.py [folder] [--pages FOLDER] [--size 1] [--seeds 5]    (build/mask_variance)

A small encoder learns English manuals and essays from Debian packages (`real_pages.py`) in four ways: plain masked
language modelling, MAP-Net with candidate masks and two targets of the proposal, and with inclusion by token. Seeds
share initial weights, rows and, for uniform masks, noise. On the way, on rows and masks of their own:

* candidates: the gradient of every one of 16 uniform masks of a row, so that the variance under the proposal, and under
  other laws (the best, by loss, by the bound of the output layer), differs from the uniform one by a sum without draws;
* inclusion by token: the variance meter, with the proposal and without;
* the loss of held-out rows under uniform masks, against steps and against CPU seconds.

Intervals are Student's over seeds, 95 %. Two seeds run side by side. `--size` scales the steps: at 1 the study takes
about a quarter of an hour on two cores. Writes `results/mask_variance.txt`, `.json` and `.svg`.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mask_variance_figures import gaps_of, plot, ratios_of, rows_of, verdict
from measure import ROOT, conclude
from real_pages import DEFAULT
from study import english, outputs, pretraining, side_by_side, training
from torch import Tensor

from pipeline import files
from pipeline.data.order import rows_at
from pipeline.evaluate.held_out import held_out_means
from pipeline.models.output import Targets
from pipeline.objectives import subsets
from pipeline.objectives.map_net import MapNet
from pipeline.objectives.masks import Masking
from pipeline.objectives.mlm import Mlm, MlmConfig
from pipeline.runtime import rng_of
from pipeline.stages.pretrain import CorruptedRows
from pipeline.train.engine import on_device
from pipeline.train.run import Trainable
from pipeline.train.variance import KEPT, gradient_variance

STEPS, BATCH, ROW_LENGTH = 440, 32, 62
MODEL = {
    "type": "encoder",
    "num_layers": 2,
    "hidden_size": 128,
    "num_heads": 4,
    "ffn_size": 512,
    "max_length": 64,
    "dropout": 0.0,
    "initial_std": 0.05,
}
TRAIN = {
    "batch": BATCH,
    "optimizer": {"type": "adamw", "lr": 2e-3},
    "schedule": {"type": "constant", "warmup_steps": 50},  # so that any moment can be compared
}
ARMS: dict[str, dict[str, Any]] = {
    "plain": {"type": "mlm"},
    "candidates": {"type": "map_net", "design": "candidates", "target": "last_layer"},
    "true norm": {"type": "map_net", "design": "candidates", "target": "gradient_norm"},
    "per token": {"type": "map_net", "design": "per_token", "target": "last_layer"},
}
SHARES = (0.25, 0.5, 1.0)  # of training, after which variances are measured
EVALUATIONS, HELD_OUT_ROWS = 10, 256
ROWS, GROUPS, DRAWS = 24, 4, 8  # groups of candidates a row; draws a row by the meter
CPU = torch.device("cpu")
LAWS = ("proposal", "best of candidates", "loss", "output layer")


def norm_of_each(objective: MapNet, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Of the candidates of one row: gradients [R, weights] in float64, losses and bounds of the output layer [R]."""
    weights = list(objective.network.parameters())
    gradients, losses, bounds = [], [], []
    for number in range(batch["labels"].shape[1]):
        positions, labels, replacements = (
            batch[name][:, number] for name in ("scored_positions", "labels", "replacements")
        )
        masking = Masking(positions, labels, replacements, torch.ones_like(labels).float())
        frame = (masking.hidden(batch["input_ids"]), batch["segment_ids"], batch["position_ids"])
        states = objective.network.scored_states(*frame, positions)
        found = objective.network.head.losses(states, Targets(labels))
        with torch.no_grad():
            sizes = objective.last_layer_norms(states.detach(), labels).log()
        bounds.append(subsets.mask_log_sizes(sizes, labels >= 0)[0])
        grads = torch.autograd.grad(found.total, weights, allow_unused=True)
        gradients.append(torch.cat([g.flatten() for g in grads if g is not None]).double())
        losses.append(found.total.detach())
    return torch.stack(gradients), torch.stack(losses), torch.stack(bounds)


def by_candidates(objective: MapNet, trainable: Trainable, seed: int) -> dict[str, Any]:
    """Mean over rows of the mask variance of one uniform mask, and what each law of choosing adds to it.

    E[w^2 |g|^2] of a law rho over R candidates is the sum of (1 / R^2) / rho |g|^2; the expectation of w g is the same
    for all laws, so differences of second moments are differences of variances.
    """
    objective.eval()
    source, share = trainable.source, objective.settings.uniform_share
    _, rows = rows_at(np.arange(ROWS), num_rows=len(source), seed=seed + 1000)
    table, agreement = [], []
    for row in rows.tolist():
        kept, differences = [], dict.fromkeys(LAWS, 0.0)
        for group in range(GROUPS):
            example = source.example(row, rng_of(seed, "candidates", row, group))
            batch = on_device(source.collate([example]), CPU)
            gradients, losses, bounds = norm_of_each(objective, batch)
            kept.append(gradients)
            norms = gradients.square().sum(dim=1)
            with torch.no_grad():
                each = objective.scores(batch)[:, None].expand(-1, len(norms), -1)
            each = each.gather(2, batch["scored_positions"])
            said = subsets.mask_log_sizes(each.double(), batch["labels"] >= 0)[0]
            laws = {
                "proposal": subsets.mixed(said.softmax(0), 1 / len(norms), share),
                "best of candidates": norms.sqrt() / norms.sqrt().sum(),
                "loss": subsets.mixed(losses.double() / losses.sum(), 1 / len(norms), share),
                "output layer": subsets.mixed(bounds.double().softmax(0), 1 / len(norms), share),
            }
            for law, rho in laws.items():
                second = (norms / rho).sum() / len(norms) ** 2
                differences[law] += float(second - norms.mean()) / GROUPS
            agreement.append([(said - said.mean()).tolist(), centred_log(norms)])
        whole = torch.cat(kept)
        sizes = whole.norm(dim=1)
        uniform = float((whole - whole.mean(dim=0)).square().sum() / (len(whole) - 1))
        table.append([uniform, float(sizes.var()), *differences.values()])
    means = np.mean(table, axis=0).tolist()
    said_all, true_all = (np.concatenate([one[side] for one in agreement]) for side in (0, 1))
    spread = np.std(said_all) * np.std(true_all)
    return {
        "uniform": means[0],
        "ratios": {
            "best of all masks": 1 - means[1] / means[0],
            **{law: 1 + gain / means[0] for law, gain in zip(LAWS, means[2:], strict=True)},
        },
        "correlation": float(np.mean(said_all * true_all) / spread) if spread else 0.0,
    }


def centred_log(squares: Tensor) -> list[float]:
    """Logarithms of norms, less their mean."""
    logs: Tensor = 0.5 * squares.log()
    centred: list[float] = (logs - logs.mean()).tolist()
    return centred


def by_meter(objective: MapNet, trainable: Trainable, seed: int) -> dict[str, Any]:
    """Mask variance with the proposal over that without, by the meter on the same rows."""
    found = {
        name: gradient_variance(mode(), trainable.source, rows=ROWS, masks=DRAWS, seed=seed + 1000)[
            KEPT
        ]
        for name, mode in (("proposed", objective.train), ("uniform", objective.eval))
    }
    ratio = found["proposed"].mask / found["uniform"].mask
    return {
        "uniform": found["uniform"].mask,
        "data": found["uniform"].data,
        "mask_share": found["uniform"].mask_share,
        "ratios": {"proposal": ratio},
    }


def one(arm: str, seed: int, tokens: Path, steps: int) -> dict[str, Any]:
    """One training: variances, held-out losses, and the CPU seconds that training took up to each."""
    torch.set_num_threads(1)
    stage = pretraining(ARMS[arm], MODEL, steps, {**TRAIN, "seed": seed})
    trainable = stage.trainable({"tokens": tokens})
    objective, unseen = trainable.objective, trainable.held_out
    assert isinstance(unseen, CorruptedRows)
    plain = MlmConfig().corruption(unseen.rows.vocabulary(), ROW_LENGTH)
    measure_on = CorruptedRows(unseen.rows, plain)
    watched = {round(share * steps) for share in SHARES}
    points, variances, weights = [], {}, []
    for now in training(trainable):
        if arm != "plain":
            figures = now.result.figures(objective)
            weights.append([figures["weight"], figures["effective_share"]])
        if now.steps % (steps // EVALUATIONS) == 0:
            own = Mlm(objective.kept())
            loss = held_out_means(own, measure_on, rows=HELD_OUT_ROWS, seed=0)["mlm"]
            points.append({"step": now.steps, "seconds": now.seconds, "loss": loss})
        if now.steps in watched and isinstance(objective, MapNet):
            measured = by_meter if arm == "per token" else by_candidates
            variances[str(now.steps)] = measured(objective, trainable, seed)
    half = np.array(weights[len(weights) // 2 :]) if weights else np.ones((1, 2))
    return {
        "points": points,
        "variances": variances,
        "weight": float(half[:, 0].mean()),
        "effective_share": float(half[:, 1].mean()),
    }


def all_runs(folder: Path, tokens: Path, steps: int, seeds: int) -> dict[str, list[Any]]:
    """Results by arm."""
    given = {"tokens": str(tokens), "steps": steps}
    jobs = {
        f"{arm}-{seed}-{steps}": {"arm": arm, "seed": seed, **given}
        for seed in range(seeds)
        for arm in ARMS
    }
    found = list(zip(jobs.values(), side_by_side(__file__, folder, jobs), strict=True))
    return {arm: [result for job, result in found if job["arm"] == arm] for arm in ARMS}


def main() -> int:
    """Prepare, train, compare, write; or do one job of another such process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "mask_variance")
    parser.add_argument("--pages", type=Path, default=DEFAULT)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job = options.job
        found = one(job["arm"], job["seed"], Path(job["tokens"]), job["steps"])
        files.write_json(Path(job["out"]), found)
        return 0
    steps = 4 * EVALUATIONS * max(round(options.size * STEPS / (4 * EVALUATIONS)), 1)
    stages = english(options.pages, vocab_size=4000, row_length=ROW_LENGTH)
    tokens = outputs(options.folder, stages)["tokens"]
    results = all_runs(options.folder, tokens, steps, options.seeds)
    ratios, gaps = ratios_of(results), gaps_of(results)
    plot(results, ratios)
    proposed = [run for arm in ARMS if arm != "plain" for run in results[arm]]
    shares = [
        measured["mask_share"]
        for run in results["per token"]
        for measured in run["variances"].values()
    ]
    words = (
        f"MAP-Net against uniform masks: {options.seeds} seeds, {steps} steps of {BATCH} rows of "
        f"{ROW_LENGTH + 2} tokens, {MODEL['num_layers']} layers of {MODEL['hidden_size']}; means "
        f"and 95 % intervals over seeds. Masks make {np.mean(shares):.0%} of the variance of a row's "
        f"gradient. {verdict(ratios, gaps)}"
    )
    promises = {
        "importance weights average to 1 within 2 %": all(
            abs(run["weight"] - 1) < 0.02 for run in proposed
        ),
        "choosing by the true norm lowers the variance": all(
            points["best of candidates"][step][2] < 1
            for arm, points in ratios.items()
            if "best of candidates" in points
            for step in points["best of candidates"]
        ),
    }
    facts = {"steps": steps, "ratios": ratios, "losses": gaps, "runs": results}
    return conclude("mask_variance", words, rows_of(ratios, gaps), facts, promises)


if __name__ == "__main__":
    raise SystemExit(main())
