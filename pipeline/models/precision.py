"""Where precision is chosen by hand: arithmetic that an outer autocast shall not narrow."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def own_precision(states: Tensor) -> AbstractContextManager[object]:
    """A context in which operations keep the types of their inputs, on the device of `states`.

    Shapes without data (the meta device) know no autocast.
    """
    if states.is_meta:
        return nullcontext()
    return torch.autocast(states.device.type, enabled=False)
