"""The import stage: a Hugging Face folder becomes a model that other stages start from."""

import pytest
import torch
from hub_worlds import saved
from small_world import FakeWork, finetune_of, train, write_task

from data_prep.vocab_import import VocabImport
from pipeline import files
from pipeline.config import DataError, build_from
from pipeline.models.artifact import load_model
from pipeline.models.hub.folder import import_folder
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.export import Export
from pipeline.stages.model_import import Import
from pipeline.tokenizer import load_vocabulary


def imported(name, folder):
    stage = Import(path=saved(name, folder / "theirs", num_hidden_layers=2))
    work = FakeWork(folder / "pretrain", {})
    return stage, work, stage.run(work)


@pytest.mark.parametrize("name", ["BertModel", "ElectraForPreTraining", "ModernBertForMaskedLM"])
def test_a_classifier_is_trained_from_an_imported_encoder(name, tmp_path):
    stage, work, counts = imported(name, tmp_path)
    assert counts["max_abs_difference"] <= 1e-5
    assert counts["texts_with_equal_ids"] == counts["texts"] == 9
    assert counts["new_head"] == (name == "BertModel")
    assert files.read_json(work.out / "verification.json") == counts
    network, facts = load_model(work.out / "model")
    assert facts["imported"]["architecture"] == name
    assert network.config == stage.shape({})
    assert load_vocabulary(work.out / "model" / "tokenizer").size == counts["vocabulary"]
    exported = Export(model="pretrain").run(FakeWork(tmp_path / "out", {"pretrain": work.out}))
    assert exported["max_abs_difference"] <= 1e-5
    assert exported["texts_with_equal_ids"] == 9
    write_task(tmp_path / "task")
    stage_after = finetune_of()
    assert not list(stage_after.conflicts({"pretrain": stage, "finetune": stage_after}, 1))
    trainable = stage_after.trainable({"pretrain": work.out, "task": tmp_path / "task"})
    word = trainable.objective.network.encoder.embeddings.word.weight
    assert torch.equal(word, network.encoder.embeddings.word.weight)
    losses = train(trainable, 30)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_what_is_no_encoder_is_refused_before_anything_runs(tmp_path):
    folder = saved("T5ForConditionalGeneration", tmp_path / "t5")
    after = finetune_of()
    (conflict,) = after.conflicts({"pretrain": Import(path=folder), "finetune": after}, 1)
    assert conflict[0] == ("model",)
    folder = saved("BertForSequenceClassification", tmp_path / "bert")
    with pytest.raises(DataError, match="holds a classifier; only language models"):
        Import(path=folder).run(FakeWork(tmp_path / "out", {}))


def test_an_imported_model_has_no_training_to_be_judged(tmp_path):
    values = {"classifiers": ["finetune"], "language_models": ["bert"], "task": "t", "tokens": "k"}
    stage = build_from(Evaluate, {"kind": "evaluate", **values}, "test")
    ((keys, words),) = stage.conflicts({"bert": Import(path=tmp_path)}, 1)
    assert keys == ("language_models",)
    assert "'bert' was not trained here" in words


@pytest.mark.parametrize("name", ["BertModel", "RobertaModel", "T5ForConditionalGeneration"])
def test_its_vocabulary_is_that_of_the_vocab_import_stage(name, tmp_path):
    folder = saved(name, tmp_path)
    other = VocabImport(path=folder / "tokenizer.json", num_sentinels=20).read()
    assert import_folder(folder, 20).vocabulary.digest == other.digest
