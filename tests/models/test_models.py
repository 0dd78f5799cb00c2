"""Properties that every network has: packing, leaks, padding, sizes, and what is refused."""

import pytest
import torch

from pipeline.config import ConfigError, build_from
from pipeline.data.example import Visibility
from pipeline.models.encoder import Encoder, EncoderConfig, view_of
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.heads import MaskedLanguageModel, SequenceClassifier
from pipeline.models.mixers.mixer import EVERY_KIND, Mixer, Needs, refusals

KINDS = ("all", "causal", "reverse", "prefix", "except_self")
VOCAB = 100
BERT = EncoderConfig(num_layers=3, hidden_size=24, num_heads=3, ffn_size=40, max_length=20)
T5_1_0 = EncoderDecoderConfig(
    num_layers=2, num_decoder_layers=3, hidden_size=24, num_heads=2, head_size=10, ffn_size=40
)
T5_1_1 = EncoderDecoderConfig(
    num_layers=2,
    hidden_size=24,
    num_heads=2,
    head_size=10,
    ffn_size=40,
    feed_forward="geglu",
    tied_head=False,
)


def perturbed(network):
    """All parameters away from their special initial values, so that none goes untested."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.eval()


def ids_of(*shape):
    return torch.randint(1, VOCAB, shape, generator=torch.Generator().manual_seed(2))


def packed(lengths):
    """Segments and restarting positions of one row of documents. [1, sum(lengths)] each."""
    segments = torch.repeat_interleave(torch.arange(1, len(lengths) + 1), torch.tensor(lengths))
    positions = torch.cat([torch.arange(length) for length in lengths])
    return segments[None], positions[None]


def test_a_packed_row_gives_the_logits_of_its_documents():
    model = perturbed(MaskedLanguageModel(BERT, VOCAB)).double()
    ids, lengths = ids_of(1, 16), [7, 4, 5]
    segments, positions = packed(lengths)
    scored = torch.arange(16)[None]
    together = model(ids, segments, positions, scored)
    start = 0
    for length in lengths:
        own = slice(start, start + length)
        alone = torch.arange(length)[None]
        apart = model(ids[:, own], torch.ones_like(alone), alone, alone)
        assert (together[:, own] - apart).abs().max() < 1e-12
        start += length


@pytest.mark.parametrize("config", [T5_1_0, T5_1_1])
def test_packed_pairs_give_the_logits_of_each_pair(config):
    model = perturbed(EncoderDecoder(config, VOCAB)).double()
    inputs, targets, input_lengths, target_lengths = ids_of(1, 12), ids_of(1, 9), [5, 7], [6, 3]
    (input_segments, _), (target_segments, _) = packed(input_lengths), packed(target_lengths)
    together = model(inputs, input_segments, targets, target_segments)
    for number, own, other in ((1, slice(0, 5), slice(0, 6)), (2, slice(5, 12), slice(6, 9))):
        assert (input_segments[:, own] == number).all()
        ones = torch.ones_like
        x, y = inputs[:, own], targets[:, other]
        apart = model(x, ones(x), y, ones(y))
        assert (together[:, other] - apart).abs().max() < 1e-12


def reaches(kind, i, j, prefix):
    """Whether position i can know of token j through any number of layers."""
    return {
        "all": True,
        "causal": j <= i,
        "reverse": j >= i,
        "prefix": j < prefix or j <= i,
        "except_self": True,
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_no_position_knows_of_a_token_it_may_not_see(kind):
    encoder = perturbed(Encoder(BERT, VOCAB))
    ids = ids_of(1, 10)
    segments, positions = packed([6, 4])
    visible = Visibility(kind, segments, segments, torch.tensor([3]))
    before = encoder(ids, segments, positions, visible)
    for j in range(10):
        other = ids.clone()
        other[0, j] = (ids[0, j] + 1) % VOCAB
        after = encoder(other, segments, positions, visible)
        changed = (after != before).any(dim=-1)[0]
        for i in range(10):
            same_document = segments[0, i] == segments[0, j]
            assert bool(changed[i]) == bool(same_document and reaches(kind, i, j, 3)), (i, j)


def test_except_self_hides_the_token_itself_from_one_mixer():
    encoder = perturbed(Encoder(BERT, VOCAB))
    segments = torch.ones(1, 6, dtype=torch.long)
    query, memory = torch.randn(2, 1, 6, 24)
    mixer = encoder.layers[0].mixer
    view = view_of(segments, Visibility("except_self", segments, segments))
    before, _ = mixer(query, memory, view)
    for j in range(6):
        other = memory.clone()
        other[0, j] += 1
        changed = (mixer(query, other, view)[0] != before).any(dim=-1)[0]
        assert changed.tolist() == [i != j for i in range(6)]


@pytest.mark.parametrize("config", [T5_1_0, T5_1_1])
def test_a_decoder_knows_the_past_and_its_own_inputs_only(config):
    model = perturbed(EncoderDecoder(config, VOCAB))
    inputs, targets = ids_of(1, 8), ids_of(1, 7)
    input_segments, _ = packed([5, 3])
    target_segments, _ = packed([4, 3])
    before = model(inputs, input_segments, targets, target_segments)
    for j in range(7):
        other = targets.clone()
        other[0, j] += 1
        after = model(inputs, input_segments, other, target_segments)
        changed = (after != before).any(dim=-1)[0].tolist()
        same = target_segments[0] == target_segments[0, j]
        assert changed == [i >= j and bool(same[i]) for i in range(7)]
    for j in range(8):
        other = inputs.clone()
        other[0, j] += 1
        after = model(other, input_segments, targets, target_segments)
        changed = (after != before).any(dim=-1)[0]
        assert torch.equal(changed, target_segments[0] == input_segments[0, j])


@pytest.mark.parametrize("config", [T5_1_0, T5_1_1])
def test_padding_changes_no_bit_of_a_t5_row(config):
    model = perturbed(EncoderDecoder(config, VOCAB))
    inputs, targets = ids_of(2, 8), ids_of(2, 6)
    real = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    before = model(inputs, real, targets, torch.ones_like(targets))
    inputs[1, 5:] = 7
    assert torch.equal(model(inputs, real, targets, torch.ones_like(targets)), before)
    assert before.isfinite().all()


def test_the_head_is_computed_for_scored_positions_only():
    model = perturbed(MaskedLanguageModel(BERT, VOCAB)).double()
    ids, (segments, positions) = ids_of(1, 10), packed([10])
    every = model(ids, segments, positions, positions)
    some = model(ids, segments, positions, torch.tensor([[8, 0, 3]]))
    assert some.shape == (1, 3, 128)
    assert (some[0] - every[0, [8, 0, 3]]).abs().max() < 1e-14


def test_a_row_of_padding_alone_gives_finite_logits_and_gradients():
    model = perturbed(MaskedLanguageModel(BERT, VOCAB)).train()
    ids, positions = ids_of(2, 6), torch.arange(6).expand(2, 6)
    segments = torch.tensor([[1] * 6, [0] * 6])
    logits = model(ids, segments, positions, positions)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.encoder.layers.parameters())


def test_a_tied_head_is_an_untied_one_with_scaled_embeddings():
    tied = perturbed(EncoderDecoder(T5_1_0, VOCAB)).double()
    hidden = torch.randn(3, 24, dtype=torch.float64)
    expected = hidden @ (tied.words.weight * 24**-0.5).T
    assert (tied.logits(hidden) - expected).abs().max() < 1e-14
    assert tied.head.weight is tied.words.weight
    untied = EncoderDecoder(T5_1_1, VOCAB)
    assert untied.head.weight is not untied.words.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_float32_whatever_the_network_computes_in(dtype):
    ids, (segments, positions) = ids_of(1, 6), packed([6])
    bert = MaskedLanguageModel(BERT, VOCAB).to(dtype)
    assert bert(ids, segments, positions, positions).dtype == torch.float32
    classifier = SequenceClassifier(BERT, VOCAB, 4).to(dtype)
    assert classifier(ids, segments, positions).dtype == torch.float32
    assert EncoderDecoder(T5_1_0, VOCAB).to(dtype)(ids, segments, ids, segments).dtype == (
        torch.float32
    )


def test_dropout_acts_in_training_only():
    ids, (segments, positions) = ids_of(1, 10), packed([10])
    for network in (MaskedLanguageModel(BERT, VOCAB), EncoderDecoder(T5_1_0, VOCAB)):
        more = (
            (positions, positions) if isinstance(network, MaskedLanguageModel) else (ids, segments)
        )
        calls = [network(ids, segments, *more) for _ in range(2)]
        assert not torch.equal(*calls)
        network.eval()
        assert torch.equal(*[network(ids, segments, *more) for _ in range(2)])


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        # t5-small and t5-v1.1-small: 60.5 M and 77.0 M
        ({"num_layers": 6, "hidden_size": 512, "num_heads": 8, "ffn_size": 2048}, 60_506_624),
        (
            {
                "num_layers": 8,
                "hidden_size": 512,
                "num_heads": 6,
                "ffn_size": 1024,
                "feed_forward": "geglu",
                "tied_head": False,
            },
            76_961_152,
        ),
    ],
)
def test_t5_has_the_published_number_of_parameters(shape, parameters):
    with torch.device("meta"):
        assert count(EncoderDecoder(EncoderDecoderConfig(**shape), 32100)) == parameters


def test_bert_base_has_the_published_number_of_parameters():
    shape = EncoderConfig(num_layers=12, hidden_size=768, num_heads=12, ffn_size=3072)
    with torch.device("meta"):
        encoder = Encoder(shape, 30522)
        model = MaskedLanguageModel(shape, 30522)
        classifier = SequenceClassifier(shape, 30522, 2)
    six_rows_of_padding = 6 * 768  # 30522 words are stored as 30528
    assert count(encoder) + 768 * 768 + 768 == 109_482_240 + six_rows_of_padding  # with pooler
    assert count(model) == 109_514_298 + six_rows_of_padding + 6
    assert count(classifier) == 109_483_778 + six_rows_of_padding


def test_t5_begins_with_queries_too_small_to_need_a_divisor():
    torch.manual_seed(0)
    shape = EncoderDecoderConfig(num_layers=1, hidden_size=256, num_heads=4, ffn_size=512)
    model = EncoderDecoder(shape, 1000)
    block = model.decoder.layers[0]
    for mixer in (block.mixer, block.cross_mixer):
        assert abs(mixer.query.weight.std().item() * (256 * 64) ** 0.5 - 1) < 0.02
        assert abs(mixer.key.weight.std().item() * 256**0.5 - 1) < 0.02
        assert abs(mixer.output.weight.std().item() * (4 * 64) ** 0.5 - 1) < 0.02
    assert abs(block.feed_forward.down.weight.std().item() * 512**0.5 - 1) < 0.02
    assert abs(model.words.weight.std().item() - 1) < 0.02


def test_shapes_that_cannot_work_are_refused_with_alternatives():
    shape = {"num_layers": 2, "hidden_size": 32, "num_heads": 5, "ffn_size": 64}
    with pytest.raises(ConfigError, match=r"multiple of num_heads 5; give head_size, or use"):
        build_from(EncoderConfig, shape)
    assert build_from(EncoderConfig, {**shape, "head_size": 8}).core().heads.head_size == 8
    with pytest.raises(ConfigError, match="max_distance 16 leaves nothing"):
        build_from(EncoderDecoderConfig, {**shape, "max_distance": 16})
    with pytest.raises(ConfigError, match=r"mixer.type: got \"softmx\"; allowed: softmax"):
        build_from(EncoderConfig, {**shape, "head_size": 8, "mixer": {"type": "softmx"}})


def test_a_mixer_is_refused_for_each_thing_it_cannot_do():
    class Plain(Mixer):
        honours = EVERY_KIND - {"except_self"}
        takes_bias = takes_segments = takes_cross = takes_rotary = takes_window = False

    some = Needs(kinds=frozenset({"all", "causal"}), segments=False)
    assert refusals(Plain, some) == []
    every = Needs(kinds=EVERY_KIND, bias=True, segments=True, cross=True, rotary=True, window=True)
    assert refusals(Plain, every) == [
        "cannot honour 'except_self' visibility",
        "has no place for a position bias on scores",
        "cannot keep padding and packed documents apart",
        "cannot attend from one sequence to another",
        "has no queries and keys that rotary positions turn",
        "cannot be limited to a window",
    ]


def test_blocks_compile_in_one_piece():
    encoder = perturbed(Encoder(BERT, VOCAB))
    ids, (segments, positions) = ids_of(1, 10), packed([6, 4])
    before = encoder(ids, segments, positions)
    for layer in encoder.layers:
        layer.compile(backend="eager", fullgraph=True)
    assert torch.equal(encoder(ids, segments, positions), before)


def test_autocast_to_bfloat16_stays_near_float32():
    ids, (segments, _) = ids_of(1, 10), packed([6, 4])
    model = perturbed(EncoderDecoder(T5_1_0, VOCAB))
    exact = model(ids, segments, ids, segments)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(ids, segments, ids, segments)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05 * exact.abs().max()
