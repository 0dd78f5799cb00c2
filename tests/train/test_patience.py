"""Early stopping: when a run ends, what it hands on, and that an interruption changes neither."""

import pytest
import torch
from small_job import write_job

from pipeline import files
from pipeline.config import ConfigError, build_from
from pipeline.runtime import Ranks
from pipeline.stages.pretrain import Pretrain
from pipeline.track.tracker import Journal
from pipeline.train import checkpoint
from pipeline.train.checkpoint import Keep
from pipeline.train.engine_torch import TorchEngine
from pipeline.train.loop import Job, Preempted, best_weights, fit
from pipeline.train.patience import Patience
from pipeline.train.run import TrainSettings
from pipeline.train.saving import Saver


def test_waiting_begins_anew_with_every_better_figure():
    patience = Patience("loss", limit=2)
    seen = [patience.better({"loss": value}) for value in (3.0, 4.0, 2.0, 2.0)]
    assert seen == [True, False, True, False]
    assert not patience.over
    assert not patience.better({})
    assert not patience.over, "a step without an evaluation is none"
    assert not patience.better({"loss": 2.5})
    assert patience.over
    rising = Patience("accuracy", limit=1, sign=-1)
    assert rising.better({"accuracy": 0.5})
    assert rising.better({"accuracy": 0.6})
    assert not rising.better({"accuracy": 0.55})
    assert rising.over


@pytest.fixture
def job_of(token_folder, tmp_path):
    """A job of 20 steps, evaluated after every second one, whose learning rate makes it worse and worse."""

    def make(out, stop=lambda: False):
        more = {"evaluate_rows": 4, "evaluate_every": 2, "keep_best": "mlm", "patience": 2}
        more["optimizer"] = {"type": "adamw", "lr": 2.0}
        path = write_job(tmp_path, token_folder, engine={"type": "torch"}, **more)
        stage = build_from(Pretrain, files.read_json(path)["stage"])
        trainable = stage.trainable({"tokens": token_folder})
        settings = trainable.settings
        engine = TorchEngine(trainable.objective, settings, rank=0, device=torch.device("cpu"))
        journal = Journal(tmp_path / out / "journal.jsonl")
        saver = Saver(tmp_path / out / "checkpoints", Keep(1, best="mlm"), journal, None)
        return Job(trainable, engine, Ranks(), tmp_path / out, journal, stop, saver)

    return make


def test_a_run_that_gets_no_better_ends_and_hands_on_its_best(job_of, tmp_path):
    job = job_of("whole")
    steps = fit(job)
    assert steps < 20
    best = checkpoint.best_of(tmp_path / "whole" / "checkpoints", "mlm")
    assert best.name == checkpoint.name_of(steps - 4), "two evaluations earlier"
    handed_on = best_weights(job)
    saved = checkpoint.read_state(checkpoint.Checkpoint(best, steps - 4, {})).tensors
    assert all(torch.equal(handed_on[name], saved[name]) for name in saved)
    now = job.engine.state().tensors
    assert any(not torch.equal(handed_on[name], now[name]) for name in saved)
    assert fit(job_of("whole")) == steps, "it knows that it had ended"

    asked = iter([False] * (steps - 1) + [True])
    with pytest.raises(Preempted):
        fit(job_of("cut", lambda: next(asked)))
    other = job_of("cut")
    assert fit(other) == steps
    again = best_weights(other)
    assert all(torch.equal(handed_on[name], again[name]) for name in handed_on)


def test_patience_needs_something_to_wait_for():
    with pytest.raises(ConfigError, match="patience needs keep_best"):
        build_from(TrainSettings, {"patience": 3})
