"""What a job is given of the machine."""

import pytest

from launch.job import Machine
from launch.local import LocalLaunch


@pytest.mark.parametrize(
    ("asked", "gpus", "ranks"),
    [(2, 0, 2), (2, 1, 1), (2, 2, 2), (2, 8, 2), (4, 3, 2), (6, 4, 3), (5, 4, 1), (1, 1, 1)],
)
def test_a_gpu_serves_one_process_and_batches_still_share_out(
    asked: int, gpus: int, ranks: int
) -> None:
    assert LocalLaunch(processes=asked).ranks(Machine(8, gpus)) == ranks
