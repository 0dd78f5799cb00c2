"""Distillation: every term by hand, a teacher that is left alone, and sums that do not know of batches."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.compress.distill import Distillation
from pipeline.compress.matching import Pass, Softened, layer_pairs
from pipeline.compress.methods import (
    DistilBertConfig,
    LogitsConfig,
    MiniLmConfig,
    PkdConfig,
    TinyBertConfig,
)
from pipeline.compress.shallow import truncated
from pipeline.compress.walk import walked
from pipeline.models.decoder import DecoderConfig, LanguageModel
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.heads import MaskedLanguageModel, ReplacedTokenDetector, SequenceClassifier
from pipeline.models.mixers.residual import ResidualConfig
from pipeline.models.transformer import recompute

WIDTHS = {"num_layers": 4, "hidden_size": 16, "num_heads": 2, "ffn_size": 32, "dropout": 0.0}
ENCODER = EncoderConfig(**WIDTHS, max_length=12, initial_std=0.3)
NARROW = EncoderConfig(
    **{**WIDTHS, "num_layers": 2, "hidden_size": 12}, max_length=12, initial_std=0.3
)
T5 = EncoderDecoderConfig(**WIDTHS, head_size=8)
METHODS = (
    LogitsConfig(temperature=3.0, mixing=0.4),
    DistilBertConfig(),
    PkdConfig(),
    TinyBertConfig(labels_weight=0.5),
    MiniLmConfig(relations=("query", "key", "value", "attention"), labels_weight=0.5),
)
VOCAB, LABELS, ROWS, LENGTH = 60, 3, 4, 10


def framed(rng):
    segments = np.ones((ROWS, LENGTH), dtype=np.int64)
    segments[1, 6:] = 0
    segments[2, 5:] = 2
    positions = np.tile(np.arange(LENGTH), (ROWS, 1))
    positions[2, 5:] -= 5
    return {
        "input_ids": rng.integers(6, VOCAB, size=(ROWS, LENGTH)),
        "segment_ids": segments,
        "position_ids": positions,
    }


def batch_for(kind):
    rng = np.random.default_rng(3)
    places = {
        "scored_positions": np.tile([1, 3], (ROWS, 1)),
        "labels": rng.integers(6, VOCAB, size=(ROWS, 2)),
    }
    places["labels"][0, 1] = -1
    if kind is EncoderDecoder:
        segments = np.ones((ROWS, LENGTH), dtype=np.int64)
        segments[1, 6:] = 0
        labels = rng.integers(6, VOCAB, size=(ROWS, 5))
        labels[3, 3:] = -1
        return {
            "input_ids": rng.integers(6, VOCAB, size=(ROWS, LENGTH)),
            "input_segments": segments,
            "decoder_input_ids": rng.integers(6, VOCAB, size=(ROWS, 5)),
            "decoder_segments": (labels >= 0).astype(np.int64),
            "labels": labels,
        }
    frame = framed(rng)
    if kind is SequenceClassifier:
        return {**frame, "label": rng.integers(LABELS, size=ROWS)}
    if kind is LanguageModel:
        return {**frame, "labels": np.where(frame["segment_ids"] > 0, frame["input_ids"], -1)}
    if kind is ReplacedTokenDetector:
        places["uniforms"] = rng.random((ROWS, 2), dtype=np.float32)
    return {**frame, **places}


def network_of(kind, shape, seed):
    torch.manual_seed(seed)
    labels = (LABELS,) if kind is SequenceClassifier else ()
    return kind(shape, VOCAB, *labels).double()


SHAPES = {
    SequenceClassifier: ENCODER,
    MaskedLanguageModel: ENCODER,
    ReplacedTokenDetector: ENCODER,
    LanguageModel: DecoderConfig(**WIDTHS, max_length=12),
    EncoderDecoder: T5,
}


def tensors(batch):
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def distillation(kind, method, *, same=False, shape=None):
    teacher = network_of(kind, SHAPES[kind], 1)
    student = copy.deepcopy(teacher) if same else network_of(kind, shape or SHAPES[kind], 2)
    return Distillation(student, teacher, method, teacher_shape=teacher.config).double()


def taught(kind):
    return [m for m in METHODS if not (m.type == "pkd" and kind in (LanguageModel, EncoderDecoder))]


CASES = [(kind, method) for kind in SHAPES for method in taught(kind)]


def name_of(value):
    return getattr(value, "type", getattr(value, "__name__", str(value)))


@pytest.mark.parametrize(("kind", "method"), CASES, ids=name_of)
def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(kind, method):
    objective, batch = distillation(kind, method, same=True).train(), batch_for(kind)
    sums, counts = objective(tensors(batch)), objective.counts(batch)
    assert set(sums) == set(counts) - {"tokens"}
    for name in objective.weights:
        if name != objective.term:
            assert abs(sums[name].item()) < 1e-12, name
    assert sums["agreement"].item() == counts["agreement"]
    assert sums[objective.term].item() > 1.0


@pytest.mark.parametrize(("kind", "method"), CASES, ids=name_of)
def test_every_weight_of_the_student_has_a_gradient_and_none_of_the_teacher(kind, method):
    objective, batch = distillation(kind, method).train(), tensors(batch_for(kind))
    assert not any(part.training for part in objective.teacher.modules())
    assert objective.student.training
    sums = objective(batch)
    sum(weight * sums[name] for name, weight in objective.weights.items()).backward()
    for name, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == (not name.startswith("teacher.")), name
    assert all(sums[name].item() > 0.0 for name in objective.weights)


@pytest.mark.parametrize(("kind", "method"), CASES, ids=name_of)
def test_sums_and_counts_of_rows_add_up(kind, method):
    objective, batch = distillation(kind, method).eval(), batch_for(kind)
    whole, counted = objective(tensors(batch)), objective.counts(batch)
    parts = [{n: v[row : row + 1] for n, v in batch.items()} for row in range(ROWS)]
    sums = [objective(tensors(part)) for part in parts]
    counts = [objective.counts(part) for part in parts]
    for name, value in whole.items():
        rounding = 1e-6 if name == objective.term else 1e-10  # float32, and float64
        assert sum(s[name].item() for s in sums) == pytest.approx(value.item(), rel=rounding), name
    for name, count in counted.items():
        assert sum(c[name] for c in counts) == count, name


def test_softened_answers_by_hand():
    own, other = torch.tensor([[1.0, 3.0]]).double(), torch.tensor([[2.0, 0.0]]).double()
    label = torch.tensor([0])
    found = Softened(2.0)(Pass(own, label), Pass(other, label)).item()
    p = math.exp(1.0) / (math.exp(1.0) + 1.0)
    q = math.exp(0.5) / (math.exp(0.5) + math.exp(1.5))
    expected = 4.0 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert found == pytest.approx(expected, rel=1e-14)
    ignored = Softened(2.0)(Pass(own, torch.tensor([-1])), Pass(other, torch.tensor([-1])))
    assert ignored.item() == 0.0
    number = torch.tensor([5.0]).double()
    apart = Softened(2.0)(Pass(own[:, :1], number), Pass(other[:, :1], number))
    assert apart.item() == 1.0


def passes_of(objective, batch):
    found = []
    for network in (objective.student, objective.teacher):
        with walked(network) as walks, torch.no_grad():
            network(*(batch[n] for n in ("input_ids", "segment_ids", "position_ids")))
        found.append(walks["encoder"])
    return found


def test_terms_of_states_are_their_formulas():
    batch = tensors(batch_for(SequenceClassifier))
    real = batch["segment_ids"] > 0
    objective = distillation(SequenceClassifier, DistilBertConfig())
    own, other = passes_of(objective, batch)
    one, two = own.states[-1][real], other.states[-1][real]
    cosine = (1 - (one * two).sum(-1) / one.norm(dim=-1) / two.norm(dim=-1)).sum()
    assert objective(batch)["cosine"].item() == pytest.approx(cosine.item(), rel=1e-12)

    objective = distillation(SequenceClassifier, PkdConfig(layers="last"))
    expected = 0.0
    for layer in range(3):
        one, two = own.states[layer][:, 0], other.states[layer][:, 0]
        apart = functional.normalize(one, dim=-1) - functional.normalize(two, dim=-1)
        expected += apart.square().sum().item() / (3 * 16)
    assert objective(batch)["patience"].item() == pytest.approx(expected, rel=1e-12)

    objective = distillation(SequenceClassifier, TinyBertConfig(), shape=NARROW)
    own, other = passes_of(objective, batch)
    hidden = next(match for match in objective.matches if match.name == "hidden")
    expected = 0.0
    for lower, upper in ((0, 1), (1, 3)):
        projected = own.states[lower] @ hidden.project.weight.T
        expected += (projected - other.states[upper])[real].square().mean(-1).sum().item()
    sums = objective(batch)
    assert sums["hidden"].item() == pytest.approx(expected, rel=1e-12)
    embedded = next(match for match in objective.matches if match.name == "embeddings")
    apart = (own.embedded @ embedded.project.weight.T - other.embedded)[real]
    assert sums["embeddings"].item() == pytest.approx(apart.square().mean(-1).sum().item())


def seen_in(segments):
    return (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] > 0)


def test_terms_of_attention_are_their_formulas():
    batch = tensors(batch_for(SequenceClassifier))
    seen, real = seen_in(batch["segment_ids"]), batch["segment_ids"] > 0
    objective = distillation(SequenceClassifier, TinyBertConfig(), shape=NARROW)
    own, other = passes_of(objective, batch)
    expected = 0.0
    for lower, upper in ((0, 1), (1, 3)):
        scores = []
        for walk, layer in ((own, lower), (other, upper)):
            query, key = (
                walk.projected[n][layer].unflatten(-1, (2, -1)).transpose(1, 2)
                for n in ("query", "key")
            )
            scores.append(query @ key.mT / math.sqrt(query.shape[-1]))
        apart = (scores[0] - scores[1]).square() * seen[:, None]
        mean = (apart.sum(-1) / seen.sum(-1).clamp(min=1)[:, None]).mean(1)
        expected += mean[real].sum().item()
    assert objective(batch)["attention"].item() == pytest.approx(expected, rel=1e-12)

    method = MiniLmConfig(relations=("value",), relation_heads=4, teacher_layer=3)
    objective = distillation(SequenceClassifier, method, shape=NARROW)
    expected = 0.0
    related = []
    for walk, layer in ((own, 1), (other, 2)):
        value = walk.projected["value"][layer].unflatten(-1, (4, -1)).transpose(1, 2)
        scores = value @ value.mT / math.sqrt(value.shape[-1])
        related.append(scores.masked_fill(~seen[:, None], -1e300).softmax(-1))
    s, t = related
    lost = torch.where(seen[:, None], t * (t / s).log(), 0.0).sum(-1).mean(1)
    expected = lost[real].sum().item()
    assert objective(batch)["relations"].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("total", ["sum", "mean"])
def test_scores_of_residual_attention_are_those_it_uses_in_either_form(total):
    batch = tensors(batch_for(SequenceClassifier))
    found = []
    for form in ("scores", "concatenated"):
        mixer = ResidualConfig(total=total, form=form)
        shape = EncoderConfig(**WIDTHS, max_length=12, initial_std=0.3, mixer=mixer)
        network = network_of(SequenceClassifier, shape, 1)
        with walked(network) as walks, torch.no_grad():
            network(*(batch[n] for n in ("input_ids", "segment_ids", "position_ids")))
        walk = walks["encoder"]
        found.append([walk.scores(layer) for layer in range(4)])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    query, key = (
        walk.projected[n][3].unflatten(-1, (2, -1)).transpose(1, 2) for n in ("query", "key")
    )
    own = query @ key.mT / math.sqrt(8)
    expected = own + found[0][2] * (3 if total == "mean" else 1)
    torch.testing.assert_close(found[0][3] * (4 if total == "mean" else 1), expected)


def test_recomputed_activations_give_the_same_gradients():
    batch = tensors(batch_for(EncoderDecoder))
    grads = []
    for group in (None, 2):
        objective = distillation(EncoderDecoder, TinyBertConfig()).train()
        recompute(objective, group)
        sums = objective(batch)
        sum(sums[name] for name in objective.weights).backward()
        grads.append([p.grad for p in objective.parameters() if p.requires_grad])
    assert all(torch.equal(one, two) for one, two in zip(*grads, strict=True))


def test_hooks_are_gone_after_the_pass():
    network = network_of(EncoderDecoder, T5, 1)
    with walked(network):
        pass
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_layers_are_paired_as_in_the_papers():
    assert layer_pairs(4, 12) == [(0, 2), (1, 5), (2, 8), (3, 11)]
    assert [upper + 1 for _, upper in layer_pairs(6, 12)[:-1]] == [2, 4, 6, 8, 10]
    assert [upper + 1 for _, upper in layer_pairs(6, 12, "last")[:-1]] == [7, 8, 9, 10, 11]


def test_a_truncated_network_has_the_layers_that_were_picked_and_tensors_of_its_own():
    teacher = network_of(EncoderDecoder, T5, 1)
    small = truncated(teacher, {"encoder": (2, 2), "decoder": (3, 1)}, "alternate")
    assert (small.config.num_layers, small.config.num_decoder_layers) == (2, 2)
    assert small.head.weight is small.words.weight
    for stack, picks in (("encoder", (0, 2)), ("decoder", (0, 3))):
        for layer, pick in enumerate(picks):
            own = small.get_submodule(f"{stack}.layers.{layer}").state_dict()
            other = teacher.get_submodule(f"{stack}.layers.{pick}").state_dict()
            assert all(torch.equal(own[name], other[name]) for name in own)
    shared = {p.data_ptr() for p in teacher.parameters()}
    assert not shared & {p.data_ptr() for p in small.parameters()}


def test_what_cannot_be_compared_is_refused_in_words():
    linear = EncoderConfig(**WIDTHS, max_length=12, mixer={"type": "linear"})
    assert "hidden_size 12 is not" in DistilBertConfig().why_not(NARROW, ENCODER)
    assert "hidden_size 12 is not" in PkdConfig().why_not(NARROW, ENCODER)
    assert "which only encoders have" in PkdConfig().why_not(T5, T5)
    assert "linear layers lack" in TinyBertConfig().why_not(linear, ENCODER)
    assert "heads one by one" in TinyBertConfig().why_not(
        EncoderConfig(**{**WIDTHS, "num_heads": 4}, max_length=12), ENCODER
    )
    assert "do not divide" in MiniLmConfig(relation_heads=5).why_not(NARROW, ENCODER)
    assert "the teacher has 4" in MiniLmConfig(teacher_layer=5).why_not(NARROW, ENCODER)
