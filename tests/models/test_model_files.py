"""The model files in `configs/models` are what their first lines say."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from pipeline.config import build, config, read_document
from pipeline.models import ModelConfig
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.heads import MaskedLanguageModel

FOLDER = Path(__file__).parents[2] / "configs" / "models"
FILES = sorted(FOLDER.glob("*.yaml"))


@config
class Holder:
    model: ModelConfig


def test_there_are_model_files():
    assert {"bert-base", "bert-tiny", "t5-small", "t5-v1.1-small"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_model_file_has_the_parameters_it_claims(path, tmp_path):
    run_file = tmp_path / "run.yaml"
    run_file.write_text(f"model: {{extends: {path}}}\n")
    shape = build(Holder, read_document(run_file)).model
    with torch.device("meta"):
        if isinstance(shape, EncoderDecoderConfig):
            network = EncoderDecoder(shape, 32100)
        else:
            network = MaskedLanguageModel(shape, 32100)
    claimed = re.search(r"Parameters: ([\d,]+) with a vocabulary of 32100", path.read_text())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert int(claimed[1].replace(",", "")) == parameters
    assert f"extends: ../models/{path.name}" in path.read_text()
    assert dataclasses.replace(shape, num_layers=1).num_layers == 1
