"""Whole runs on Ray, through the command line: side by side, failing, killed, doubled, interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.files import read_json
from pipeline.flow.keeper import users_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
HEAD = "ray: {cpus: 4}\ntracking: {enabled: false}\nstages:\n  pages: {kind: write, text: a}\n"


def theseum(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line with the toy stages, in a process group of its own."""
    # An address in the environment is another cluster, which must not be joined.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "flow")]),
        "RAY_ADDRESS": "192.0.2.1:6379",
    }
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "flow" / "toys.py"), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a whole command."""
    with theseum(folder, *arguments) as process:
        output, _ = process.communicate(timeout=120)
    assert gone(process.pid)
    return process.returncode, output


def gone(pid: int) -> bool:
    """Whether nothing of the run with this pid is left: no folder, no process in it."""
    folder = Path(f"/tmp/theseum-{pid}")
    return not folder.exists() and not users_of(folder)


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def record(folder: Path, stage: str) -> dict[str, Any]:
    """The record of the only output of a stage."""
    [found] = (folder / "store").glob(f"{stage}-????????/record.json")
    return dict(read_json(found))


def units(folder: Path) -> list[Path]:
    """Finished units of the stage `t` that is being made."""
    return list((folder / "store" / ".partial").glob("t-*/unit-*"))


def test_side_by_side_with_failures(tmp_path: Path) -> None:
    """Independent stages overlap; failures stop only what needs them; everything else is done."""
    text = HEAD + (
        "  one: {kind: write, text: a, seconds: 2}\n"
        "  two: {kind: write, text: b, seconds: 2}\n"
        "  t: {kind: count, corpus: pages, units: 20, matrix: {seed: [1, 2]}}\n"
        "  bad: {kind: broken, corpus: pages}\n"
        "  worse: {kind: broken, corpus: pages, where: unit}\n"
        "  lost: {kind: compare, others: [t, bad]}\n"
        "  found: {kind: compare, others: [t]}\n"
        "  all: {kind: overview, stages: [found, one]}\n"
    )
    (tmp_path / "run.yaml").write_text(text)
    code, output = finish(tmp_path, "run", "run.yaml")
    assert code == 1
    one, two = record(tmp_path, "one")["counts"], record(tmp_path, "two")["counts"]
    assert max(one["began"], two["began"]) < min(one["ended"], two["ended"])
    assert record(tmp_path, "t-seed2")["counts"] == {"order": list(range(20))}
    assert record(tmp_path, "found")["counts"] == {"read": ["t-seed1", "t-seed2"]}
    assert set(record(tmp_path, "t-seed1")["inputs"]) == {"pages"}
    summary = {line.split()[1]: line for line in output.splitlines()[1:] if line.count(" ") > 3}
    assert "ZeroDivisionError" in summary["bad"]
    assert "record 7 is not text (log: " in summary["worse"]
    assert "needs bad" in summary["lost"]
    assert "7 of 10 stages done" in output
    assert "Traceback" not in output
    for name, said in (("bad", "ZeroDivisionError"), ("worse", "DataError: record 7")):
        [log] = (tmp_path / "store" / ".partial").glob(f"{name}-*/error.log")
        assert said in log.read_text()
    listed = finish(tmp_path, "ls")[1]
    assert listed.count(" done ") == 7
    assert listed.count(" failed ") == 2
    assert not list((tmp_path / "store").glob("*/progress.json"))


def test_a_unit_that_takes_down_every_worker(tmp_path: Path) -> None:
    """After three deaths it is given up: the stage goes on without it, or says so and fails."""
    text = HEAD + "  a: {kind: deadly, mourned: true}\n  b: {kind: deadly, mourned: false}\n"
    (tmp_path / "run.yaml").write_text(text)
    code, output = finish(tmp_path, "run", "run.yaml")
    assert code == 1
    assert record(tmp_path, "a")["counts"] == {"order": [0, 1, 2, -3, 4, 5]}
    assert "the same unit took down its worker 3 times" in output
    assert "Traceback" not in output


def test_kill_nine_then_continue(tmp_path: Path) -> None:
    """Nothing outlives the run, nothing looks finished, and finished units are not done again."""
    text = HEAD + "  t: {kind: count, corpus: pages, units: 40, seconds: 0.1}\n"
    (tmp_path / "run.yaml").write_text(text)
    with theseum(tmp_path, "run", "run.yaml") as process:
        wait_for(lambda: len(units(tmp_path)) >= 8)
        process.kill()
    wait_for(lambda: gone(process.pid), 10)
    assert not list((tmp_path / "store").glob("t-*"))
    kept = {path.name for path in units(tmp_path)}
    assert 8 <= len(kept) < 40
    assert "interrupted" in finish(tmp_path, "ls")[1]
    code, output = finish(tmp_path, "run", "run.yaml")
    assert code == 0
    assert "continues where it was stopped" in output
    [calls] = (tmp_path / "store").glob("t-*/calls")
    done = calls.read_text().split()
    assert set(done) == {str(number) for number in range(40)}
    assert all(done.count(name.removeprefix("unit-")) == 1 for name in kept)


def test_two_runs_of_one_file(tmp_path: Path) -> None:
    """The second waits for the first, finds it done, and a third has nothing to do."""
    text = HEAD + "  t: {kind: count, corpus: pages, units: 16, seconds: 0.5}\n"
    text += "  sum: {kind: overview}\n"
    (tmp_path / "run.yaml").write_text(text)
    with theseum(tmp_path, "run", "run.yaml") as first:
        wait_for(lambda: list((tmp_path / "store").glob(".partial/t-*")))
        with theseum(tmp_path, "run", "run.yaml") as second:
            told_first, _ = first.communicate(timeout=60)
            told_second, _ = second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert told_second.count(f"waiting (for the run pid {first.pid}") == 1
    assert "was there already" in told_second
    assert told_first.count("read 2 stages") == told_second.count("read 2 stages") == 1
    [calls] = (tmp_path / "store").glob("t-*/calls")
    assert len(calls.read_text().split()) == 16
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").glob("*/*")}
    began = time.monotonic()
    code, third = finish(tmp_path, "run", "run.yaml")
    assert code == 0
    assert third.startswith("run: all 3 stages are done: nothing to do")
    assert "read 2 stages" in third
    assert time.monotonic() - began < 3
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "store").glob("*/*")}


@pytest.mark.parametrize("how", ["ctrl-c", "terminate", "twice"])
def test_interrupted(tmp_path: Path, how: str) -> None:
    """Within ten seconds everything is gone, and what was done is kept."""
    text = HEAD + "  t: {kind: count, corpus: pages, units: 400, seconds: 0.1}\n"
    text += "  slow: {kind: write, text: b, seconds: 600, busy: true}\n"
    (tmp_path / "run.yaml").write_text(text)
    with theseum(tmp_path, "run", "run.yaml") as process:
        wait_for(lambda: len(units(tmp_path)) >= 4)
        began = time.monotonic()
        if how == "ctrl-c":
            # A terminal sends it to the whole group, Ray's processes among them.
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        if how == "twice":
            time.sleep(0.3)
            process.terminate()
        output, _ = process.communicate(timeout=30)
    wait_for(lambda: gone(process.pid), 10)
    assert time.monotonic() - began < 10
    assert process.returncode == (130 if how == "ctrl-c" else 143)
    assert "stopping 2 running stage(s)" in output
    assert "Traceback" not in output
    assert {path.name for path in (tmp_path / "store").glob("[!.]*")} == {
        path.name for path in (tmp_path / "store").glob("pages-*")
    }
    assert finish(tmp_path, "ls")[1].count("interrupted") == 2
    assert len(units(tmp_path)) >= 4
