"""Small models of every kind with random weights, in float64, as the verbs are given them."""

import torch

from pipeline.config import build_from
from pipeline.models.artifact import NAMES
from pipeline.use import Model

SHAPE = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_heads": 2,
    "ffn_size": 24,
    "max_length": 40,
    "dropout": 0.0,
}
WORLDS = {  # kind of network, fields of its config, the objective it was trained with
    "mlm": ("masked_language_model", {}, "mlm"),
    "unilm": ("masked_language_model", {"token_types": 6}, "unilm"),
    "tta": ("language_autoencoder", {}, "lae"),
    "electric": ("replaced_token_detector", {}, "electric"),
    "rtd": ("replaced_token_detector", {}, "rtd"),
    "lm": ("language_model", {}, "lm"),
    "prefix": ("language_model", {"visibility": "prefix"}, "lm"),
    "pairs": ("language_model", {"visibility": "prefix"}, "text_to_text"),
    "t5": ("encoder_decoder", {"head_size": 8}, "denoising"),
    "classifier": ("sequence_classifier", {}, None),
    "words": ("token_classifier", {}, None),
}
LABELS = ["animal", "food", "plant"]


def model_of(name, vocabulary, heads=3, **noted):
    """A model whose probabilities are far from uniform; `noted` are facts of one fine-tuned on a task."""
    kind, fields, objective = WORLDS[name]
    config, build = NAMES[kind]
    facts = {"objective": {"type": objective}}
    more = ()
    if kind.endswith("_classifier"):
        facts, more = {"labels": LABELS, "max_length": 20, **noted}, (heads,)
    torch.manual_seed(5)
    network = build(build_from(config, SHAPE | fields), vocabulary.size, *more).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return Model(network, vocabulary, facts, name)
