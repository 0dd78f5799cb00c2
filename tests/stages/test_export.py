"""The export stage on model folders as training stages write them."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers

from pipeline import files
from pipeline.config import DataError
from pipeline.models.artifact import save_model
from pipeline.models.encoder import EncoderConfig
from pipeline.models.heads import MaskedLanguageModel, SequenceClassifier
from pipeline.stages.export import Export

SHAPE = EncoderConfig(num_layers=2, hidden_size=32, num_heads=2, ffn_size=64, max_length=48)


@dataclasses.dataclass
class ExportWork:
    """As much of `Work` as this stage uses."""

    out: Path
    inputs: dict[str, Path]


def exported(network, vocabulary, folder, facts):
    save_model(folder / "trained" / "model", network, vocabulary, facts)
    work = ExportWork(folder / "out", {"encoder": folder / "trained"})
    return work, Export(model="encoder").run(work)


def test_an_export_loads_and_agrees(vocabulary, tmp_path):
    network = SequenceClassifier(SHAPE, vocabulary.size, 2).eval()
    work, counts = exported(network, vocabulary, tmp_path, {"labels": ["no", "yes"]})
    assert counts["architecture"] == "BertForSequenceClassification"
    assert counts["max_abs_difference"] <= 1e-5
    assert counts["texts_with_equal_ids"] == counts["texts"] == 9
    assert files.read_json(work.out / "verification.json") == counts
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        work.out / "huggingface"
    )
    assert model.config.id2label == {0: "no", 1: "yes"}
    again = Export(model="encoder").run(work)
    assert again == counts


def test_texts_of_the_model_are_the_ones_compared(vocabulary, tmp_path):
    network = MaskedLanguageModel(SHAPE, vocabulary.size)
    _, counts = exported(network, vocabulary, tmp_path, {"texts": ["one text", "and another"]})
    assert counts["texts"] == 2


def test_an_export_that_disagrees_is_an_error(vocabulary, tmp_path):
    network = MaskedLanguageModel(SHAPE, vocabulary.size)
    with torch.no_grad():  # logits so large that float32 rounding alone is above what is allowed
        network.head.norm.weight.mul_(1e5)
    with pytest.raises(DataError, match="logits differ from the network's by"):
        exported(network, vocabulary, tmp_path, {})
