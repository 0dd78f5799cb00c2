"""What a family of models in transformers is: names of weights, and a config in both directions.

A family is data and two functions, which undo each other: `settings` writes a `config.json`, `shape` reads one. What
the way there and back changes is what the family has no place for.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config import DataError, as_dict
from pipeline.models.artifact import Network
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoderConfig
from pipeline.models.mixers import MixerConfig
from pipeline.models.mixers.softmax import SoftmaxConfig
from pipeline.models.shape import Shape
from pipeline.models.transformer import Core
from pipeline.tokenizer import Vocabulary

FamilyName = Literal["bert", "electra", "modernbert", "roberta", "t5"]
Settings = Mapping[str, Any]
Names = tuple[tuple[str, str], ...]  # patterns of our names, and what replaces them
NO_WEIGHT = r"position_ids$"  # numbers 0, 1, 2, ... that older versions saved
# Fields that only say how training starts, and those that `meaning_of` says layer by layer.
NOT_MEANT = (
    *("initial_std", "rescaled", "mixer", "mixers", "decoder_mixer", "decoder_mixers"),
    *("window", "global_every", "rotary_base", "local_rotary_base"),
)


def no_rows(_settings: Settings) -> int:
    """The table of positions begins with position 0."""
    return 0


@dataclass(frozen=True)
class Family:
    """One `model_type` of transformers.

    `classes` are its architectures and what each is here; a network is exported as the first one of
    its class. `read_as` names architectures that are read as another. A weight whose new name has
    `<n/m>` in it is part n of m, one below the other, of that weight. `rows_before` says how many
    rows of the table of positions come before that of position 0. Weights that match `unused` are
    left behind. `separators` stand between two texts.
    """

    model_type: FamilyName
    names: Callable[[Any], Names]
    classes: Mapping[str, type[Network]]
    settings: Callable[[Any, Vocabulary], dict[str, Any]]
    shape: Callable[[Settings], Shape]
    read_as: Mapping[str, str]
    unused: tuple[str, ...] = ()
    rows_before: Callable[[Settings], int] = no_rows
    separators: int = 1

    def architecture_of(self, network: Network) -> str:
        """What `network` is exported as; DataError when the family has nothing like it."""
        for name, kind in self.classes.items():
            if kind is type(network):
                return name
        raise DataError(
            f"{self.model_type} in transformers has no class for a {type(network).__name__}; "
            f"it has {', '.join(self.classes)}"
        )


def is_unused(name: str, family: "Family") -> bool:
    """Whether this weight of transformers may be left behind, or be missing."""
    return any(re.search(pattern, name) for pattern in (*family.unused, NO_WEIGHT))


def is_bare(architecture: str) -> bool:
    """Whether this class of transformers has no head."""
    return architecture.endswith("Model")


def attention_dropout(shape: Shape) -> float:
    """The dropout of attention weights in the first layer."""
    return _own_dropout(shape.core().layers[0].mixer, shape)


def mixer_with(own: float, general: float) -> SoftmaxConfig:
    """Softmax attention with dropout of its `own`, which is only said where it differs."""
    return SoftmaxConfig(dropout=None if own == general else own)


def expect(settings: Settings, **values: Any) -> None:
    """DataError unless `settings` have these values, where they say anything."""
    for key, value in values.items():
        found = settings.get(key, value)
        if found != value:
            raise DataError(f"{key} is {found!r}; only models with {value!r} can be imported")


def check_place(shape: Shape, family: Family, settings: Settings) -> None:
    """DataError when a model read from `settings` would not be that of `shape`."""
    wanted, found = meaning_of(shape), meaning_of(family.shape(settings))
    for key in wanted:
        if wanted[key] != found.get(key):
            raise DataError(
                f"{key}: {wanted[key]!r} has no place in the classes of "
                f"transformers for {family.model_type}; only networks in the shape of a BERT, "
                "ELECTRA, RoBERTa, ModernBERT or T5, with softmax attention, can be exported"
            )


def meaning_of(shape: Shape) -> dict[str, Any]:
    """The fields of `shape` as far as they change what a network computes, defaults filled in."""
    found = {key: value for key, value in as_dict(shape).items() if key not in NOT_MEANT}
    found |= _stack_of("", shape.core(), shape)
    found["head_size"] = shape.heads().head_size
    if shape.positions != "relative":
        found |= {"num_buckets": None, "max_distance": None}
    if isinstance(shape, EncoderDecoderConfig):
        found |= _stack_of("decoder_", shape.decoder_core(), shape)
        found["cross_mixer"] = _mixer_of(shape.cross_mixer, shape)
        if shape.positions == "relative":
            found["max_length"] = None  # nothing is as long as that
    if isinstance(shape, EncoderConfig):
        found["embedding_size"] = shape.embedding_size or shape.hidden_size
    return found


def _stack_of(which: str, core: Core, shape: Shape) -> dict[str, Any]:
    """What the layers of a stack have of their own."""
    return {
        f"num_{which}layers": len(core.layers),
        f"{which}mixer": [_mixer_of(layer.mixer, shape) for layer in core.layers],
        f"{which}window": [layer.window for layer in core.layers],
        f"{which}rotary_base": [layer.rotary and layer.rotary.base for layer in core.layers],
    }


def _mixer_of(mixer: MixerConfig, shape: Shape) -> dict[str, Any]:
    """A mixer with its defaults filled in."""
    found: dict[str, Any] = as_dict(mixer)
    if "dropout" in found:
        found["dropout"] = _own_dropout(mixer, shape)
    if "num_kv_heads" in found:
        found["num_kv_heads"] = found["num_kv_heads"] or shape.num_heads
    return found


def _own_dropout(mixer: MixerConfig, shape: Shape) -> float:
    own: float | None = getattr(mixer, "dropout", None)
    return shape.dropout if own is None else own
