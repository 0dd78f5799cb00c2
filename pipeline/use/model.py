"""A trained model as it is used: network, vocabulary and what was noted about it, read from a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline import files
from pipeline.config import ConfigError, DataError
from pipeline.models.artifact import CONFIG_FILE, TOKENIZER_FOLDER, Network, load_model
from pipeline.tokenizer import Vocabulary, load_vocabulary

MODEL_FOLDER = "model"  # where a stage's folder holds what it trained


@dataclass(frozen=True)
class Model:
    """What the verbs work with; `network` is in evaluation mode, on the device that computes."""

    network: Network
    vocabulary: Vocabulary
    facts: Mapping[str, Any]
    name: str = "the model"

    @property
    def objective(self) -> str | None:
        """The type of the objective it was trained with, None if that is not known."""
        trained = self.facts.get("objective") or {}
        return trained.get("type")


def load(folder: Path | str, device: str = "auto") -> Model:
    """The model in `folder`, a stage's folder in a store or a model folder itself.

    `device` is what torch calls it; auto: the first GPU, or the CPU where there is none. Raises
    DataError when the folder holds no model of Theseum, ConfigError for a device that is not there.
    """
    place = _model_folder(Path(folder))
    network, facts = load_model(place)
    vocabulary = load_vocabulary(place / TOKENIZER_FOLDER)
    return Model(network.to(_device(device)), vocabulary, facts, str(folder))


def _model_folder(folder: Path) -> Path:
    if (folder / MODEL_FOLDER / CONFIG_FILE).exists():
        return folder / MODEL_FOLDER
    described = folder / CONFIG_FILE
    if described.exists() and "model_type" in files.read_json(described):
        raise DataError(
            f"{folder}: is a Hugging Face folder; make a model of it by a stage "
            "`{kind: import, path: FOLDER}` and name that stage's folder"
        )
    if not described.exists():
        raise DataError(
            f"{folder}: holds no model; name the folder of a stage that trains or imports one "
            "(`theseum ls` lists them), or its model folder"
        )
    return folder


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            [f"device: got {name!r}; allowed: auto, cpu, cuda, cuda:1, ..."]
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError([f"device: got {name!r}, but torch finds no GPU here; use cpu"])
    return device
