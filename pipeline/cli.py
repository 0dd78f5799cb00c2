"""The command line: `theseum run`, `plan`, `show` and what else there is to do with runs, stores and models.

Heavy modules are imported by the command that needs them, so that `--help` and `plan` answer at once.
Exit codes: 0 done, 1 failed, 2 a mistake in the configuration, 3 in the data, 130 and 143 interrupted.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.verbs import add_verbs

if TYPE_CHECKING:
    from pipeline.flow.plan import Step
    from pipeline.flow.run_file import RunFile
    from pipeline.flow.schedule import Outcome
    from pipeline.flow.store import Store
    from pipeline.flow.tracking import Tracking

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    from pipeline.config import UserError

    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except UserError as error:
        if options.debug:
            raise
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="theseum", description="From raw web pages to a small, verified language model."
    )
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, function: Callable[..., int], words: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=words, description=words, parents=[debug])
        made.set_defaults(command=function)
        return made

    for name, function, words in (
        ("run", _run, "run the stages that are missing or stale"),
        ("plan", _plan, "say for each stage whether it is done, missing or stale, and why"),
        ("show", _show, "print every key of a run as it was understood"),
        ("preview", _preview, "print what an objective makes of real rows"),
    ):
        made = command(name, function, words)
        made.add_argument("file", type=Path, metavar="FILE", help="run file (YAML)")
        made.add_argument("overrides", nargs="*", metavar="key.path=value", help="laid over it")
        if name == "show":
            made.add_argument("--json", action="store_true", help="as JSON")
        if name == "preview":
            _add_wishes(made)
        if name == "plan":
            words = "states the machines, such as configs/clusters/h100-8.yaml"
            made.add_argument("--hardware", type=Path, metavar="FILE", help=words)
    listing = command("ls", _ls, "list what is in a store, finished or not")
    ui = command("ui", _ui, "open the MLflow UI of a store")
    ui.add_argument("--port", type=int, default=5000)
    command("matrix", _matrix, "print which objective trains which model with which mixer")
    variance = command("variance", _variance, "split the variance of gradients into data and masks")
    variance.add_argument("folder", type=Path, metavar="FOLDER", help="of a stage or checkpoint")
    variance.add_argument("--rows", type=int, default=32, help="how many rows")
    variance.add_argument("--masks", type=int, default=4, help="how many corruptions of each")
    doctor = command("doctor", _doctor, "say what this machine has and what is missing for what")
    shelf = command(
        "checkpoint", _checkpoint, "list or verify a job's checkpoints, or make a model of one"
    )
    shelf.add_argument("action", choices=("ls", "verify", "consolidate"))
    shelf.add_argument("folder", type=Path, help="folder of a training stage in the store")
    shelf.add_argument("--step", type=int, help="which one to consolidate; the newest if not given")
    shelf.add_argument("--out", type=Path, metavar="FOLDER", help="where to write the model")
    add_verbs(lambda name, words: command(name, _use, words))
    for made in (listing, ui, doctor):
        made.add_argument("--store", type=Path, default=Path("store"))
    return parser


def _add_wishes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", help="which stage that pretrains; the first if not given")
    parser.add_argument("--rows", type=int, default=2, help="how many rows")
    parser.add_argument("--tokens", type=int, default=48, help="cut rows to so many tokens; 0: not")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a picture instead")


def _read(options: argparse.Namespace) -> "tuple[RunFile, Store, list[Step]]":
    from pipeline.config import ConfigError
    from pipeline.flow.plan import make_plan
    from pipeline.flow.store import Store

    run_file = _run_file(options)
    store = Store(run_file.head.store)
    if store.root.exists() and not store.root.is_dir():
        raise ConfigError([f"store: {run_file.head.store} is a file; allowed: a folder"])
    return run_file, store, make_plan(run_file, store)


def _run_file(options: argparse.Namespace) -> "RunFile":
    from pipeline.flow.run_file import read_run_file
    from pipeline.stages import CATALOGUE, stage_class

    return read_run_file(options.file, options.overrides, kinds=CATALOGUE, stage_class=stage_class)


def _plan(options: argparse.Namespace) -> int:
    from pipeline.flow.store import ERROR

    run_file, _, steps = _read(options)
    width = max(len(step.name) for step in steps)
    for step in steps:
        where = f"  {step.folder.name}" if step.state == "done" else ""
        if step.holder is not None:
            where += f"  running now ({step.holder})"
        elif (step.partial / ERROR).exists():
            where += "  failed, will be tried again"
        elif step.partial.exists():
            where += "  begun, will continue"
        print(f"{step.state:8} {step.name:{width}}  {step.stage.kind}{where}")
        for reason in step.reasons:
            print(f"{'':9}{'':{width}}  {reason}")
    print(_todo(run_file.name, steps))
    _print_needs(run_file, steps, options.hardware)
    return 0


def _print_needs(run_file: "RunFile", steps: "Sequence[Step]", hardware: Path | None) -> None:
    if not any(step.state != "done" and step.stage.claims == "job" for step in steps):
        return
    from pipeline.forecast import forecasts, read_cluster

    stated = read_cluster(hardware) if hardware else None
    for line in forecasts(steps, run_file.processes, stated):
        print(line)


def _todo(name: str, steps: "Sequence[Step]") -> str:
    open_steps = sum(step.state != "done" for step in steps)
    if not open_steps:
        return f"{name}: all {len(steps)} stages are done: nothing to do"
    return f"{name}: {open_steps} of {len(steps)} stages to run"


def _run(options: argparse.Namespace) -> int:
    run_file, store, steps = _read(options)
    print(_todo(run_file.name, steps), flush=True)
    if all(step.state == "done" for step in steps):
        _print_report(steps)
        return 0
    from pipeline.flow.display import display_for
    from pipeline.flow.schedule import Run

    run = Run(run_file, steps, store, _tracking(run_file, store, steps))
    done = [step.name for step in steps if step.state == "done"]
    began = time.monotonic()
    code = run.execute(display_for([step.name for step in steps], done))
    _print_summary(list(run.outcomes.values()), time.monotonic() - began)
    if code == 0:
        _print_report(steps)
    return code


def _tracking(run_file: "RunFile", store: "Store", steps: "Sequence[Step]") -> "Tracking":
    from pipeline.files import digest_of
    from pipeline.flow.tracking import NoTracking

    if not run_file.head.tracking.enabled:
        return NoTracking()
    from pipeline.track.mlflow import Shipper

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    digest = digest_of([run_file.name, *(step.fingerprint for step in steps)])
    return Shipper(run_file.head.tracking.uri, store.root, run_file.name, digest)


def _print_summary(outcomes: "Sequence[Outcome]", seconds: float) -> None:
    from pipeline.flow.progress import duration

    width = max(len(outcome.step.name) for outcome in outcomes)
    for outcome in outcomes:
        state = "was done" if outcome.state == "there" else outcome.state
        took = duration(outcome.seconds) if outcome.seconds else ""
        where = outcome.step.folder.name if outcome.state in ("done", "there") else outcome.message
        head, *rest = where.splitlines() or [""]
        print(f"{state:8} {outcome.step.name:{width}} {took:>12}  {head}".rstrip())
        for line in rest:
            print(f"{'':9}{'':{width}} {'':12}  {line}")
    done = sum(outcome.state in ("done", "there") for outcome in outcomes)
    print(f"{done} of {len(outcomes)} stages done, {duration(seconds)}")


def _print_report(steps: "Sequence[Step]") -> None:
    for step in steps:
        summary = step.folder / "summary.txt"
        if step.stage.makes == "report" and summary.exists():
            print(f"\n{summary.read_text(encoding='utf-8').rstrip()}")
            print(f"\nreport: {step.folder / 'report.html'}")


def _show(options: argparse.Namespace) -> int:
    from pipeline.flow.show import run_as_dict, run_as_lines

    run_file = _run_file(options)
    if options.json:
        print(json.dumps(run_as_dict(run_file), indent=2, ensure_ascii=False))
        return 0
    for line in run_as_lines(run_file):
        print(line)
    return 0


def _preview(options: argparse.Namespace) -> int:
    from pipeline.preview.show import Wish, preview

    wish = Wish(options.stage, max(options.rows, 1), options.tokens or None)
    preview(_run_file(options), wish, options.svg)
    return 0


def _ls(options: argparse.Namespace) -> int:
    from pipeline.flow.progress import duration
    from pipeline.flow.store import Store

    outputs = list(Store(options.store).outputs())
    if not outputs:
        print(f"{options.store}: nothing here yet")
    width = max((len(output.name) for output in outputs), default=0)
    for output in outputs:
        size, age = f"{output.size_bytes / 1e6:,.1f} MB", duration(time.time() - output.changed)
        line = f"{output.name:{width}}  {output.kind:9} {output.state:12}{size:>14}  {age:>14} ago"
        print(f"{line}  {output.detail}".rstrip())
    return 0


def _ui(options: argparse.Namespace) -> int:
    from pipeline.config import DataError
    from pipeline.track.mlflow import open_ui

    if not (options.store / "mlflow.db").exists():
        raise DataError(
            f"{options.store}: no run has been tracked here yet; run one, or name --store"
        )
    print(f"MLflow at http://127.0.0.1:{options.port} (Ctrl-C ends it)", flush=True)
    return open_ui(options.store, options.port)


def _matrix(options: argparse.Namespace) -> int:  # noqa: ARG001 - commands are called alike
    from pipeline.train.combinations import table

    cells = table()
    head = ("objective", "model", "mixer")
    rows = [*(cell[:3] for cell in cells), head]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]

    def line(names: "Sequence[str]", words: str) -> str:
        padded = (f"{name:{width}}" for name, width in zip(names, widths, strict=True))
        return f"{'  '.join(padded)}  {words}".rstrip()

    print(line(head, ""))
    for cell in cells:
        print(line(cell[:3], cell.reason or ", ".join(filter(None, ("works", cell.limits)))))
    return 0


def _checkpoint(options: argparse.Namespace) -> int:
    from pipeline.config import ConfigError
    from pipeline.shelf import consolidated, listing, verified

    if options.action == "ls":
        for line in listing(options.folder):
            print(line)
        return 0
    if options.action == "verify":
        found = list(verified(options.folder))
        for place, damage in found:
            print(f"{place.name}  {damage or 'intact'}")
        return 3 if any(damage for _, damage in found) else 0
    if options.out is None:
        raise ConfigError(["consolidate needs --out FOLDER: where to write the model"])
    used = consolidated(options.folder, options.out, options.step)
    print(f"{options.out}: the model of {used.name}")
    return 0


def _use(options: argparse.Namespace) -> int:
    from pipeline.use.command import perform

    return perform(options)


def _variance(options: argparse.Namespace) -> int:
    from pipeline.evaluate.variance import measured
    from pipeline.stages import stage_class

    for line in measured(options.folder, stage_class, rows=options.rows, masks=options.masks):
        print(line, flush=True)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from pipeline.doctor import examine

    findings = list(examine(options.store))
    for finding in findings:
        print(f"{finding.verdict:8} {finding.topic:14} {finding.words}")
    return int(any(finding.verdict == "missing" for finding in findings))
