"""BERT-of-Theseus (Xu et al. 2020): replace the layers of a network while it works.

A module is a group of the predecessor's layers and the one successor layer that is to do their work. At each step
every module is replaced or not by one keyed draw, equal on all ranks and in all accumulation steps. Only successor
layers learn; the loss is that of the objective, whichever it is: a task's or one of pretraining.

Where this differs from the released code: what is frozen requires no gradient, so it has no part in the clipping
norm, and the predecessor's layers stay in evaluation mode, so their dropout is off, unless they are asked not to.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.compress.shallow import Splits, shallow_layers, shallow_network, stacks_of
from pipeline.compress.splits import Start, groups_of
from pipeline.models.transformer import BlockCache, Carry, Memory, Views, mixers_of, run_blocks
from pipeline.objectives.objective import Objective
from pipeline.runtime import rng_of

Mode = Literal["evaluation", "training"]


class ReplaceableModule(nn.Module):
    """A block that is either its frozen predecessors, one after the other, or their successor.

    In evaluation mode it is the successor. `mode` is that of the predecessors while the successor trains.
    """

    def __init__(
        self, predecessors: Sequence[nn.Module], successor: nn.Module, mode: Mode = "evaluation"
    ) -> None:
        super().__init__()
        self.predecessors = nn.ModuleList(predecessors)
        self.successor = successor
        self.mode = mode
        self.replaced = False

    def train(self, mode: bool = True) -> "ReplaceableModule":
        """Training mode for the successor, and for predecessors that were asked to."""
        super().train(mode)
        self.predecessors.train(mode and self.mode == "training")
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


class TheseusObjective(Objective):
    """`inner` on the network it keeps, whose layers it takes over, freezes and replaces by those of `splits`.

    `rate` is the probability that a module is replaced at a step. Besides the figures of `inner` it
    reports `modules_replaced`, the share of modules that were. A successor that is not used in a step has a
    gradient of zero, in every engine. Networks beside the one that is kept, such as the generator of
    replaced token detection, train as ever.
    """

    def __init__(
        self,
        inner: Objective,
        splits: Splits,
        *,
        rate: Callable[[int], float],
        seed: int,
        start: Start = "bottom",
        mode: Mode = "evaluation",
    ) -> None:
        super().__init__()
        network = inner.kept()
        successors = shallow_layers(network, splits, start)
        network.requires_grad_(requires_grad=False)
        for name, stack in stacks_of(network).items():
            layers = list(stack.layers)
            stack.layers = nn.ModuleList(
                ReplaceableModule([layers[n] for n in group], successor, mode)
                for group, successor in zip(groups_of(splits[name]), successors[name], strict=True)
            )
        self.inner = inner
        # The modules in the order they are run, an encoder's before a decoder's.
        self.replaceable = [m for m in network.modules() if isinstance(m, ReplaceableModule)]
        frozen = {id(part) for m in self.replaceable for part in m.predecessors.modules()}
        self.drawing = [m for m in mixers_of(inner) if id(m) not in frozen]
        self.rate = rate
        self.seed = seed

    @property
    def weights(self) -> Mapping[str, float]:
        """Those of the objective."""
        return self.inner.weights

    def at_step(self, step: int) -> None:
        """Draw which modules are replaced in `step`; predecessors draw nothing, what trains does."""
        for mixer in self.drawing:
            mixer.at_step(step)
        draws = rng_of(self.seed, "theseus", step).random(len(self.replaceable))
        for module, draw in zip(self.replaceable, draws, strict=True):
            module.replaced = bool(draw < self.rate(step))

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """As for the objective, and rows for `modules_replaced`."""
        return {**self.inner.counts(batch), "modules_replaced": _rows(batch)}

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The objective's sums, of the hybrid and with `modules_replaced`; in evaluation of the successor alone."""
        sums = self.inner(batch)
        if not self.training:
            return sums
        idle = [module for module in self.replaceable if not module.replaced]
        share = 1.0 - len(idle) / len(self.replaceable)
        term = next(iter(self.weights))
        replaced = torch.full_like(sums[term].detach(), share * _rows(batch))
        if idle:
            sums[term] = sums[term] + _nothing_of(idle)
        return {**sums, "modules_replaced": replaced}

    def figures(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """Those of the objective."""
        return self.inner.figures(statistics)

    def kept(self) -> Any:
        """The successor as an ordinary network of the same kind, sharing its tensors."""
        hybrid = self.inner.kept()
        successors: dict[str, list[nn.Module]] = {name: [] for name in stacks_of(hybrid)}
        for name, stack in stacks_of(hybrid).items():
            for module in stack.layers:
                assert isinstance(module, ReplaceableModule)
                successors[name].append(module.successor)
        return shallow_network(hybrid, successors)


def _rows(batch: Mapping[str, Any]) -> int:
    return len(next(iter(batch.values())))


def _nothing_of(idle: Sequence[ReplaceableModule]) -> Tensor:
    """Zero, with a gradient of zero for every parameter of the idle successors.

    Without it a step in which nothing is replaced has no gradient at all, and engines would
    differ in what the optimizer does with a parameter that has none.
    """
    sums = [p.sum() for module in idle for p in module.successor.parameters()]
    return torch.stack(sums).sum() * 0.0
