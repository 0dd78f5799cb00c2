"""What a run shows: a live table on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.flow.progress import Progress, duration

LINE_SECONDS = 1.0  # plain lines are at least this far apart
REPORT_SECONDS = 10.0  # and progress is told this often
WORDS = {
    "running": "started",
    "done": "done",
    "there": "was there already",
    "failed": "failed",
    "skipped": "skipped",
    "waiting": "waiting",
}
STYLES = {"done": "green", "there": "green", "failed": "bold red", "running": "cyan"}
SHORT = {"there": "done"}


class Display(Protocol):
    """What the loop of a run tells the user; used as a context around the loop."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; what was shown stays."""
        ...

    def event(self, name: str, state: str, message: str, seconds: float | None = None) -> None:
        """A stage came into a new state."""
        ...

    def show(self, progress: Mapping[str, Progress | None]) -> None:
        """Where the running stages are; called several times a second."""
        ...

    def halting(self, running: int) -> None:
        """The user asked to stop while so many stages run."""
        ...


def display_for(names: Sequence[str], done: Sequence[str], stream: TextIO = sys.stdout) -> Display:
    """The display that suits `stream`; `done` are the stages that need not run."""
    if stream.isatty():
        return LiveDisplay(names, done, Console(file=stream))
    return PlainDisplay(stream)


def progress_text(progress: Progress) -> str:
    """`300/5000 steps, loss 5.31, 12,000 tokens/s, 3 min 20 s left`."""
    parts = [f"{progress.done}/{progress.total} {progress.unit}"]
    for name, value in progress.figures.items():
        if name.endswith("_per_second"):
            unit = name.removesuffix("_per_second").replace("_", " ")
            parts.append(f"{value:,.{0 if value >= 10 else 1}f} {unit}/s")
        else:
            parts.append(f"{name.replace('_', ' ')} {value:.4g}")
    left = progress.seconds_left
    if left is not None and progress.done < progress.total:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)


class PlainDisplay:
    """At most one line a second; what comes faster shares a line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._pending: dict[str, list[str]] = {}
        self._written = self._reported = time.monotonic() - LINE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()

    def event(self, name: str, state: str, message: str, seconds: float | None = None) -> None:
        """Note a line, and write it when the last one is old enough."""
        text = WORDS[state] + (f" after {duration(seconds)}" if seconds is not None else "")
        if message:
            text += f": {message}" if state == "failed" else f" ({message})"
        self._pending.setdefault(text, []).append(name)
        self._write_when_due()

    def show(self, progress: Mapping[str, Progress | None]) -> None:
        """Write what is pending; every ten seconds say where the running stages are."""
        now = time.monotonic()
        if now - self._reported > REPORT_SECONDS:
            known = {name: one for name, one in progress.items() if one is not None}
            for name, one in known.items():
                self._pending.setdefault(progress_text(one), []).append(name)
            self._reported = now
        self._write_when_due()

    def halting(self, running: int) -> None:
        """Say that the run is being stopped."""
        self._pending[halting_text(running)] = []
        self._flush()

    def _write_when_due(self) -> None:
        if time.monotonic() - self._written >= LINE_SECONDS:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            told = [
                f"{', '.join(names)}: {text}" if names else text
                for text, names in self._pending.items()
            ]
            self.stream.write(f"{time.strftime('%H:%M:%S')} {' | '.join(told)}\n")
            self.stream.flush()
            self._pending.clear()
            self._written = time.monotonic()


def halting_text(running: int) -> str:
    """What is said at the first Ctrl-C."""
    return (
        f"stopping {running} running stage(s), which will continue next time; again to end at once"
    )


class LiveDisplay:
    """One row a stage: state, bar, step, loss, tokens a second, time left."""

    def __init__(self, names: Sequence[str], done: Sequence[str], console: Console) -> None:
        self._states = {name: "there" if name in done else "" for name in names}
        self._notes = dict.fromkeys(names, "")
        self._progress: Mapping[str, Progress | None] = {}
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress = {}
        self._live.update(self._table(), refresh=True)
        self._live.__exit__(kind, error, trace)

    def event(self, name: str, state: str, message: str, seconds: float | None = None) -> None:
        """Change a row; a failure is also written above the table, where it stays."""
        self._states[name] = state
        self._notes[name] = message.partition("\n")[0] if seconds is None else duration(seconds)
        if state == "failed":
            self._live.console.print(Text(f"{name} failed: {message}", style="red"))

    def show(self, progress: Mapping[str, Progress | None]) -> None:
        """Draw the table again."""
        self._progress = progress
        self._live.update(self._table(), refresh=True)

    def halting(self, running: int) -> None:
        """Say above the table that the run is being stopped."""
        self._live.console.print(Text(halting_text(running), style="yellow"))

    def _table(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, width=8)
        table.add_column(width=20)
        table.add_column(overflow="ellipsis", no_wrap=True)
        for name, state in self._states.items():
            word = Text(SHORT.get(state, state or "-"), style=STYLES.get(state, "dim"))
            table.add_row(Text(name), word, *self._where(name, state))
        return Group(table)

    def _where(self, name: str, state: str) -> tuple[RenderableType, RenderableType]:
        progress = self._progress.get(name)
        if state != "running" or progress is None:
            return Text(""), Text(self._notes[name], style="dim")
        bar = ProgressBar(total=max(progress.total, 1), completed=progress.done, width=20)
        return bar, Text(progress_text(progress))
