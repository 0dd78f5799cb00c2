"""A micro-batch without numbers: an objective runs on shapes alone, and what it would cost is counted.

PyTorch's meta device carries shapes and no data, so an objective that runs forward and backward on it says
itself what it multiplies and keeps: no formula has to follow a new mixer or objective. Counted are the floating-point
operations of matrix products (as torch's own counter does: a multiply-add is two) and the bytes alive at any time.
"""

import copy
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pipeline.models.output import OutputLayer
from pipeline.models.transformer import Block
from pipeline.objectives.objective import Objective

DeviceType = Literal["cpu", "cuda"]
IS_CUDA: Any = torch.Tensor.is_cuda  # a property that modes of functions are asked about, too
META = torch.device("meta")
BACKWARD_PRODUCTS = 2  # for each product of the forward: gradients of both factors


@dataclass(frozen=True)
class Rehearsal:
    """What one micro-batch costs: `flops`, and bytes beside weights and their gradients.

    `activations` are alive when the forward is over and backward has not begun; `peak` is the most at any time; of
    it `loss` is what the output layers hold at most at one time (chunks of logits, and gradients made with them).
    """

    flops: int
    activations: int
    peak: int
    loss: int


def rehearsed(
    objective: Objective,
    batch: Mapping[str, np.ndarray],
    *,
    device_type: DeviceType = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Rehearsal:
    """The cost of `batch` as `objective` would run it on a device of this type in this precision.

    `objective` is left as it is; its own device does not matter.
    """
    double = without_numbers(objective).to(dtype).train()
    tally = Tally()
    tally.watch(double)
    kernels = Kernels(tally, device_type)
    kernels.follow(double)
    with META, kernels, tally:
        given = {name: torch.empty(a.shape, dtype=_dtype_of(a)) for name, a in batch.items()}
        sums = double(given)
        total = torch.stack([weight * sums[name] for name, weight in double.weights.items()]).sum()
        activations = tally.live
        total.backward()
    return Rehearsal(tally.flops, activations, tally.peak, tally.loss)


def _dtype_of(array: np.ndarray) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def without_numbers(objective: Objective) -> Objective:
    """A copy on the meta device; what is shared stays shared, and no weight is copied on the way."""
    memo: dict[int, Any] = {}
    for parameter in objective.parameters():
        empty = torch.empty_like(parameter, device=META)
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in objective.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device=META)
    return copy.deepcopy(objective, memo)


class Tally(TorchDispatchMode):
    """Operations and living bytes of everything that is computed inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.live = self.peak = self.loss = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._inside: list[int] = []  # live bytes at the entry of the output layer that runs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.flops += self._product(func, args, kwargs or {}, out)
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._hold(value)
        return out

    def _product(self, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> int:
        packet = getattr(func, "_overloadpacket", func)
        if packet is torch.ops.aten.addmm_:  # torch's counter does not know it
            return 2 * args[1].shape[0] * args[1].shape[1] * args[2].shape[1]
        count = flop_registry.get(packet)
        return int(count(*args, **kwargs, out_val=out)) if count else 0

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        weakref.finalize(storage, self._release, size)
        self.live += size
        self.peak = max(self.peak, self.live)
        if self._inside:
            self.loss = max(self.loss, self.live - self._inside[-1])

    def _release(self, size: int) -> None:
        self.live -= size

    def watch(self, objective: Objective) -> None:
        """Tell gradients of weights, which last, from what a micro-batch needs; and output layers from the rest."""
        for held in (*objective.parameters(), *objective.buffers()):
            self._known[held.untyped_storage()] = 0  # views of weights are no bytes of their own
            if held.requires_grad:
                held.register_post_accumulate_grad_hook(self._kept)
        for part in objective.modules():
            if isinstance(part, OutputLayer):
                part.register_forward_pre_hook(lambda *_: self._inside.append(self.live))
                part.register_forward_hook(lambda *_: self._left())

    def _kept(self, parameter: Tensor) -> None:
        """A gradient of a weight has been added up: from here on it is none of the micro-batch's bytes."""
        assert parameter.grad is not None
        parameter.grad = None

    def _left(self) -> None:
        self._inside.pop()


class Kernels(TorchFunctionMode):
    """Fused kernels in place of the single operations that PyTorch does on the meta device."""

    def __init__(self, tally: Tally, device_type: DeviceType) -> None:
        super().__init__()
        self.tally = tally
        self.on_gpu = device_type == "cuda"
        self.inside: list[ExitStack] = []

    def follow(self, objective: Objective) -> None:
        """Hold inside blocks that run again in the backward, too, which knows no modes of functions."""
        for part in objective.modules():
            if isinstance(part, Block):
                part.register_forward_pre_hook(self._enter)
                part.register_forward_hook(self._leave, always_call=True)

    def _enter(self, *_: Any) -> None:
        inside = ExitStack()
        inside.enter_context(META)
        inside.enter_context(self)
        self.inside.append(inside)

    def _leave(self, *_: Any) -> None:
        self.inside.pop().close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func == IS_CUDA.__get__:
            return self.on_gpu
        if func is torch.Tensor.__bool__:
            return False  # such as whether a batch happens to hide nothing
        if func is torch.Tensor.__getitem__ and _is_mask(args[1]):
            return args[0].flatten(0, args[1].dim() - 1)  # as many as there are places
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **given)
        if func is F.dropout:
            return _Dropped.apply(args[0]) if given.get("training", True) else args[0]
        if func is F.rms_norm:
            x, shape, weight, _ = args
            return F.layer_norm(x, shape, weight)  # keeps the same, and a mean for each place
        return func(*args, **given)

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any
    ) -> Tensor:
        """Two products of all queries with all keys, and four in the backward."""
        product = 2 * query.numel() * key.shape[-2]
        trained = any(part.requires_grad for part in (query, key, value))
        self.tally.flops += 2 * product * (1 + BACKWARD_PRODUCTS * trained)
        mixed: Tensor = _Fused.apply(query, key, value, attn_mask)
        return mixed


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


class _Fused(torch.autograd.Function):
    """What a fused kernel of attention keeps: its inputs, its output and one number a query, never the scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """A mask of bools becomes one of numbers, which stays for the backward."""
        added = None if mask is None else torch.empty(mask.shape, dtype=query.dtype)
        mixed = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, added, mixed, mixed.new_empty(mixed.shape[:-1]))
        return mixed

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the three; a bias that learns never comes here on a CPU."""
        query, key, value, added, *_rest = ctx.saved_tensors
        of_mask = torch.empty_like(added) if ctx.needs_input_grad[3] else None
        return *(torch.empty_like(part) for part in (query, key, value)), of_mask


class _Dropped(torch.autograd.Function):
    """Dropout that keeps a mask of one byte an element."""

    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        """The mask, and the states with it."""
        ctx.save_for_backward(torch.empty(states.shape, dtype=torch.bool))
        return torch.empty_like(states)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """As large as the states."""
        (mask,) = ctx.saved_tensors
        return torch.empty_like(grads[0]).masked_fill(mask, 0.0)
