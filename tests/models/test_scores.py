"""The fused mean by scores against its definition."""

import pytest
import torch

from pipeline.data.example import Visibility
from pipeline.models.attention import View, softmax_seen
from pipeline.models.scores import mean_by_scores

SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])


@pytest.mark.parametrize("kind", ["all", "causal", "except_self"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("biased", ["bias", "no bias"])
def test_means_and_gradients_are_those_of_the_definition(kind, batch, biased):
    torch.manual_seed(0)
    shapes = ((batch, 3, 6, 6), (2, 3, 6, 4), (1, 3, 6, 6))
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    scores, value, bias = inputs
    if biased == "no bias":
        inputs = inputs[:2]
    for segments in (SEGMENTS, None):
        visible = Visibility(kind, segments, segments)
        view = View(visible, 6, 6, torch.device("cpu"), bias if biased == "bias" else None)
        fast = mean_by_scores(scores, value, view)
        slow = softmax_seen(scores, view) @ value
        results = [[out, *torch.autograd.grad(out.sin().sum(), inputs)] for out in (fast, slow)]
        for one, other in zip(*results, strict=True):
            assert (one - other).abs().max() < 1e-14
        if segments is not None:
            assert (fast[0, :, 5] == 0).all()


def test_dropout_falls_on_weights():
    view = View(Visibility(), 40, 40, torch.device("cpu"))
    torch.manual_seed(0)
    out = mean_by_scores(torch.zeros(1, 1, 40, 40), torch.ones(3, 1, 40, 1), view, dropout=0.5)
    kept = out * 20  # of 40 equal weights, each doubled where kept
    assert torch.equal(kept.round(), kept.double().round().float())
    assert kept.unique().numel() > 5
    assert abs(out.mean() - 1) < 0.1
