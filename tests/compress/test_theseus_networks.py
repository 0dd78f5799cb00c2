"""Theseus on every kind of network: nothing replaced is the predecessor, all replaced the successor, bit for bit."""

import copy

import numpy as np
import pytest
import torch

from pipeline.compress.replacing import Replacing
from pipeline.compress.shallow import shallow_layers, stacks_of
from pipeline.compress.splits import picks_of
from pipeline.compress.theseus import TheseusObjective
from pipeline.config import ConfigError, build_from
from pipeline.models.artifact import language_network
from pipeline.models.decoder import DecoderConfig
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoderConfig
from pipeline.models.mixers.residual import ResidualConfig
from pipeline.models.mixers.softmax import SoftmaxConfig
from pipeline.models.transformer import recompute
from pipeline.models.tta import TtaConfig
from pipeline.objectives.lae import Lae
from pipeline.objectives.lm import LanguageModeling
from pipeline.objectives.mlm import Mlm
from pipeline.objectives.pairs import TextToText
from pipeline.objectives.rtd import RtdConfig

WIDTHS = {"num_layers": 4, "hidden_size": 16, "num_heads": 2, "ffn_size": 32, "dropout": 0.0}
VOCAB, ROWS, LENGTH = 60, 3, 10
ENCODER = EncoderConfig(**WIDTHS, max_length=12)
RESIDUAL = EncoderConfig(**WIDTHS, max_length=12, mixer=ResidualConfig())
WINDOWED = EncoderConfig(
    **WIDTHS, max_length=12, positions="rotary", window=2, global_every=2, normalised="before"
)
SHARED = EncoderDecoderConfig(**WIDTHS, head_size=8, shared_stacks=True)
CASES = {
    "mlm": (lambda: Mlm(network_of(ENCODER)), {"encoder": (3, 1)}),
    "residual": (lambda: Mlm(network_of(RESIDUAL)), {"encoder": (2, 2)}),
    "windowed": (lambda: Mlm(network_of(WINDOWED)), {"encoder": (1, 3)}),
    "lm": (lambda: LanguageModeling(network_of(DecoderConfig(**WIDTHS))), {"": (2, 2)}),
    "lae": (lambda: Lae(network_of(TtaConfig(**WIDTHS, max_length=12))), {"": (2, 2)}),
    "t5": (lambda: t5_of(EncoderDecoderConfig(**WIDTHS, head_size=8)), (2, 2), (1, 3)),
    "shared": (lambda: t5_of(SHARED), (2, 2), (2, 2)),
    "rtd": (lambda: RtdConfig().objective(ENCODER, VOCAB), {"encoder": (4,)}),
}


def network_of(shape):
    return language_network(shape, VOCAB)


def t5_of(shape):
    return TextToText(network_of(shape), z_loss=0.0)


def made(case, *, rate, start="bottom"):
    torch.manual_seed(4)
    inner, *splits = CASES[case][0](), *CASES[case][1:]
    named = (
        splits[0] if len(splits) == 1 else dict(zip(("encoder", "decoder"), splits, strict=True))
    )
    before = copy.deepcopy(inner)
    objective = TheseusObjective(inner, named, rate=lambda step: rate, seed=0, start=start)
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            if ".successor." in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return before, objective


def batch_for(name):
    rng = np.random.default_rng(1)
    ids = rng.integers(6, VOCAB, size=(ROWS, LENGTH))
    if name in ("t5", "shared"):
        targets = rng.integers(6, VOCAB, size=(ROWS, 6))
        batch = {
            "input_ids": ids,
            "input_segments": np.ones_like(ids),
            "decoder_input_ids": targets,
            "decoder_segments": np.ones_like(targets),
            "labels": targets,
        }
    else:
        segments = np.ones_like(ids)
        segments[1, 7:] = 0
        batch = {
            "input_ids": ids,
            "segment_ids": segments,
            "position_ids": np.tile(np.arange(LENGTH), (ROWS, 1)),
            "labels": np.where(segments > 0, ids, -1),
        }
        if name not in ("lm", "lae"):
            batch["scored_positions"] = np.tile([2, 5], (ROWS, 1))
            batch["labels"] = ids[:, [2, 5]]
        batch["uniforms"] = rng.random((ROWS, 2), dtype=np.float32)
    return {key: torch.from_numpy(values) for key, values in batch.items()}


def same_sums(one, two):
    return all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize("name", CASES)
def test_rates_of_zero_and_one_are_the_predecessor_and_the_successor(name):
    batch = batch_for(name)
    before, objective = made(name, rate=0.0)
    objective.train().at_step(0)
    assert same_sums(objective(batch), before.train()(batch))
    before, objective = made(name, rate=1.0)
    objective.train().at_step(0)
    hybrid = objective(batch)
    small = copy.deepcopy(objective.inner)
    small.network = objective.kept()
    assert same_sums(hybrid, small.train()(batch))
    assert not same_sums(hybrid, before(batch))


@pytest.mark.parametrize("name", CASES)
def test_successors_alone_are_trained_and_handed_on_with_the_shape_that_was_asked_for(name):
    _, objective = made(name, rate=0.5)
    network = objective.inner.kept()
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    assert trained
    assert all(".successor." in n for n in trained)
    kept = objective.kept()
    assert type(kept) is type(network)
    fresh = type(kept)(kept.config, VOCAB)
    fresh.load_state_dict(kept.state_dict())
    depths = [len(stack.layers) for stack in stacks_of(kept).values()]
    config = kept.config
    assert depths[0] == config.num_layers == len(objective.replaceable) // len(depths)


def test_a_draw_is_replayed_when_activations_are_computed_again():
    batch = batch_for("t5")
    grads = []
    for group in (None, 1):
        _, objective = made("t5", rate=0.5)
        recompute(objective, group)
        objective.train().at_step(3)
        assert len({module.replaced for module in objective.replaceable}) == 2
        objective(batch)["denoising"].backward()
        grads.append([p.grad for p in objective.parameters() if p.requires_grad])
    assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))


@pytest.mark.parametrize("start", ["bottom", "alternate", "top"])
def test_successors_begin_as_copies_of_the_layers_that_are_picked(start):
    network = network_of(ENCODER)
    [layers] = shallow_layers(network, {"encoder": (3, 1)}, start).values()
    for own, pick in zip(layers, picks_of((3, 1), start), strict=True):
        other = network.encoder.layers[pick].state_dict()
        assert all(torch.equal(value, other[name]) for name, value in own.state_dict().items())
    assert picks_of((3, 1), start) == {"bottom": [0, 1], "alternate": [0, 3], "top": [2, 3]}[start]


def test_a_layer_of_another_kind_is_no_start():
    mixers = (SoftmaxConfig(), ResidualConfig()) * 2
    network = network_of(EncoderConfig(**WIDTHS, max_length=12, mixers=mixers))
    assert len(shallow_layers(network, {"encoder": (2, 2)}, "bottom")["encoder"]) == 2
    with pytest.raises(ConfigError, match="another kind of layer"):
        shallow_layers(network, {"encoder": (2, 2)}, "alternate")


def splits_of(shape, **settings):
    return build_from(Replacing, settings, "test").splits_of(shape)


def test_splits_that_are_asked_for_are_given_or_refused_in_words():
    t5 = EncoderDecoderConfig(**WIDTHS, head_size=8, num_decoder_layers=6)
    assert splits_of(ENCODER, num_layers=2) == {"encoder": (2, 2)}
    assert splits_of(ENCODER, split=[1, 3]) == {"encoder": (1, 3)}
    assert splits_of(DecoderConfig(**WIDTHS), num_layers=1) == {"": (4,)}
    assert splits_of(t5, num_layers=2) == {"encoder": (2, 2), "decoder": (3, 3)}
    both = splits_of(t5, num_layers=2, decoder_split=[1, 2, 3])
    assert both == {"encoder": (2, 2), "decoder": (1, 2, 3)}
    for wrong, shape, words in (
        ({"num_layers": 3}, ENCODER, "use 1 or 2, or give a split"),
        ({"num_layers": 4}, ENCODER, "use 1 or 2"),
        ({"split": [2, 3]}, ENCODER, "shares out 5 layers, and there are 4"),
        ({"num_layers": 2, "num_decoder_layers": 2}, ENCODER, "is one stack"),
        ({"num_layers": 2, "decoder_split": [1, 3]}, SHARED, "split both alike"),
        ({"num_layers": 2, "split": [2, 2]}, ENCODER, "give one of them"),
        ({}, ENCODER, "give one of them"),
    ):
        with pytest.raises(ConfigError, match=words):
            splits_of(shape, **wrong)
