"""Weights under the names of transformers, and back. They are renamed, stacked and cut, never recomputed.

Tables with a row for each id are as long as a model here needs them. An id that was not there before gets the mean
of all rows, and so can take no more than an average share of any prediction (Hewitt 2021).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config import DataError
from pipeline.models.artifact import Network, ties_of
from pipeline.models.hub.family import Family, Names, Settings, is_unused

Weights = Mapping[str, Tensor]
PART = re.compile(r"<(\d)/(\d)>")
POSITIONS = "encoder.embeddings.position.weight"
ROWS_OF_IDS = ("encoder.embeddings.word.weight", "head.decoder.bias", "words.weight", "head.weight")


class Place(NamedTuple):
    """Where a weight is in transformers: `number` of `parts`, one below the other, of weight `name`."""

    name: str
    number: int
    parts: int


def place_of(name: str, names: Names) -> Place:
    """The place of our weight `name`."""
    for pattern, replacement in names:
        renamed, found = re.subn(pattern, replacement, name)
        if found:
            break
    assert found, f"no name for {name}"
    part = PART.search(renamed)
    if part is None:
        return Place(renamed, 0, 1)
    return Place(PART.sub("", renamed), int(part[1]), int(part[2]))


def exported_weights(network: Network, family: Family, settings: Settings) -> dict[str, Tensor]:
    """The network's weights, float32, under the names of transformers; tied ones once."""
    found: dict[str, dict[int, Tensor]] = {}
    for name, tensor in _own_weights(network).items():
        place = place_of(name, family.names(network.config))
        weight = tensor.detach().float().cpu()
        if name == POSITIONS:
            before = family.rows_before(settings)
            weight = torch.cat([weight.new_zeros(before, weight.shape[1]), weight])
        found.setdefault(place.name, {})[place.number] = weight
    return {
        name: torch.cat([parts[number] for number in sorted(parts)]).contiguous()
        for name, parts in found.items()
    }


@torch.no_grad()
def fill(network: Network, theirs: Weights, family: Family, settings: Settings) -> list[str]:
    """Give `network` the weights of transformers; returns which of ours are not among them.

    These keep their initial values, biases become zero. DataError when one of theirs has no place
    here and is no copy of one that has.
    """
    missing, used = [], set()
    for name, tensor in _own_weights(network).items():
        place = place_of(name, family.names(network.config))
        if place.name not in theirs:
            missing.append(name)
            if name.endswith(".bias"):
                tensor.zero_()
            continue
        used.add(place.name)
        weight = theirs[place.name].to(torch.float32)
        if place.parts > 1:
            weight = weight.chunk(place.parts)[place.number]
        if name == POSITIONS:
            weight = weight[family.rows_before(settings) :]
        if name in ROWS_OF_IDS:
            weight = fitted(weight, len(tensor))
        if weight.shape != tensor.shape:
            raise DataError(
                f"{place.name} has shape {tuple(weight.shape)}, {tuple(tensor.shape)} is needed"
            )
        tensor.copy_(weight)
    _check_left(theirs, used, family)
    return missing


def fitted(weight: Tensor, rows: int) -> Tensor:
    """`weight` [ids, ...] with so many `rows`: cut, or grown by rows that are the mean of its own."""
    if len(weight) >= rows:
        return weight[:rows]
    mean = weight.mean(dim=0, keepdim=True)
    return torch.cat([weight, mean.expand(rows - len(weight), *weight.shape[1:])])


def _own_weights(network: Network) -> dict[str, Tensor]:
    """Every weight of `network` once."""
    repeated = {other for _, other in ties_of(network)}
    return {name: part for name, part in network.state_dict().items() if name not in repeated}


def _check_left(theirs: Weights, used: set[str], family: Family) -> None:
    """DataError for a weight that was not used, is no copy of one that was, and is not known to be of no use."""
    known = {theirs[name].data_ptr() for name in used}
    left = [
        name
        for name, tensor in theirs.items()
        if name not in used and tensor.data_ptr() not in known and not is_unused(name, family)
    ]
    if left:
        raise DataError(f"{len(left)} weights have no place here, first {left[0]}")
