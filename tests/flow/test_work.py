"""What a stage is given to work with: units spread by whoever runs it, with figures while they run."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.flow.display import progress_text
from pipeline.flow.progress import read_progress
from pipeline.flow.work import StageWork, Task


def spread(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    presence: Path,
    finished: Callable[[int, Any], None],
    lost: Callable[[Any], Any] | None,
) -> Iterator[Any]:
    """One after the other, a quarter of a second each; an odd item takes its worker down."""
    for done, item in enumerate(items, 1):
        time.sleep(0.26)
        result = lost(item) if lost is not None and item % 2 else function(item)
        finished(done, result)
        yield result


def amounts(result: int) -> dict[str, float]:
    """What one result adds."""
    return {"pages": 100 * abs(result), "megabytes": 2.0}


def test_units_are_counted_and_their_amounts_shown_for_each_second(tmp_path: Path) -> None:
    task = Task("t", None, "", {}, {}, {}, tmp_path, tmp_path / "presence", 1, 1)
    work = StageWork(task, spread)
    done = list(work.map(abs, [4, 3, 2], unit="units", amounts=amounts, lost=lambda item: -item))
    assert done == [4, -3, 2]
    progress = read_progress(tmp_path)
    assert progress is not None
    assert (progress.done, progress.total, progress.unit) == (2, 3, "units")
    pages, megabytes = (
        progress.figures["pages_per_second"],
        progress.figures["megabytes_per_second"],
    )
    assert 0 < pages <= 700 / 0.52
    assert abs(pages / megabytes - 700 / 4) < 1e-6
    assert " megabytes/s, " in progress_text(progress)
    assert progress_text(progress).endswith(" left")
