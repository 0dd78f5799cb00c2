"""Progress files, and what is shown of them."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.flow.display import LiveDisplay, PlainDisplay, display_for, progress_text
from pipeline.flow.progress import PROGRESS, Progress, ProgressFile, duration, read_progress


def test_progress_is_written_at_most_twice_a_second(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path)
    file.update(1, 10, "files", loss=2.0)
    first = (tmp_path / PROGRESS).read_text()
    file.update(2, 10, "files")
    assert (tmp_path / PROGRESS).read_text() == first
    time.sleep(0.51)
    file.update(3, 10, "files")
    progress = read_progress(tmp_path)
    assert progress is not None
    assert (progress.done, progress.began, progress.total) == (3, 1, 10)


def test_pace_begins_anew_with_other_units(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path)
    file.update(5, 10, "files read")
    time.sleep(0.51)
    before = time.time()
    file.update(0, 4, "partitions compared")
    progress = read_progress(tmp_path)
    assert progress is not None
    assert (progress.began, progress.total) == (0, 4)
    assert progress.started >= before


def test_no_or_torn_progress_is_none(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    (tmp_path / PROGRESS).write_text('{"done": 3')
    assert read_progress(tmp_path) is None
    (tmp_path / PROGRESS).write_text('{"other": 3}')
    assert read_progress(tmp_path) is None


def test_pace_counts_only_this_attempt() -> None:
    progress = Progress(60, 100, "steps", started=10.0, began=50, written=15.0)
    assert progress.per_second == 2.0
    assert progress.seconds_left == 20.0
    assert Progress(50, 100, "steps", started=10.0, began=50, written=15.0).seconds_left is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (8.26, "8.3 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_as_text() -> None:
    figures = {"loss": 5.3125, "tokens_per_second": 12345.6}
    progress = Progress(300, 500, "steps", figures, started=0.0, began=0, written=30.0)
    assert progress_text(progress) == "300/500 steps, loss 5.312, 12,346 tokens/s, 20 s left"


def test_plain_lines_come_at_most_once_a_second() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream)
    with display:
        display.event("a", "running", "")
        for name in ("b", "c"):
            display.event(name, "skipped", "needs a")
        display.event("d", "failed", "ValueError: no (log: x)", 2.0)
        display.show({"a": Progress(1, 2, "files")})
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert lines == [
        "a: started",
        "b, c: skipped (needs a) | d: failed after 2.0 s: ValueError: no (log: x)",
    ]


def test_progress_is_told_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream)
    now = time.monotonic()
    for second in range(60):
        monkeypatch.setattr(time, "monotonic", lambda at=now + second: at)
        display.show({"a": Progress(second, 60, "files"), "b": None})
    lines = stream.getvalue().splitlines()
    assert 4 <= len(lines) <= 6
    assert all("a: " in line and "/60 files" in line for line in lines)


def test_the_table_shows_every_stage() -> None:
    screen = io.StringIO()
    display = LiveDisplay(["a", "b", "c"], ["a"], Console(file=screen, width=100))
    with display:
        display.event("b", "running", "")
        display.show({"b": Progress(1, 4, "steps", {"loss": 2.5})})
        display.event("c", "failed", "DataError: no text")
        display.show({})
    shown = screen.getvalue()
    assert "c failed: DataError: no text" in shown
    assert [line.split()[:2] for line in shown.splitlines()[-3:]] == [
        ["a", "done"],
        ["b", "running"],
        ["c", "failed"],
    ]


def test_no_terminal_no_table() -> None:
    assert isinstance(display_for(["a"], [], io.StringIO()), PlainDisplay)
