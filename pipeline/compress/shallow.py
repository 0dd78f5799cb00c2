"""A shallower network beside a deep one: its shape, its layers as copies, everything else in common.

Works on any network that is made of stacks, by the stacks' names: "encoder" or "decoder", "" where the network
is a stack itself.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pipeline.compress.splits import Split, Start, picks_of
from pipeline.config import ConfigError
from pipeline.models.encoder_decoder import EncoderDecoderConfig
from pipeline.models.heads import SequenceClassifier
from pipeline.models.transformer import Stack

Splits = Mapping[str, Split]  # of every stack, by its name


def stacks_of(network: nn.Module) -> dict[str, Stack]:
    """The stacks inside `network` by name, in the order in which they are run."""
    return {name: part for name, part in network.named_modules() if isinstance(part, Stack)}


def shallow_shape(shape: Any, depths: Sequence[int]) -> Any:
    """The config `shape` with `depths` layers: one number, or the encoder's and the decoder's.

    Layer n has the mixer that layer n has in `shape`.
    """
    mixers = shape.mixers and tuple(layer.mixer for layer in shape.core().layers[: depths[0]])
    changes: dict[str, Any] = {"num_layers": depths[0], "mixers": mixers}
    if isinstance(shape, EncoderDecoderConfig):
        changes["num_decoder_layers"] = depths[1]
        if shape.decoder_mixers or (shape.mixers and not shape.decoder_mixer):
            layers = shape.decoder_core().layers[: depths[1]]
            changes["decoder_mixers"] = tuple(layer.mixer for layer in layers)
    return dataclasses.replace(shape, **changes)


def depths_of(shape: Any) -> dict[str, int]:
    """How many layers the stacks of a config's network have, by the stacks' names."""
    if isinstance(shape, EncoderDecoderConfig):
        decoder = shape.num_decoder_layers or shape.num_layers
        return {"encoder": shape.num_layers, "decoder": decoder}
    return {"encoder" if shape.type == "encoder" else "": shape.num_layers}


def shallow_layers(network: Any, splits: Splits, start: Start) -> dict[str, list[nn.Module]]:
    """New layers for each stack of `network`, as many as its split has groups, with weights copied by `start`.

    They require gradients. ConfigError where a copy would not fit the place it is for.
    """
    made = _empty(network, [len(split) for split in splits.values()])
    deep, shallow = stacks_of(network), stacks_of(made)
    for name, split in splits.items():
        for number, pick in enumerate(picks_of(split, start)):
            own, other = shallow[name].layers[number], deep[name].layers[pick]
            weights = {key: value.clone() for key, value in other.state_dict().items()}
            same = shallow[name].core.layers[number].mixer == deep[name].core.layers[pick].mixer
            if not same or weights.keys() != own.state_dict().keys():
                words = (
                    f"start: got {start!r}; layer {number} of the smaller network is another kind of "
                    f"layer than layer {pick}, so it cannot begin as its copy; allowed: another start"
                )
                raise ConfigError([words])
            own.load_state_dict(weights, assign=True)
    return {name: list(shallow[name].layers) for name in splits}


def shallow_network(network: Any, layers: Mapping[str, Sequence[nn.Module]]) -> Any:
    """An ordinary network of `network`'s kind made of `layers` and, sharing tensors, of its other parts."""
    made = _empty(network, [len(part) for part in layers.values()])
    _adopt(made, network)
    for name, stack in stacks_of(made).items():
        stack.layers = nn.ModuleList(layers[name])
    assert not any(parameter.is_meta for parameter in made.parameters())
    return made.train(network.training)


def truncated(network: Any, splits: Splits, start: Start) -> Any:
    """A shallower network with weights of its own, all of them copies of `network`'s."""
    made = shallow_network(network, shallow_layers(network, splits, start))
    copied = _empty(network, [len(split) for split in splits.values()])
    copied.load_state_dict({n: v.clone() for n, v in made.state_dict().items()}, assign=True)
    _tie(copied, made)
    return copied.train(network.training)


def _empty(like: Any, depths: Sequence[int]) -> Any:
    """A network shaped as `like`, with `depths` layers in its stacks, without storage."""
    shape = shallow_shape(like.config, depths)
    labels = (like.num_labels,) if isinstance(like, SequenceClassifier) else ()
    with torch.device("meta"):
        return type(like)(shape, like.vocab_size, *labels)


def _adopt(own: nn.Module, other: nn.Module) -> None:
    """Give `own` the parts of `other` itself, layers excepted."""
    for name, child in other.named_children():
        if isinstance(child, Stack):
            _adopt(own.get_submodule(name), child)
        elif not (isinstance(other, Stack) and name == "layers"):
            setattr(own, name, child)


def _tie(own: nn.Module, like: nn.Module) -> None:
    """Make one tensor of the parameters that are one in `like`."""
    first: dict[int, str] = {}
    for name, parameter in like.named_parameters(remove_duplicate=False):
        kept = first.setdefault(id(parameter), name)
        if kept != name:
            place, _, attribute = name.rpartition(".")
            setattr(own.get_submodule(place), attribute, own.get_parameter(kept))
