"""An objective of pretraining around a network that has been trained before, and checks that the two fit."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config import ConfigError, DataError
from pipeline.data.shards import TokenRows
from pipeline.objectives.objective import Objective
from pipeline.runtime import key_of
from pipeline.tokenizer import Vocabulary, load_vocabulary
from pipeline.train.combinations import positions_needed, why_not


def around(network: Any, settings: Any, *, seed: int) -> Objective:
    """The objective of the config `settings` whose kept network has the weights of `network`.

    What is beside it, such as a generator, starts from random weights, keyed by `seed`.
    """
    torch.manual_seed(key_of(seed, "init") % (1 << 63))
    objective: Objective = settings.objective(network.config, network.vocab_size)
    kept: nn.Module = objective.kept()
    if type(kept) is not type(network):
        words = (
            f"objective: got {settings.type}, which trains a {type(kept).__name__}; "
            f"the model is a {type(network).__name__}"
        )
        raise ConfigError([words])
    kept.load_state_dict(network.state_dict())
    return objective


def why_not_trained(settings: Any, shape: Any, row_length: int | None) -> str:
    """Why the objective `settings` cannot train a network of this shape on such rows, "" if it can."""
    if words := why_not(settings, shape):
        return words
    if row_length is None or shape.max_length is None:
        return ""
    needed = positions_needed(settings, shape.type, row_length)
    if needed <= shape.max_length:
        return ""
    return f"rows of {row_length} tokens make sequences of {needed}, the model has {shape.max_length} positions"


def check_rows(rows: TokenRows, model: Path) -> Vocabulary:
    """The vocabulary of the model in the folder `model`; DataError if the rows have another one."""
    vocabulary = load_vocabulary(model / "model" / "tokenizer")
    if rows.vocabulary().digest != vocabulary.digest:
        raise DataError(f"{rows.folder}: made with another vocabulary than the model of {model}")
    return vocabulary
