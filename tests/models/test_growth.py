"""Growing texts: what is remembered gives what the whole text gives, for every core and mixer."""

import pytest
import torch

from pipeline.config import ConfigError, DataError, build_from
from pipeline.data.example import Visibility
from pipeline.models.decoder import DecoderConfig, LanguageModel
from pipeline.models.decoding import Marks
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.growth import growing
from pipeline.models.heads import MaskedLanguageModel, SequenceClassifier
from pipeline.models.mixers import MIXERS
from pipeline.models.tta import LanguageAutoencoder, TtaConfig

VOCAB = 40
SHAPE = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_heads": 2,
    "head_size": 8,
    "ffn_size": 24,
    "max_length": 14,
}
CORES = {
    "causal": (DecoderConfig, {"visibility": "causal"}),
    "prefix": (DecoderConfig, {"visibility": "prefix"}),
    "target": (EncoderDecoderConfig, {}),
    "cloze prefix": (EncoderConfig, {"token_types": 6}),
    "cloze causal": (EncoderConfig, {"token_types": 6}),
}
NETWORKS = {
    DecoderConfig: LanguageModel,
    EncoderDecoderConfig: EncoderDecoder,
    EncoderConfig: MaskedLanguageModel,
    TtaConfig: LanguageAutoencoder,
}
NAMES = [config().type for config in MIXERS]
POSITIONS = ("learned", "sinusoidal", "rotary", "alibi", "relative", "none")
MARKS = Marks(start=3, end=1, mask=5)
PROMPTS = [[7, 9, 8, 30, 11], [12, 13], [20, 21, 22, 23]]


def made(core, **fields):
    torch.manual_seed(1)
    cls, own = CORES[core]
    try:
        config = build_from(cls, {**SHAPE, **own, **fields})
    except ConfigError:
        pytest.skip("refused when a configuration is loaded")
    network = NETWORKS[cls](config, VOCAB)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.double().eval()


def started(core, network, prompts=PROMPTS, new=6):
    kind = core.split()[-1] if core.startswith("cloze") else "prefix"
    return growing(network, prompts, MARKS, new, kind)


def logits_without_memory(core, network, prompt, new):
    """Logits of the token after `prompt` and `new`, of one text alone and all of it anew."""
    text = [*prompt, *new]

    def row(ids):
        return torch.tensor([ids])

    ones, places = torch.ones(1, len(text), dtype=torch.long), torch.arange(len(text))[None]
    if core == "target":
        given = [MARKS.start, *new]
        whole = network(
            row(prompt), torch.ones_like(row(prompt)), row(given), torch.ones_like(row(given))
        )
    elif core.startswith("cloze"):
        kind = core.split()[1]
        types = {
            "prefix": [4] * len(prompt) + [5] * (len(new) + 1),
            "causal": [2] * (len(text) + 1),
        }
        ones, places = torch.ones(1, len(text) + 1).long(), torch.arange(len(text) + 1)[None]
        prefix = torch.tensor([len(prompt)]) if kind == "prefix" else None
        seen = Visibility(kind, ones, ones, prefix)
        scored = torch.tensor([[len(text)]])
        whole = network(row([*text, MARKS.mask]), ones, places, scored, seen, row(types[kind]))
    else:
        prefix = torch.tensor([len(prompt)]) if core == "prefix" else None
        whole = network(row(text), ones, places, prefix)
    return whole[0, -1, :VOCAB]


def assert_every_step_agrees(core, network):
    """Prompts of different lengths together; rows are taken twice and left out on the way."""
    growth = started(core, network)
    texts = [(prompt, []) for prompt in PROMPTS]
    logits = growth.begin()
    orders = {2: [2, 0, 0, 1], 3: [1], 4: [0, 0]}
    for step in range(6):
        for (prompt, new), found in zip(texts, logits, strict=True):
            whole = logits_without_memory(core, network, prompt, new)
            assert (found - whole).abs().max() < 1e-12, (step, prompt, new)
            assert found.argmax() == whole.argmax()
        if step in orders:
            texts = [(texts[n][0], list(texts[n][1])) for n in orders[step]]
            growth.select(torch.tensor(orders[step]))
        newest = [(7 * step + 5 * row + 6) % VOCAB for row in range(len(texts))]
        for (_, new), token in zip(texts, newest, strict=True):
            new.append(token)
        logits = growth.extend(torch.tensor(newest))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("name", NAMES)
def test_every_step_has_the_logits_of_the_text_computed_anew(core, name):
    cross = {"cross_mixer": name} if core == "target" else {}
    assert_every_step_agrees(core, made(core, mixer=name, positions="none", **cross))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("positions", POSITIONS)
def test_so_it_does_whatever_the_positions(core, positions):
    assert_every_step_agrees(core, made(core, positions=positions))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(
    "mixer",
    [
        {"type": "linear", "kernel": "double_softmax"},
        {"type": "linear", "kernel": "cosine"},
        {"type": "performer", "features": "hyperbolic"},
        {"type": "residual", "form": "concatenated", "total": "mean"},
        {"type": "softmax", "num_kv_heads": 1},
        {"type": "synthesizer", "parts": ["dense", "dot_product", "factorised_random"]},
        {"type": "synthesizer", "parts": ["dense_shared", "factorised_dense", "fixed_random"]},
    ],
    ids=lambda mixer: " ".join(map(str, list(mixer.values())[:2])),
)
def test_so_it_does_for_other_forms_of_mixers(core, mixer):
    assert_every_step_agrees(core, made(core, mixer=mixer, positions="learned"))


@pytest.mark.parametrize("core", ["causal", "prefix", "target", "cloze prefix"])
def test_so_it_does_through_windows_and_mixed_layers(core):
    assert_every_step_agrees(core, made(core, window=2, global_every=2, positions="relative"))
    assert_every_step_agrees(
        core, made(core, mixers=["performer", "residual"], positions="learned")
    )


def test_one_text_becomes_several():
    for core in CORES:
        network = made(core)
        growth = started(core, network, PROMPTS[:1])
        growth.begin()
        growth.select(torch.tensor([0, 0, 0]))
        growth.extend(torch.tensor([6, 7, 8]))
        growth.select(torch.tensor([2, 1]))
        found = growth.extend(torch.tensor([9, 10]))
        for logits, new in zip(found, ([8, 9], [7, 10]), strict=True):
            whole = logits_without_memory(core, network, PROMPTS[0], new)
            assert (logits - whole).abs().max() < 1e-12


def test_what_cannot_generate_is_refused_in_words():
    shape = {**SHAPE, "num_layers": 1}
    encoder = build_from(EncoderConfig, shape)
    for network, words in (
        (MaskedLanguageModel(encoder, VOCAB), "token_types 2 has no objective with causal"),
        (LanguageAutoencoder(build_from(TtaConfig, shape), VOCAB), "T-TA predicts every token"),
        (SequenceClassifier(encoder, VOCAB, 2), "no head that names tokens"),
    ):
        with pytest.raises(ConfigError, match=words):
            growing(network.eval(), PROMPTS, MARKS, 4)


@pytest.mark.parametrize(
    ("core", "fields", "most"),
    [
        ("causal", {"mixer": "synthesizer", "positions": "none"}, 10),
        ("causal", {"positions": "learned"}, 10),
        ("cloze prefix", {"positions": "learned"}, 9),
        ("target", {"mixer": "synthesizer"}, 14),
        ("target", {"positions": "learned"}, 14),
    ],
)
def test_tables_of_places_bound_what_is_generated(core, fields, most):
    network = made(core, **fields)
    growth = started(core, network, new=most)
    logits = growth.begin()
    for _ in range(most - 1):
        logits = growth.extend(logits.argmax(dim=-1))
    assert logits.isfinite().all()
    with pytest.raises(DataError, match="max_length 14"):
        started(core, network, new=most + 1)


def test_relative_positions_set_no_bound():
    network = made("causal", positions="rotary")
    assert started("causal", network, new=1000).begin().shape == (3, VOCAB)


@pytest.mark.parametrize(
    ("prompts", "words"), [([[7], []], "prompt 1 has no token"), ([[7, 40]], "the id 40")]
)
def test_prompts_that_cannot_be_are_refused(prompts, words):
    with pytest.raises(DataError, match=words):
        started("causal", made("causal"), prompts)
