"""BERT-of-Theseus (Xu et al. 2020): replace the layers of a classifier while it works.

A module is a group of the predecessor's layers and the one successor layer that is to do their
work. At each step every module is replaced or not by one keyed draw, equal on all ranks and in all
accumulation steps. Only successor layers learn; the task's loss is the only one.

Where this differs from the released code: what is frozen requires no gradient, so it has no part in
the clipping norm, and the predecessor's layers stay in evaluation mode, so their dropout is off.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import ConfigError
from pipeline.models.heads import SequenceClassifier
from pipeline.models.transformer import BlockCache, Carry, Memory, Views, run_blocks
from pipeline.objectives.classification import Classification
from pipeline.objectives.objective import tell_step
from pipeline.runtime import rng_of


class ReplaceableModule(nn.Module):
    """A block that is either its frozen predecessors, one after the other, or their successor.

    In evaluation mode it is the successor.
    """

    def __init__(self, predecessors: Sequence[nn.Module], successor: nn.Module) -> None:
        super().__init__()
        self.predecessors = nn.ModuleList(predecessors)
        self.successor = successor
        self.replaced = False

    def train(self, mode: bool = True) -> "ReplaceableModule":
        """Training mode for the successor only."""
        super().train(mode)
        self.predecessors.eval()
        return self

    def forward(
        self,
        hidden: Tensor,
        views: Views,
        carry: Carry | None = None,
        memory: Memory | None = None,
        cache: BlockCache | None = None,
    ) -> tuple[Tensor, Carry | None]:
        """As `pipeline.models.transformer.Block`: hidden [B, T, D] to [B, T, D], and the carry."""
        if self.replaced or not self.training:
            return self.successor(hidden, views, carry, memory, cache)
        assert cache is None, "predecessors do not generate"
        return run_blocks(list(self.predecessors), hidden, carry, views, memory)


class TheseusObjective(Classification):
    """Trains `num_layers` successor layers inside `predecessor`, which it takes over and freezes.

    `rate` is the probability that a module is replaced at a step. Besides the task's figures it
    reports `replaced`, the share of modules that were. A successor that is not used in a step has a
    gradient of zero, in every engine.
    """

    def __init__(
        self,
        predecessor: SequenceClassifier,
        *,
        num_layers: int,
        rate: Callable[[int], float],
        seed: int,
    ) -> None:
        layers = list(predecessor.encoder.layers)
        groups = _groups_of(layers, num_layers)
        successors = copy.deepcopy(layers[:num_layers])  # the paper's start: the first layers
        predecessor.requires_grad_(requires_grad=False)
        predecessor.encoder.layers = nn.ModuleList(
            ReplaceableModule(group, successor)
            for group, successor in zip(groups, successors, strict=True)
        )
        super().__init__(predecessor)
        self.network: SequenceClassifier = predecessor
        self.rate = rate
        self.seed = seed

    @property
    def replaceable(self) -> list[ReplaceableModule]:
        """The modules in the order they are run."""
        modules = [m for m in self.network.encoder.layers if isinstance(m, ReplaceableModule)]
        assert len(modules) == len(self.network.encoder.layers)
        return modules

    def at_step(self, step: int) -> None:
        """Draw which modules are replaced in `step`, and what successors draw for themselves."""
        for module in self.replaceable:
            tell_step(module.successor, step)
        draws = rng_of(self.seed, "theseus", step).random(len(self.replaceable))
        for module, draw in zip(self.replaceable, draws, strict=True):
            module.replaced = bool(draw < self.rate(step))

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """As for the task, and rows for `replaced`."""
        return {**super().counts(batch), "replaced": len(batch["label"])}

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The task's sums, of the hybrid and with `replaced`; in evaluation of the successor alone."""
        sums = super().forward(batch)
        if not self.training:
            return sums
        idle = [module for module in self.replaceable if not module.replaced]
        share = 1.0 - len(idle) / len(self.replaceable)
        sums["replaced"] = torch.full_like(sums["accuracy"], share * len(batch["label"]))
        if idle:
            sums["cross_entropy"] = sums["cross_entropy"] + _nothing_of(idle)
        return sums

    def kept(self) -> SequenceClassifier:
        """The successor as an ordinary classifier of `num_layers` layers, sharing its tensors."""
        hybrid = self.network
        successor = _empty_classifier(hybrid, len(self.replaceable))
        successor.encoder.embeddings = hybrid.encoder.embeddings
        successor.encoder.layers = nn.ModuleList([m.successor for m in self.replaceable])
        successor.pooler = hybrid.pooler
        successor.classifier = hybrid.classifier
        assert not any(parameter.is_meta for parameter in successor.parameters())
        return successor.train(hybrid.training)


def _groups_of(layers: list[nn.Module], num_groups: int) -> list[list[nn.Module]]:
    """`layers` in `num_groups` consecutive groups of equal size; ConfigError if that cannot be."""
    if words := why_uneven(num_groups, len(layers)):
        raise ConfigError([f"num_layers: {words}"])
    size = len(layers) // num_groups
    return [layers[start : start + size] for start in range(0, len(layers), size)]


def why_uneven(num_groups: int, num_layers: int) -> str:
    """Why `num_layers` cannot be cut into `num_groups` equal groups of two or more, "" if they can."""
    if num_groups < num_layers and num_layers % num_groups == 0:
        return ""
    fitting = [n for n in range(1, num_layers) if num_layers % n == 0]
    allowed = " or ".join(map(str, fitting)) or "a deeper model"
    return f"{num_groups}: does not share out the {num_layers} layers evenly; use {allowed}"


def _empty_classifier(like: SequenceClassifier, num_layers: int) -> SequenceClassifier:
    """A classifier of `num_layers` layers, otherwise shaped as `like`, without weights."""
    mixers = like.config.mixers and tuple(
        layer.mixer for layer in like.config.core().layers[:num_layers]
    )
    shape = dataclasses.replace(like.config, num_layers=num_layers, mixers=mixers)
    with torch.device("meta"):
        return SequenceClassifier(shape, like.vocab_size, like.num_labels)


def _nothing_of(idle: Sequence[ReplaceableModule]) -> Tensor:
    """Zero, with a gradient of zero for every parameter of the idle successors.

    Without it a step in which nothing is replaced has no gradient at all, and engines would
    differ in what the optimizer does with a parameter that has none.
    """
    sums = [p.sum() for module in idle for p in module.successor.parameters()]
    return torch.stack(sums).sum() * 0.0
