"""A student and its teacher as whole jobs: ZeRO and two processes train as plain torch does."""

import pytest
import torch
from small_job import losses_of, write_job

from launch.local import run_job
from pipeline import files
from pipeline.data.shards import TokenRows
from pipeline.models.artifact import load_model, save_model
from pipeline.models.encoder import EncoderConfig
from pipeline.models.heads import MaskedLanguageModel

pytestmark = pytest.mark.slow
SHAPE = {"hidden_size": 32, "num_heads": 2, "ffn_size": 64, "max_length": 32, "dropout": 0.0}
ZERO_2 = {"type": "deepspeed", "zero_stage": 2, "bucket_elements": 200_000}
# Every weight is partitioned, those of the teacher too.
ZERO_3 = {
    "type": "deepspeed",
    "zero_stage": 3,
    "bucket_elements": 200_000,
    "native": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
}


@pytest.fixture(scope="module")
def teacher(token_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    vocabulary = TokenRows(token_folder, "train").vocabulary()
    torch.manual_seed(0)
    network = MaskedLanguageModel(
        EncoderConfig(num_layers=4, initial_std=0.3, **SHAPE), vocabulary.size
    )
    save_model(folder / "model", network, vocabulary, {})
    return folder


def job_of(out, tokens, teacher, stage, engine):
    job = write_job(out, tokens, engine=engine, schedule={"type": "linear"})
    description = files.read_json(job)
    train = description["stage"]["train"]
    given = {"tokens": "tokens", "objective": {"type": "mlm"}, "train": train}
    description["stage"] = {**given, **stage}
    description["inputs"]["large"] = str(teacher)
    files.write_json(job, description)
    return job


STAGES = {
    "tinybert": {
        "kind": "distill_pretrain",
        "teacher": "large",
        "method": {"type": "tinybert"},
        "model": {"type": "encoder", "num_layers": 2, **SHAPE, "hidden_size": 16, "ffn_size": 32},
        "steps": 4,
    },
    "minilm": {
        "kind": "distill_pretrain",
        "teacher": "large",
        "method": {"type": "minilm"},
        "num_layers": 2,
        "steps": 4,
    },
    "theseus": {
        "kind": "theseus_pretrain",
        "model": "large",
        "split": [1, 3],
        "schedule": {"type": "linear", "replacing_epochs": 0.02},
        "successor_epochs": 0.01,
    },
}


@pytest.mark.parametrize(
    ("name", "engine"), [("tinybert", ZERO_2), ("minilm", ZERO_3), ("theseus", ZERO_2)]
)
def test_two_processes_under_zero_equal_plain_torch(name, engine, token_folder, teacher, tmp_path):
    journals = []
    for folder, used, processes in (("plain", {"type": "torch"}, 1), ("zero", engine, 2)):
        out = tmp_path / folder
        run_job(job_of(out, token_folder, teacher, STAGES[name], used), processes=processes)
        journals.append(losses_of(out))
        assert load_model(out / "model")[0].config.num_layers == 2
    plain, partitioned = journals
    assert plain.keys() == partitioned.keys()
    assert len(plain) >= 4
    for step, values in plain.items():
        for name, value in values.items():
            assert partitioned[step][name] == pytest.approx(value, rel=1e-4, abs=2e-3), (step, name)
