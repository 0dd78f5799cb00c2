"""What is counted without numbers is what real tensors need: operations, kept bytes, and the most at any time."""

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import build_from
from pipeline.models.transformer import recompute
from pipeline.stages.pretrain import CorruptedRows, Pretrain
from pipeline.train.engine import on_device, total_loss
from pipeline.train.engine_torch import TorchEngine
from pipeline.train.flops import StepFlops
from pipeline.train.memory import held_by, rank_memory
from pipeline.train.rehearsal import rehearsed, without_numbers
from pipeline.train.run import TrainSettings
from pipeline.train.sketch import BlankRows, blank_vocabulary

CPU = torch.device("cpu")
ROW_LENGTH = 62
SHAPE = {"num_layers": 2, "hidden_size": 64, "num_heads": 4, "ffn_size": 256, "max_length": 256}
T5 = {**SHAPE, "type": "encoder_decoder", "head_size": 16}
JOBS = {
    "mlm": {"type": "encoder"},
    "rtd": {"type": "encoder"},
    "map_net": {"type": "encoder"},
    "lae": {"type": "tta"},
    "lm": {"type": "decoder"},
    "denoising": T5,
}


def job(objective, **shape):
    """An objective with random weights, and one micro-batch of four rows for it."""
    values = {
        "kind": "pretrain",
        "tokens": "tokens",
        "objective": {"type": objective},
        "model": {**SHAPE, **JOBS[objective], **shape},
        "steps": 1,
    }
    stage = build_from(Pretrain, values, "stage")
    vocabulary = blank_vocabulary(2000, 100)
    torch.manual_seed(0)
    made = stage.objective.objective(stage.model, vocabulary.size).train()
    corruption = stage.objective.corruption(vocabulary, ROW_LENGTH)
    source = CorruptedRows(BlankRows(ROW_LENGTH), corruption)
    rng = np.random.default_rng(0)
    batch = source.collate([source.example(n, rng) for n in range(4)])
    return made, batch


def run(objective, batch):
    """Forward and backward."""
    sums = objective(on_device(batch, CPU))
    total_loss(sums, objective.weights, objective.counts(batch)).backward()


def added_product(_sum, left, right, **_):
    """Of a product that is added in place, which torch's counter does not know; arguments are shapes."""
    return 2 * left[0] * left[1] * right[1]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("name", JOBS)
def test_operations_are_those_that_torch_counts(name, dropout):
    objective, batch = job(name, dropout=dropout)
    known = {torch.ops.aten.addmm_: added_product}
    slow = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with FlopCounterMode(display=False, custom_mapping=known) as counter, slow:
        run(objective, batch)
    assert rehearsed(objective, batch).flops == counter.get_total_flops()


def test_operations_of_bert_by_hand():
    objective, batch = job("mlm", dropout=0.1)
    tokens, length, scored = 4 * 64, 64, batch["labels"].size
    width, ffn, vocab = 64, 256, 2112
    layer = 2 * tokens * (4 * width * width + 2 * width * ffn) + 4 * tokens * length * width
    head = 2 * scored * (width * width + width * vocab)
    assert rehearsed(objective, batch).flops == 3 * (2 * layer + head)


@pytest.mark.parametrize("name", JOBS)
def test_kept_bytes_are_those_that_autograd_keeps(name):
    objective, batch = job(name, dropout=0.1)
    weights = {p.untyped_storage().data_ptr() for p in objective.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        objective(on_device(batch, CPU))
    real = sum(storage.nbytes() for storage in kept.values())
    assert rehearsed(objective, batch).activations == pytest.approx(real, rel=0.05)


def peak_of(engine, batch, counts):
    """Most bytes that the allocator of the CPU has given out in two steps, by PyTorch's profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        for step in range(2):
            engine.step([batch, batch], counts, 1e-3, step)
    events = sorted(found.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    live = peak = 0
    for event in events:
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.mark.parametrize("name", ["mlm", "denoising"])
def test_memory_is_what_the_allocator_gives_out(name):
    objective, batch = job(name, dropout=0.1)
    given = {"batch": 8, "micro_batch": 4, "engine": {"type": "torch"}}
    settings = build_from(TrainSettings, given, "train")
    rehearsal, held = rehearsed(objective, batch), held_by(objective, settings)
    told = rank_memory(held, rehearsal, settings, ranks=1, precision="float32", batch_bytes=0)
    engine = TorchEngine(objective, settings, rank=0, device=CPU)
    counts = {name: 2 * count for name, count in objective.counts(batch).items()}
    weights = 4 * sum(p.numel() for p in objective.parameters())  # given out before
    assert told.device["weights"] == weights
    assert told.device["optimizer"] == 2 * weights
    assert told.total == pytest.approx(weights + peak_of(engine, batch, counts), rel=0.05)


def test_recomputed_blocks_save_memory_and_do_not_count():
    objective, batch = job("mlm", dropout=0.1)
    shapes = without_numbers(objective)
    plain = rehearsed(shapes, batch)
    recompute(shapes, 1)
    again = rehearsed(shapes, batch)
    assert again.peak < plain.peak
    assert again.flops > plain.flops
    assert StepFlops(shapes).of(batch) == plain.flops


def test_a_gpu_keeps_no_scores():
    objective, batch = job("mlm", dropout=0.1)
    there, here = rehearsed(objective, batch, device_type="cuda"), rehearsed(objective, batch)
    assert there.flops == here.flops
    scores = 2 * 4 * 4 * 64 * 64  # of 2 layers, 4 rows, 4 heads
    assert here.activations - there.activations > scores  # a weight and a mask each


def test_copies_without_numbers_share_what_was_shared_and_leave_the_original_alone():
    objective, _ = job("rtd")
    before = [p.clone() for p in objective.parameters()]
    copy = without_numbers(objective)
    assert all(p.is_meta for p in copy.parameters())
    assert len(list(copy.parameters())) == len(before)
    assert all(torch.equal(p, q) for p, q in zip(objective.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("stage", "precision", "wanted"),
    [
        (0, "float32", {"weights": 4, "optimizer": 8, "gradients": 4}),
        (1, "float32", {"weights": 4, "float32 copies": 1, "optimizer": 2, "gradients": 4}),
        (1, "bf16", {"weights": 2, "float32 copies": 1, "optimizer": 2, "gradients": 6}),
        (2, "bf16", {"weights": 2, "float32 copies": 1, "optimizer": 2, "gradients": 1}),
        (3, "bf16", {"weights": 0.5, "float32 copies": 1, "optimizer": 2, "gradients": 1}),
    ],
)
def test_states_under_zero_with_four_ranks(stage, precision, wanted):
    objective, batch = job("mlm")
    engine = {"type": "deepspeed", "zero_stage": stage}
    settings = build_from(TrainSettings, {"engine": engine}, "train")
    held = held_by(objective, settings)
    cost = rehearsed(objective, batch)
    told = rank_memory(held, cost, settings, ranks=4, precision=precision, batch_bytes=0).device
    numbers = sum(p.numel() for p in objective.parameters())
    for name, each in wanted.items():
        assert told[name] == pytest.approx(each * numbers, rel=1e-3)
