"""What `theseum preview` does: choose a stage of a run and rows for it, look, and show what was seen."""

from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from pipeline import files
from pipeline.config import ConfigError, DataError
from pipeline.flow.plan import make_plan
from pipeline.flow.run_file import RunFile
from pipeline.flow.store import Store
from pipeline.preview.look import Look, look_at
from pipeline.preview.picture import svg_of
from pipeline.preview.rows import Rows, rows_of_own, rows_of_tokens
from pipeline.preview.terminal import legend, lines_of
from pipeline.runtime import rng_of
from pipeline.stages.pretrain import CorruptedRows


class Wish(NamedTuple):
    """Which stage (None: the first that pretrains), how many rows, cut to how many tokens (None: not at all)."""

    stage: str | None
    rows: int
    tokens: int | None


def preview(run_file: RunFile, wish: Wish, svg: Path | None) -> None:
    """Print what the objective of a stage makes of a few rows; or write it to `svg`."""
    name = _chosen(run_file, wish.stage)
    stage = run_file.stages[name].config
    rows = _rows(run_file, name, wish)
    looks = looks_at(stage, rows)
    title = f"{name}: {stage.objective.type} on rows {rows.origin}"
    if svg is not None:
        files.write_bytes(svg, (svg_of(title, looks) + "\n").encode())
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(title, style="bold", markup=False)
    console.print(legend())
    for number, look in zip(rows.chosen, looks, strict=True):
        console.print(f"\nrow {number}", style="bold")
        for line in lines_of(look):
            console.print(line)


def looks_at(stage: Any, rows: Rows) -> list[Look]:
    """What the objective of `stage` makes of each row, with the draws that training makes in its first epoch."""
    corruption = stage.objective.corruption(rows.vocabulary, rows.length)
    read: Any = rows.rows  # what shards give, but shorter or made here
    source = CorruptedRows(read, corruption).at_step(0)
    looks = []
    for number in rows.chosen:
        example = source.example(number, rng_of(stage.train.seed, "example", 0, number))
        batch = source.collate([example])
        looks.append(look_at(rows.rows.row(number), example, batch, stage, rows.vocabulary))
    return looks


def _chosen(run_file: RunFile, name: str | None) -> str:
    fitting = [n for n, entry in run_file.stages.items() if entry.config.kind == "pretrain"]
    if name is None and fitting:
        return fitting[0]
    if name not in fitting:
        what = f"--stage {name}" if name else run_file.name
        raise ConfigError(
            [f"{what}: no stage that pretrains; allowed: {', '.join(fitting) or 'there is none'}"]
        )
    return name


def _rows(run_file: RunFile, name: str, wish: Wish) -> Rows:
    """Rows of the tokens that the stage reads if they are there, else of Theseum's own words."""
    stage = run_file.stages[name].config
    try:
        steps = {step.name: step for step in make_plan(run_file, Store(run_file.head.store))}
    except DataError:  # a source is missing, so nothing was made of it
        steps = {}
    needed = [steps.get(need) for need in (stage.tokens, stage.tasks) if need is not None]
    folders = [step.folder for step in needed if step is not None and step.state == "done"]
    if len(folders) == len(needed):
        return rows_of_tokens(folders, stage.mixture, stage.train.seed, wish.rows, wish.tokens)
    whole = run_file.stages[stage.tokens].config.row_length
    return rows_of_own(wish.rows, min(whole, wish.tokens or whole))
