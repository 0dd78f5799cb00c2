"""Stacks of blocks: any mixer in any layer, windows, positions, norms, recomputing, caches."""

import itertools

import pytest
import torch

from pipeline.config import ConfigError, build_from
from pipeline.data.example import MIXED_KINDS, Visibility
from pipeline.models.decoder import DecoderConfig, LanguageModel
from pipeline.models.encoder import Encoder, EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.heads import MaskedLanguageModel
from pipeline.models.mixers import MIXERS
from pipeline.models.transformer import recompute
from pipeline.models.tta import LanguageAutoencoder, TtaConfig

VOCAB = 60
SHAPE = {
    "num_layers": 3,
    "hidden_size": 16,
    "num_heads": 2,
    "head_size": 8,
    "ffn_size": 24,
    "max_length": 12,
}
NAMES = [config().type for config in MIXERS]
PACKED = torch.tensor([[1] * 5 + [2] * 4 + [0], [1] * 3 + [2] * 7])
POSITIONS = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0], [0, 1, 2, 0, 1, 2, 3, 4, 5, 6]])
ALL_POSITIONS = ("learned", "sinusoidal", "rotary", "alibi", "relative", "none")


def ids_of(*shape, seed=2):
    return torch.randint(5, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def made(cls, **fields):
    """The network of a config, with parameters away from their special initial values."""
    torch.manual_seed(1)
    config = build_from(cls, {**SHAPE, **fields})
    network = {
        EncoderConfig: MaskedLanguageModel,
        EncoderDecoderConfig: EncoderDecoder,
        DecoderConfig: LanguageModel,
        TtaConfig: LanguageAutoencoder,
    }[cls](config, VOCAB)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.double().eval()


def logits_of(network, ids=None, segments=PACKED, positions=POSITIONS):
    ids = ids_of(2, 10) if ids is None else ids
    if isinstance(network, EncoderDecoder):
        return network(ids, segments, ids, segments)
    more = (torch.arange(10).expand(2, 10),) if isinstance(network, MaskedLanguageModel) else ()
    return network(ids, segments, positions, *more)


@pytest.mark.parametrize("cls", [EncoderConfig, EncoderDecoderConfig, DecoderConfig, TtaConfig])
@pytest.mark.parametrize("name", NAMES)
def test_recomputed_blocks_give_the_same_bits(cls, name):
    network = made(cls, mixer=name, positions="learned", dropout=0.2).float().train()

    def gradients(group):
        recompute(network, group)
        network.zero_grad()
        torch.manual_seed(3)
        loss = logits_of(network).square().mean()
        loss.backward()
        return [loss.detach(), *(p.grad for p in network.parameters() if p.grad is not None)]

    kept = gradients(None)
    for group in (1, 2, 5):
        assert all(torch.equal(a, b) for a, b in zip(kept, gradients(group), strict=True))


@pytest.mark.parametrize("cls", [EncoderConfig, EncoderDecoderConfig, DecoderConfig, TtaConfig])
@pytest.mark.parametrize("positions", ALL_POSITIONS)
def test_packed_documents_have_the_logits_of_each_alone(cls, positions):
    if cls is TtaConfig and positions not in ("learned", "sinusoidal"):
        network = made(cls, positions=positions, query="mask")
    else:
        network = made(cls, positions=positions)
    ids = ids_of(2, 10)
    together = logits_of(network, ids)
    for row, (start, end) in ((0, (0, 5)), (0, (5, 9)), (1, (0, 3)), (1, (3, 10))):
        own, length = (slice(row, row + 1), slice(start, end)), end - start
        ones, places = torch.ones(1, length, dtype=torch.long), torch.arange(length)[None]
        if cls is EncoderDecoderConfig:
            alone = network(ids[own], ones, ids[own], ones)
        elif cls is EncoderConfig:
            alone = network(ids[own], ones, places, places)
        else:
            alone = network(ids[own], ones, places)
        assert (together[own] - alone).abs().max() < 1e-12


@pytest.mark.parametrize("positions", ["rotary", "alibi", "relative"])
def test_relative_positions_do_not_see_where_a_document_stands(positions):
    network = made(EncoderConfig, positions=positions)
    ids = ids_of(2, 10)
    moved = logits_of(network, ids, positions=POSITIONS + 7)
    assert (moved - logits_of(network, ids)).abs().max() < 1e-12
    ones, places = torch.ones_like(ids), torch.arange(10).expand(2, 10)
    there = logits_of(network, ids, ones, places)
    back = logits_of(network, ids.flip(1), ones, places).flip(1)
    # the encoder form of ALiBi sees distances alone, the others directions too
    assert ((back - there).abs().max() > 1e-6) == (positions != "alibi")


def test_without_positions_the_order_does_not_matter():
    network = made(EncoderConfig, positions="none")
    ids, order = ids_of(1, 10), torch.randperm(10)
    ones, scored = torch.ones(1, 10, dtype=torch.long), torch.arange(10)[None]
    there = network(ids, ones, scored, scored)
    assert (network(ids[:, order], ones, scored, scored) - there[:, order]).abs().max() < 1e-12


def test_each_layer_has_the_mixer_that_the_list_names():
    network = made(EncoderConfig, num_layers=4, mixers=["softmax", "residual"])
    assert [block.mixer.__class__.__name__ for block in network.encoder.layers] == [
        "SoftmaxMixer",
        "ResidualMixer",
    ] * 2
    assert [block.mixer.heads.layer for block in network.encoder.layers] == [0, 1, 2, 3]
    model = made(
        EncoderDecoderConfig,
        num_layers=2,
        num_decoder_layers=3,
        positions="none",
        mixer="linear",
        decoder_mixers=["performer", {"type": "softmax", "num_kv_heads": 1}, "softmax"],
        cross_mixer="linear",
    )
    mixers = [
        [b.mixer.__class__.__name__ for b in s.layers] for s in (model.encoder, model.decoder)
    ]
    assert mixers == [["LinearMixer"] * 2, ["PerformerMixer", "SoftmaxMixer", "SoftmaxMixer"]]
    assert {b.cross_mixer.heads.stack for b in model.decoder.layers} == {"cross"}
    assert {b.mixer.heads.stack for b in model.decoder.layers} == {"decoder"}
    assert logits_of(model).isfinite().all()


@pytest.mark.parametrize(
    ("cls", "fields", "words"),
    [
        (
            EncoderConfig,
            {"mixers": ["softmax", "softmax"]},
            "a pattern of 2 does not fill 3 layers",
        ),
        (EncoderConfig, {"mixer": "linear", "mixers": ["softmax"]}, "keep one of them"),
        (EncoderConfig, {"mixer": "linear", "positions": "alibi"}, "no place for a position bias"),
        (EncoderConfig, {"mixer": "performer", "window": 4}, "cannot be limited to a window"),
        (EncoderConfig, {"mixer": {"type": "softmax", "num_kv_heads": 3}}, "does not divide"),
        (EncoderConfig, {"positions": "rotary", "head_size": 5}, "need an even head_size, not 5"),
        (EncoderConfig, {"global_every": 3}, "are for layers with a window"),
        (EncoderConfig, {"positions": "rotary", "mixer": "synthesizer"}, "rotary positions turn"),
        (EncoderDecoderConfig, {"mixer": "synthesizer", "max_length": None}, "give max_length"),
        (EncoderDecoderConfig, {"positions": "learned", "max_length": None}, "give max_length"),
        (EncoderDecoderConfig, {"mixer": "linear"}, "no place for a position bias"),
        (TtaConfig, {"positions": "rotary"}, "query: mask"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason_and_a_way_out(cls, fields, words):
    with pytest.raises(ConfigError, match=words):
        build_from(cls, {**SHAPE, **fields})


def test_windowed_and_global_layers_take_turns():
    config = build_from(
        EncoderConfig,
        {
            **SHAPE,
            "num_layers": 4,
            "window": 1,
            "global_every": 3,
            "positions": "rotary",
            "rotary_base": 500.0,
            "local_rotary_base": 50.0,
        },
    )
    assert [layer.window for layer in config.core().layers] == [None, 1, 1, None]
    assert [layer.rotary.base for layer in config.core().layers] == [500.0, 50.0, 50.0, 500.0]
    local = build_from(EncoderConfig, {**SHAPE, "num_layers": 2, "window": 2})
    network = Encoder(local, VOCAB).double().eval()
    ids, ones, places = ids_of(1, 12), torch.ones(1, 12, dtype=torch.long), torch.arange(12)[None]
    before = network(ids, ones, places)
    other = ids.clone()
    other[0, 6] += 1
    changed = (network(other, ones, places) != before).any(-1)[0].nonzero().flatten().tolist()
    assert changed == list(range(2, 11))  # two layers of two tokens to each side


def test_embeddings_of_their_own_width_are_projected():
    network = made(EncoderConfig, embedding_size=6)
    assert network.encoder.embeddings.word.embedding_dim == 6
    assert network.encoder.embeddings.project.weight.shape == (16, 6)
    assert network.head.decoder.weight is network.encoder.embeddings.word.weight
    assert logits_of(network).shape == (2, 10, 64)


def test_a_modern_encoder_has_no_bias_but_the_one_of_its_output():
    network = made(
        EncoderConfig,
        biases=False,
        feed_forward="geglu_exact",
        normalised="before",
        first_norm=False,
        positions="rotary",
        token_types=0,
    )
    names = [name for name, _ in network.named_parameters() if name.endswith("bias")]
    assert names == ["head.decoder.bias"]
    assert isinstance(network.encoder.layers[0].mixer_residual.norm, torch.nn.Identity)
    assert logits_of(network).isfinite().all()


@pytest.mark.parametrize(("how", "first", "last"), [("by_depth", 6, 6), ("by_layer", 2, 6)])
def test_output_matrices_start_smaller_in_deep_stacks(how, first, last):
    torch.manual_seed(0)
    plain = Encoder(build_from(EncoderConfig, SHAPE), VOCAB)
    torch.manual_seed(0)
    small = Encoder(build_from(EncoderConfig, {**SHAPE, "rescaled": how}), VOCAB)
    for number, divided in ((0, first), (2, last)):
        for part in ("mixer.output.weight", "feed_forward.down.weight"):
            one = plain.layers[number].get_parameter(part) / divided**0.5
            assert (one - small.layers[number].get_parameter(part)).abs().max() < 1e-8
        value = "mixer.value.weight"
        assert torch.equal(
            plain.layers[number].get_parameter(value), small.layers[number].get_parameter(value)
        )


def test_shared_stacks_differ_in_cross_attention_and_bias_alone():
    own = made(EncoderDecoderConfig)
    shared = made(EncoderDecoderConfig, shared_stacks=True)
    counts = [sum(p.numel() for p in network.parameters()) for network in (own, shared)]
    block = sum(p.numel() for p in own.encoder.layers[0].parameters())
    assert counts[0] - counts[1] == 3 * block + 16  # and the final norm
    assert shared.encoder.layers[1].mixer is shared.decoder.layers[1].mixer
    assert shared.encoder.bias.table is not shared.decoder.bias.table
    with pytest.raises(ConfigError, match="equal layers"):
        build_from(EncoderDecoderConfig, {**SHAPE, "shared_stacks": True, "num_decoder_layers": 2})


def unilm(ids, segments, kinds, prefix):
    """Logits of a batch whose examples each have a visibility and token types of their own."""
    network = made(EncoderConfig, token_types=6)
    visibility = Visibility("mixed", segments, segments, prefix, kinds)
    types = (kinds[:, None] + 1) * torch.ones_like(ids)
    scored = torch.arange(ids.shape[1]).expand_as(ids)
    return network(ids, segments, scored, scored, visibility, types)


def test_examples_of_several_visibilities_share_a_batch():
    ids, kinds, prefix = ids_of(4, 8), torch.arange(4), torch.tensor([0, 0, 0, 5])
    segments = torch.ones_like(ids)
    segments[2, 6:] = 0
    together = unilm(ids, segments, kinds, prefix)
    for row in range(4):
        own = slice(row, row + 1)
        alone = unilm(ids[own], segments[own], kinds[own], prefix[own])
        assert (together[own] - alone).abs().max() < 1e-12
    for i, j, row in itertools.product(range(8), range(8), range(4)):
        other = ids.clone()
        other[row, j] = 5 + (ids[row, j] - 4) % (VOCAB - 5)
        if i == 0:
            changed = (unilm(other, segments, kinds, prefix) - together)[row].abs().amax(-1) > 0
            sees = {
                "all": torch.ones(8, dtype=torch.bool),
                "causal": torch.arange(8) >= j,
                "reverse": torch.arange(8) <= j,
                "prefix": (torch.arange(8) >= j) | torch.tensor(j < 5),
            }[MIXED_KINDS[row]]
            # padding knows of itself through its residual alone
            sees = sees & (segments[row] == segments[row, j]) & (segments[row, j] > 0)
            sees[j] = True
            assert torch.equal(changed, sees), (row, j)


def test_reversed_tokens_under_reverse_visibility_are_the_causal_ones():
    network = made(EncoderConfig, positions="none").encoder
    ids, ones, places = ids_of(1, 9), torch.ones(1, 9, dtype=torch.long), torch.arange(9)[None]
    causal = network(ids, ones, places, Visibility("causal", ones, ones))
    reverse = network(ids.flip(1), ones, places, Visibility("reverse", ones, ones))
    assert (reverse.flip(1) - causal).abs().max() < 1e-12


@pytest.mark.parametrize("visible", ["causal", "prefix"])
@pytest.mark.parametrize("positions", ALL_POSITIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_growing_row_has_the_logits_of_the_whole_one(name, positions, visible):
    try:
        network = made(DecoderConfig, mixer=name, positions=positions, visibility=visible)
    except ConfigError:
        pytest.skip("refused when a configuration is loaded")
    ids, ones, places = ids_of(2, 10), torch.ones(2, 10, dtype=torch.long), torch.arange(10)
    prefix = torch.tensor([4, 2]) if visible == "prefix" else None
    places = places.expand(2, 10)
    whole = network(ids, ones, places, prefix)
    caches = network.new_caches()
    for start, end in itertools.pairwise((0, 4, 6, 7, 10)):
        states = network.states(
            ids[:, start:end], ones[:, :end], places[:, start:end], prefix, caches
        )
        assert (network.logits(states) - whole[:, start:end]).abs().max() < 1e-11
    assert caches.length == 10


@pytest.mark.parametrize("name", NAMES)
def test_a_growing_target_has_the_logits_of_the_whole_one(name):
    network = made(EncoderDecoderConfig, mixer=name, positions="none", cross_mixer=name)
    inputs, targets = ids_of(2, 10), ids_of(2, 6, seed=5)
    real = (PACKED > 0).long()
    ones = torch.ones_like(targets)
    whole = network(inputs, real, targets, ones)
    encoded, caches = network.encode(inputs, real), network.new_caches()
    for start, end in itertools.pairwise((0, 1, 2, 4, 6)):
        states = network.decode(targets[:, start:end], ones[:, :end], encoded, real, caches)
        assert (network.logits(states) - whole[:, start:end]).abs().max() < 1e-11


@pytest.mark.parametrize("cls", [EncoderConfig, EncoderDecoderConfig, DecoderConfig, TtaConfig])
@pytest.mark.parametrize("name", NAMES)
def test_narrow_types_stay_near_float32(cls, name):
    network = made(cls, mixer=name, positions="learned").float()
    exact = logits_of(network).detach()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = {"autocast": logits_of(network)}
    rounded["bfloat16"] = logits_of(network.bfloat16())
    rounded["float16"] = logits_of(network.half())  # of weights rounded to bfloat16 before
    for how, found in rounded.items():
        assert found.dtype == torch.float32
        difference = (found - exact).norm() / exact.norm()
        assert 0 < difference < 0.04, (how, difference)
