"""Shipping to MLflow: whole, once, in any order of interruptions, and never in the way of a run."""

import json
import time

import pytest
from mlflow.exceptions import MlflowException

from pipeline import files
from pipeline.track import mlflow
from pipeline.track.tracker import Journal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    return mlflow.connect(None, tmp_path_factory.mktemp("store"), "study")


def stage_folder(root, name="pretrain", points=5):
    folder = root / name
    journal = Journal(folder / "journal.jsonl")
    for step in range(1, points + 1):
        journal.metrics(step, {"loss": 1.0 / step})
    journal.close()
    about = {"stage": name, "kind": "pretrain", "fingerprint": f"print of {folder}"}
    files.write_json(folder / "running.json", about)
    return folder


def finish(folder, makes="language_model"):
    about = files.read_json(folder / "running.json")
    record = {
        **about,
        "makes": makes,
        "config": {"model": {"hidden_size": 32}, "steps": 5, "long": "x" * 7000},
        "inputs": {"tokens": {"folder": "tokens-1234", "fingerprint": "f00"}},
        "counts": {"rows": 40, "dropped": {"a b:c": 3}},
        "started": time.time(),
        "seconds": 1.5,
        "revision": "abc",
    }
    files.write_json(folder / "record.json", record)


def history(door, folder, name="loss"):
    run_id = files.read_json(folder / "tracking.json")["run_id"]
    return [(m.step, m.value) for m in door.client.get_metric_history(run_id, name)]


def test_running_then_finished_is_one_run_with_everything_once(door, tmp_path):
    parent = mlflow.find_run(door, {"theseum.run": "one"}, "study")
    folder = stage_folder(tmp_path)
    mlflow.ship(door, folder, parent)
    mlflow.ship(door, folder, parent)
    Journal(folder / "journal.jsonl").metrics(6, {"loss": 0.1})
    finish(folder)
    for _ in range(3):
        mlflow.ship(door, folder, parent)
    assert history(door, folder) == [(s, 1.0 / s) for s in range(1, 6)] + [(6, 0.1)]
    run = door.client.get_run(files.read_json(folder / "tracking.json")["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"model.hidden_size": "32", "steps": "5"}
    assert run.data.metrics["counts/rows"] == 40
    assert run.data.metrics["counts/dropped.a b_c"] == 3
    assert run.data.tags[mlflow.PARENT_TAG] == parent
    assert run.data.tags["theseum.input.tokens"] == "f00"


def test_lost_watermark_ships_again_without_duplicates(door, tmp_path):
    parent = mlflow.find_run(door, {"theseum.run": "two"}, "study")
    folder = stage_folder(tmp_path)
    mlflow.ship(door, folder, parent)
    first = files.read_json(folder / "tracking.json")["run_id"]
    (folder / "tracking.json").unlink()
    mlflow.ship(door, folder, parent)
    assert files.read_json(folder / "tracking.json")["run_id"] == first, "found by its tags"
    assert len(history(door, folder)) == 5


@pytest.mark.parametrize(("makes", "part"), [("classifier", "model"), ("export", "huggingface")])
def test_final_models_are_registered_with_lineage(door, tmp_path, makes, part):
    parent = mlflow.find_run(door, {"theseum.run": "three"}, "study")
    folder = stage_folder(tmp_path, name=f"made-{makes}")
    (folder / part).mkdir()
    (folder / part / "config.json").write_text("{}")
    finish(folder, makes)
    for _ in range(2):
        mlflow.ship(door, folder, parent)
        (folder / "tracking.json").unlink()  # as if killed before the watermark was kept
    mlflow.ship(door, folder, parent)
    versions = door.client.search_model_versions(f"name = 'study-made-{makes}'")
    assert len(versions) == 1
    version = door.client.get_model_version_by_alias(f"study-made-{makes}", "candidate")
    assert version.tags["from.tokens"] == "f00"
    assert version.run_id == files.read_json(folder / "tracking.json")["run_id"]


def test_shipper_follows_a_stage_and_closes_the_parent(tmp_path):
    shipper = mlflow.Shipper(None, tmp_path, "run", "digest")
    folder = stage_folder(tmp_path)
    shipper.stage_started("pretrain", folder)
    finish(folder)
    shipper.stage_finished("pretrain", folder)
    shipper.run_finished("FINISHED")
    door = mlflow.connect(None, tmp_path, "run")
    assert len(history(door, folder)) == 5
    [parent] = door.client.search_runs([door.experiment_id], "tags.`theseum.run` = 'digest'")
    assert parent.info.status == "FINISHED"


def test_dead_server_costs_nothing_and_the_next_run_catches_up(tmp_path):
    dead = "http://127.0.0.1:9"
    shipper = mlflow.Shipper(dead, tmp_path, "run", "digest")
    folder = stage_folder(tmp_path, name="late-1")
    began = time.monotonic()
    shipper.stage_started("late", folder)
    finish(folder)
    shipper.stage_finished("late", folder)
    assert time.monotonic() - began < 0.1, "no verb waits for the server"
    shipper.run_finished("FINISHED")
    assert "run_id" not in json.loads((folder / "tracking.json").read_text())
    another = mlflow.Shipper(None, tmp_path, "another", "other digest")
    another.run_finished("FINISHED")
    assert json.loads((folder / "tracking.json").read_text())["finished"]
    door = mlflow.connect(None, tmp_path, "run")
    assert len(history(door, folder)) == 5
    [parent] = door.client.search_runs([door.experiment_id], "tags.`theseum.run` = 'digest'")
    run = door.client.get_run(files.read_json(folder / "tracking.json")["run_id"])
    assert run.data.tags[mlflow.PARENT_TAG] == parent.info.run_id, "it went where it belongs"
    assert run.info.experiment_id == door.experiment_id


def test_failed_stage_runs_again_in_the_same_run(tmp_path):
    folder = stage_folder(tmp_path)
    for status, ending in (("FAILED", None), ("FINISHED", "record")):
        shipper = mlflow.Shipper(None, tmp_path, "run", "digest")
        shipper.stage_started("pretrain", folder)
        if ending:
            finish(folder)
            shipper.stage_finished("pretrain", folder)
        else:
            shipper.stage_failed("pretrain")
        shipper.run_finished(status)
    door = mlflow.connect(None, tmp_path, "run")
    runs = door.client.search_runs([door.experiment_id], "tags.`theseum.kind` = 'pretrain'")
    assert [run.info.status for run in runs] == ["FINISHED"]


def test_failed_stage_is_marked_failed(tmp_path):
    shipper = mlflow.Shipper(None, tmp_path, "run", "digest")
    folder = stage_folder(tmp_path)
    shipper.stage_started("pretrain", folder)
    shipper.stage_failed("pretrain")
    shipper.run_finished("FAILED")
    door = mlflow.connect(None, tmp_path, "run")
    run_id = files.read_json(folder / "tracking.json")["run_id"]
    assert door.client.get_run(run_id).info.status == "FAILED"
    with pytest.raises(MlflowException):
        door.client.get_registered_model("run-pretrain")
