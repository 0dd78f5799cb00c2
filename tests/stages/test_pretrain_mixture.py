"""A pretraining stage with a mixture reads the rows that the mixture says."""

import numpy as np
from small_world import SHAPE, TRAIN, make_world

from pipeline.config import as_dict, build_from
from pipeline.data.mixture import MixedOrder, Shares
from pipeline.data.shards import TokenRows
from pipeline.stages.pretrain import Pretrain


def test_the_mixture_is_the_order_of_the_job(tmp_path):
    inputs = make_world(tmp_path)
    plain = {
        "kind": "pretrain",
        "tokens": "tokens",
        "model": as_dict(SHAPE),
        "objective": {"type": "mlm"},
        "steps": 2,
        "train": TRAIN,
    }
    mixture = {"type": "shares", "shares": {"world": 1}, "cycle": 4}
    assert build_from(Pretrain, plain).trainable(inputs).order is None
    stage = build_from(Pretrain, {**plain, "mixture": mixture})
    rows = TokenRows(inputs["tokens"], "train")
    expected = MixedOrder(
        Shares(shares={"world": 1}, cycle=4), rows.sources(), seed=stage.train.seed
    )
    positions = np.arange(20)
    found = stage.trainable(inputs).order
    assert found.at(positions)[1].tolist() == expected.at(positions)[1].tolist()
