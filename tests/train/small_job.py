"""Whole training jobs, small enough to start several in a test."""

from pathlib import Path
from typing import Any

from pipeline import files

MODELS = {
    "mlm": {
        "type": "encoder",
        "num_layers": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "ffn_size": 64,
        "max_length": 32,
    },
    "denoising": {
        "type": "encoder_decoder",
        "num_layers": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "head_size": 16,
        "ffn_size": 64,
    },
}

MODELS["map_net"] = MODELS["mlm"]
MODELS["rtd"] = MODELS["mlm"] | {"embedding_size": 24}
MODELS["unilm"] = MODELS["mlm"] | {"max_length": 33, "token_types": 6}

Losses = dict[int, dict[str, float]]


def write_job(
    out: Path, tokens: Path, *, objective: str = "mlm", dropout: float = 0.0, **train: Any
) -> Path:
    """A job of 20 steps of 8 rows; `train` overrides its settings."""
    settings = {
        "batch": 8,
        "micro_batch": 2,
        "precision": "float32",
        "engine": {"type": "deepspeed", "zero_stage": 1, "bucket_elements": 200_000},
        "schedule": {"type": "linear", "warmup_steps": 4},
        "evaluate_every": 10,
        "evaluate_rows": 20,
        "checkpoint_every": 5,
        **train,
    }
    stage = {
        "kind": "pretrain",
        "tokens": "tokens",
        "model": {**MODELS[objective], "dropout": dropout},
        "objective": {"type": objective},
        "steps": 20,
        "train": settings,
    }
    out.mkdir(parents=True, exist_ok=True)
    job = {"stage": stage, "inputs": {"tokens": str(tokens)}, "out": str(out)}
    files.write_json(out / "job.json", job)
    return out / "job.json"


def losses_of(out: Path) -> Losses:
    """What the journal reports of each step, clock-dependent figures left out."""
    steps: Losses = {}
    for entry in files.read_json_lines(out / "journal.jsonl"):
        if entry["type"] == "metrics":
            values = {k: v for k, v in entry["values"].items() if not k.endswith("_per_second")}
            steps.setdefault(entry["step"], {}).update(values)
    return steps
