"""The contract of everything trainable: an objective owns its networks and returns sums, never means.

The engine divides every loss term by its *global* count (all ranks, all accumulation steps), so that loss and
gradients do not depend on micro-batch size, accumulation or world size. Counts are a function of the batch alone,
which is why they can be reduced before the first forward of a step.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Objective(nn.Module):
    """Base of all objectives.

    `weights` names the loss terms and their weights in the total loss. Other names that `forward` returns
    are not trained on: those that `counts` knows are metrics, reported as sum / count; the others are
    statistics, tensors of any shape that are added up and turned into figures by `figures`. `rising` names
    the held-out figures of which more is better, if a run can be judged by them.
    """

    rising: frozenset[str] = frozenset()

    @property
    def weights(self) -> Mapping[str, float]:
        """Loss terms and their weights; an attribute of the class where no setting changes them."""
        raise NotImplementedError

    def at_step(self, step: int) -> None:
        """Told once before each optimizer step (0-based). Draws that change the graph are made here, keyed by step."""
        for part in self.children():
            tell_step(part, step)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """How many items each name of `forward` sums over in this batch (numpy on the host).

        The further name `tokens` counts the real (not padding) tokens the networks read, for throughput.
        """
        raise NotImplementedError

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sum of each loss term and metric over the batch, float32 scalars; and statistics."""
        raise NotImplementedError

    def figures(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """What is reported of summed statistics (float64, on the CPU), such as a precision: none here."""
        assert not statistics, f"nobody turns {sorted(statistics)} into figures"
        return {}

    def kept(self) -> nn.Module:
        """The network that is handed on when training ends."""
        raise NotImplementedError


def tell_step(network: nn.Module, step: int) -> None:
    """Call `at_step` of every module inside `network` that has one, such as mixers with random features."""
    for part in network.modules():
        told = getattr(part, "at_step", None)
        if callable(told):
            told(step)
