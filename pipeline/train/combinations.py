"""Which objective trains which network, and why not the others: the table behind `theseum matrix`."""

import typing
from typing import Any

from pipeline.models import ModelConfig
from pipeline.models.artifact import Network
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.heads import MaskedLanguageModel
from pipeline.objectives import ObjectiveConfig

NETWORKS: dict[type, type[MaskedLanguageModel | EncoderDecoder]] = {
    EncoderConfig: MaskedLanguageModel,
    EncoderDecoderConfig: EncoderDecoder,
}


def language_network(model: Any, vocab_size: int) -> Network:
    """The network that a model config describes, with its language head."""
    return NETWORKS[type(model)](model, vocab_size)


def variants(union: Any) -> dict[str, Any]:
    """Config classes of a union (or of a single class) by their `type`."""
    inner = typing.get_args(union)[0] if hasattr(union, "__metadata__") else union
    members = typing.get_args(inner) or (inner,)
    return {typing.get_args(typing.get_type_hints(m)["type"])[0]: m for m in members}


def why_not(objective: str, model: str) -> str | None:
    """Why this pair cannot work, with what would; None if it can."""
    objectives = variants(ObjectiveConfig)
    needs = objectives[objective].NETWORK
    if model == needs:
        return None
    others = [name for name, config in objectives.items() if config.NETWORK == model]
    instead = f", or objective.type {' or '.join(others)}" if others else ""
    return (
        f"objective {objective} trains a model of type {needs}, not {model}; "
        f"allowed: model.type {needs}{instead}"
    )


def table() -> list[tuple[str, str, str, str]]:
    """Rows (objective, model, mixer, reason why not or "") of every combination."""
    return [
        (objective, model, mixer, why_not(objective, model) or "")
        for objective in variants(ObjectiveConfig)
        for model, model_class in variants(ModelConfig).items()
        for mixer in variants(typing.get_type_hints(model_class, include_extras=True)["mixer"])
    ]
