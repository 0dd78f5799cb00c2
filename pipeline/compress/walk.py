"""What a pass through a network leaves behind: states of its layers, and what their attention is made of.

The idea: hooks that are there for one pass only, so nobody else pays for them. They come after those of an engine
that were there before, so what they note is what the next layer reads, gathered weights and all.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.compress.shallow import stacks_of
from pipeline.models.attention import View
from pipeline.models.mixers.mixer import Mixer
from pipeline.models.mixers.residual import FactorChain, ResidualMixer, ScoreChain

PROJECTIONS = ("query", "key", "value")


@dataclass
class StackWalk:
    """One pass through one stack; lists have an entry for each layer.

    `embedded` [B, T, D] is what the first layer read, `states` [B, T, D] what each gave. `projected`
    has the queries, keys and values [B, T, heads * head_size] of mixers that have such layers.
    """

    embedded: Tensor | None = None
    states: list[Tensor] = field(default_factory=list)
    projected: dict[str, list[Tensor]] = field(
        default_factory=lambda: {name: [] for name in PROJECTIONS}
    )
    mixers: list[Any] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    carried: list[Any] = field(default_factory=list)

    def real(self) -> Tensor:
        """Which places are tokens and not padding, bool, broadcast to [B, T]."""
        segments = self.views[0].visibility.query_segments
        if segments is None:
            return torch.ones_like(self.states[0][..., 0], dtype=torch.bool)
        return segments > 0

    def mixed(self, layer: int) -> tuple[Any, View]:
        """The mixer of a layer, counted from 0 or, negative, from the top; and what it saw."""
        return self.mixers[layer], self.views[layer]

    def scores(self, layer: int) -> Tensor:
        """Scores of attention before the softmax, [B, heads, T, T], float32 at least; unmasked.

        With position bias and rotary positions; of residual attention the sums it uses.
        """
        mixer, view = self.mixed(layer)
        carried = self.carried[layer]
        match carried:
            case ScoreChain():
                scores = carried.scores
            case FactorChain():
                scores = _wide(carried.query) * mixer.heads.scale @ _wide(carried.key).mT
            case _:
                scores = self._own_scores(layer)
        if isinstance(mixer, ResidualMixer) and mixer.config.total == "mean":
            scores = scores / carried.layers
        return scores if view.bias is None else scores + view.bias.to(scores.dtype)

    def _own_scores(self, layer: int) -> Tensor:
        mixer, view = self.mixed(layer)
        size = mixer.heads.head_size
        query, key = (
            self.projected[name][layer].unflatten(-1, (-1, size)).transpose(1, 2)
            for name in ("query", "key")
        )
        if view.rotary is not None:
            assert view.query_positions is not None
            assert view.key_positions is not None
            query = view.rotary.turned(query, view.query_positions)
            key = view.rotary.turned(key, view.key_positions)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        return _wide(query) * mixer.heads.scale @ _wide(key).mT


Walks = dict[str, StackWalk]  # of every stack, by its name


@contextlib.contextmanager
def walked(network: nn.Module) -> Iterator[Walks]:
    """Notes of the pass that is made inside the `with`."""
    notes = _Notes()
    hooks: list[Any] = []
    walks: Walks = {}
    mixers: dict[int, Any] = {}  # stacks may share them
    for name, stack in stacks_of(network).items():
        walks[name] = StackWalk()
        for block in stack.layers:
            hooks.append(block.register_forward_pre_hook(notes.entering(walks[name])))
            hooks.append(block.register_forward_hook(notes.left))
            mixers[id(block.mixer)] = block.mixer
    for mixer in mixers.values():
        hooks.append(mixer.register_forward_hook(notes.mixed))
        layers = {name: getattr(mixer, name, None) for name in PROJECTIONS}
        hooks += [
            layer.register_forward_hook(notes.projecting(name))
            for name, layer in layers.items()
            if isinstance(layer, nn.Linear)
        ]
    try:
        yield walks
    finally:
        for hook in hooks:
            hook.remove()


class _Notes:
    """The hooks; `at` is the walk through the stack that is running."""

    def __init__(self) -> None:
        self.at = StackWalk()

    def entering(self, walk: StackWalk) -> Any:
        def enter(_block: nn.Module, given: tuple[Any, ...]) -> None:
            self.at = walk
            if walk.embedded is None:
                walk.embedded = given[0]

        return enter

    def left(self, _block: nn.Module, _given: Any, made: tuple[Any, ...]) -> None:
        self.at.states.append(made[0])

    def mixed(self, mixer: Mixer, given: tuple[Any, ...], made: tuple[Any, ...]) -> None:
        self.at.mixers.append(mixer)
        self.at.views.append(given[2])
        self.at.carried.append(made[1])

    def projecting(self, name: str) -> Any:
        def project(_layer: nn.Module, _given: Any, made: Tensor) -> None:
            self.at.projected[name].append(made)

        return project


def _wide(states: Tensor) -> Tensor:
    return states.to(torch.promote_types(states.dtype, torch.float32))
