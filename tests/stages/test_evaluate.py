"""The evaluate stage on models trained on a small world."""

import dataclasses

import numpy as np
import pytest
import torch
from small_world import TRAIN, FakeWork, finetune_of, make_world, theseus_of

from pipeline import files
from pipeline.config import ConfigError, DataError, build_from
from pipeline.data.order import rows_at
from pipeline.data.shards import TokenRows
from pipeline.evaluate.forms import Reading
from pipeline.evaluate.seeds import spreads
from pipeline.evaluate.task import load_task
from pipeline.flow.record import Record
from pipeline.models.artifact import load_model
from pipeline.objectives.mlm import MlmConfig
from pipeline.runtime import rng_of
from pipeline.stages.evaluate import Evaluate


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    made = make_world(folder)
    for name, stage in (("finetune", finetune_of()), ("theseus", theseus_of())):
        trainable = stage.trainable(made)
        trainable.objective.eval()
        trainable.save(folder / name / "model")
        made[name] = folder / name
    return made


def stage_of(**changes):
    values = {
        "kind": "evaluate",
        "classifiers": ["finetune", "theseus"],
        "language_models": ["pretrain"],
        "task": "task",
        "tokens": "tokens",
        "sentences": 5,
        "rounds": 1,
    }
    return build_from(Evaluate, {**values, **changes}, "test")


def test_results_hold_scores_sizes_speeds_and_losses(inputs, tmp_path):
    work = FakeWork(tmp_path, inputs)
    counts = stage_of().run(work)
    results = files.read_json(tmp_path / "results.json")
    assert results == counts
    large, small = results["classifiers"]["finetune"], results["classifiers"]["theseus"]
    assert (large["layers"], small["layers"]) == (4, 2)
    network, _ = load_model(inputs["finetune"] / "model")
    block = sum(p.numel() for p in network.encoder.layers[0].parameters())
    assert large["parameters"] - small["parameters"] == 2 * block
    assert large["bytes"] > small["bytes"] > 4 * small["parameters"]
    assert large["latency"]["relative_speed"] == 1.0
    assert small["latency"]["median_ms"] > 0
    assert results["baselines"]["tfidf_logistic_regression"]["value"] == 1.0
    majority = results["baselines"]["majority"]
    assert majority["low"] < majority["value"] < majority["high"] < 1.0
    assert work.reported[-1][0] == work.reported[-1][1]
    for entry in (large, small, results["baselines"]["majority"]):
        score = entry.get("score", entry)
        assert score["name"] == "accuracy"


def test_accuracy_is_that_of_rows_answered_one_by_one(inputs, tmp_path):
    results = stage_of().run(FakeWork(tmp_path, inputs))
    network, _ = load_model(inputs["finetune"] / "model")
    vocabulary = TokenRows(inputs["tokens"], "train").vocabulary()
    source = load_task(inputs["task"]).source("test", vocabulary, Reading(16))
    test = list(files.read_json_lines(inputs["task"] / "test.jsonl"))
    right = 0
    for row, line in enumerate(test):
        batch = source.collate([source.example(row, rng_of(0, "any"))])
        logits = network(
            *(torch.from_numpy(batch[k]) for k in ("input_ids", "segment_ids", "position_ids"))
        )
        right += int(logits.argmax()) == line["label"]
    assert results["classifiers"]["finetune"]["score"]["value"] == pytest.approx(right / len(test))


def test_held_out_loss_is_measured_on_the_rows_and_noise_of_training(inputs, tmp_path):
    results = stage_of().run(FakeWork(tmp_path, inputs))
    losses = results["language_models"]["pretrain"]
    assert losses["before"] == {"mlm": 4.5, "accuracy": 0.01}
    rows = TokenRows(inputs["tokens"], "validation")
    corruption = MlmConfig().corruption(rows.vocabulary(), rows.row_length)
    network, _ = load_model(inputs["pretrain"] / "model")
    total, scored = 0.0, 0
    _, chosen = rows_at(np.arange(TRAIN["evaluate_rows"]), num_rows=len(rows), seed=3)
    for row in chosen.tolist():
        example = corruption.corrupt(rows.row(row), rng_of(3, "held_out", row))
        names = ("input_ids", "segment_ids", "position_ids", "scored_positions")
        logits = network(*(torch.from_numpy(example[name])[None] for name in names))[0]
        log_p = torch.log_softmax(logits.double(), dim=-1)
        for position, label in enumerate(example["labels"]):
            if label >= 0:
                total -= log_p[position, label].item()
                scored += 1
    assert losses["yardstick"] == "masked_token"
    assert losses["common"]["mlm"] == pytest.approx(total / scored, rel=1e-5)
    assert np.isfinite(losses["common"]["accuracy"])
    assert losses["after"] == {"mlm": 3.0}


def test_mistakes_are_refused_in_words(inputs, tmp_path):
    with pytest.raises(ConfigError, match="need tokens"):
        stage_of(tokens=None)
    with pytest.raises(ConfigError, match="classifiers is empty"):
        stage_of(classifiers=[])
    other = tmp_path / "task"
    for split in ("train", "validation", "test"):
        files.write_json_lines(other / f"{split}.jsonl", [{"text": "a", "label": 0}])
    files.write_json(other / "task.json", {"labels": ["x", "y"], "metric": "accuracy"})
    with pytest.raises(DataError, match="trained on other labels"):
        stage_of().run(FakeWork(tmp_path, {**inputs, "task": other}))


def test_models_that_differ_in_the_seed_only_have_a_median(inputs, tmp_path):
    folders = {}
    for name, seed, epochs in (("a-seed0", 0, 1), ("a-seed1", 1, 1), ("b", 0, 2)):
        folders[name] = tmp_path / name
        config = {"model": f"pretrain-seed{seed}", "epochs": epochs, "train": {"seed": seed}}
        read = f"pretrain-seed{seed}"
        for stage, made, reads in (
            (read, {"seed": seed}, {}),
            (name, config, {read: {"folder": read}}),
        ):
            facts = {"config": made, "inputs": reads, "sources": {}, "stage": stage}
            blank = {field.name: "" for field in dataclasses.fields(Record)}
            Record(**{**blank, **facts}).write(tmp_path / stage)
    found = spreads(folders, {"a-seed0": 0.5, "a-seed1": 0.75, "b": 0.9})
    assert found == {
        "a": {
            "models": ["a-seed0", "a-seed1"],
            "median": 0.625,
            "low": 0.5,
            "high": 0.75,
            "deviation": pytest.approx(0.125 * 2**0.5),
        }
    }
