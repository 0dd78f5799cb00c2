"""Rows grow to their full length by the number of the step alone, and are the beginnings of what they will be."""

import numpy as np
import pytest

from pipeline.data.curriculum import STAIR, Curriculum, CutRows
from pipeline.data.example import Row


@pytest.mark.parametrize(
    ("first", "steps", "row_length"), [(8, 7, 126), (64, 1000, 510), (9, 1, 10)]
)
def test_lengths_rise_in_a_straight_line_of_whole_stairs(first, steps, row_length):
    lengths = [
        Curriculum(first_tokens=first, steps=steps).length(s, row_length) for s in range(steps + 3)
    ]
    assert lengths[0] == max(row_length - -(-(row_length - first) // STAIR) * STAIR, first)
    assert lengths[steps:] == [row_length] * 3
    assert lengths == sorted(lengths)
    for step, length in enumerate(lengths):
        line = first + (row_length - first) * min(step / steps, 1.0)
        assert line - STAIR < length <= line or length == first
        assert length == first or (row_length - length) % STAIR == 0


def test_a_cut_row_is_the_beginning_of_the_whole_one():
    class One:
        row_of = Row(np.arange(10), np.array([3, 4, 3]))

        def __len__(self):
            return 1

        def row(self, _index):
            return self.row_of

    for length in range(1, 11):
        row = CutRows(One(), length).row(0)
        assert row.ids.tolist() == list(range(length))
        assert row.segments().tolist() == One.row_of.segments()[:length].tolist()
        assert (row.lengths > 0).all()


def test_a_curriculum_that_cuts_nothing_is_refused():
    assert Curriculum(first_tokens=8, steps=2).why_not(9) == ""
    assert "are not fewer than the 8" in Curriculum(first_tokens=8, steps=2).why_not(8)
