"""The command line without Ray: help, errors, plan, show, ls."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import doctor
from pipeline.cli import main
from pipeline.config import ConfigError, DataError
from pipeline.flow.run_file import read_run_file
from pipeline.flow.show import run_as_lines
from pipeline.stages import CATALOGUE, stage_class

ROOT = Path(__file__).resolve().parents[1]


def toy_file(folder: Path, text: str) -> str:
    """A run file of the toy stages."""
    (folder / "run.yaml").write_text(text)
    return str(folder / "run.yaml")


@pytest.fixture
def toy_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line knows the toy stages only."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "flow"))
    for kind in list(CATALOGUE):
        monkeypatch.delitem(CATALOGUE, kind)
    for kind, name in {"write": "Write", "count": "Count", "overview": "Overview"}.items():
        monkeypatch.setitem(CATALOGUE, kind, f"toys:{name}")


STAGES = "stages:\n  pages: {kind: write, text: a}\n  t: {kind: count, corpus: pages, units: 4}\n"


def test_help_is_quick() -> None:
    command = [sys.executable, "-m", "pipeline", "--help"]
    times = []
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        times.append(time.monotonic() - began)
    assert "run the stages that are missing or stale" in done.stdout
    assert min(times) < 0.3


def test_a_wrong_command_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["frobnicate"])
    assert caught.value.code == 2
    assert "invalid choice: 'frobnicate'" in capsys.readouterr().err


@pytest.mark.usefixtures("toy_catalogue")
@pytest.mark.parametrize("command", ["run", "plan", "show"])
def test_config_errors_are_lines_and_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    file = toy_file(tmp_path, STAGES + "  u: {kind: cuont}\n")
    assert main([command, file]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f'{file}:4: stages.u.kind: got "cuont"; allowed: write, count, overview; '
        "did you mean 'count'?\n"
    )
    with pytest.raises(ConfigError):
        main([command, file, "--debug"])


@pytest.mark.usefixtures("toy_catalogue")
def test_missing_data_is_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = toy_file(tmp_path, "stages:\n  pages: {kind: write, text: a, files: [no/such]}\n")
    assert main(["run", file]) == 3
    said = capsys.readouterr().err
    assert said == f"{file}:2: stages.pages: source no/such: no such file or folder\n"
    with pytest.raises(DataError):
        main(["run", file, "--debug"])


@pytest.mark.usefixtures("toy_catalogue")
def test_a_file_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = toy_file(tmp_path, STAGES)
    assert main(["plan", file, f"store={file}"]) == 2
    assert capsys.readouterr().err == f"store: {file} is a file; allowed: a folder\n"


@pytest.mark.usefixtures("toy_catalogue")
def test_plan_tells_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", toy_file(tmp_path, STAGES)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "missing  pages  write",
        "missing  t      count",
        "run: 2 of 2 stages to run",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.usefixtures("toy_catalogue")
def test_what_is_shown_can_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines are a run file that means the same; what differs from a default says so."""
    file = toy_file(tmp_path, STAGES + "ray: {cpus: 3}\n")
    assert main(["show", file, "stages.t.how={type: letters, least: 3}"]) == 0
    shown = capsys.readouterr().out
    assert "    units: 4  # default: 3\n" in shown
    assert "  cpus: 3  # default: null\n" in shown
    assert "      least: 3  # default: 1\n" in shown
    assert shown.count("# default") == 3
    (tmp_path / "again.yaml").write_text(shown)
    again = read_run_file(tmp_path / "again.yaml", kinds=CATALOGUE, stage_class=stage_class)
    assert "\n".join(run_as_lines(again)) + "\n" == shown
    assert main(["show", "--json", str(tmp_path / "again.yaml")]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["stages"]["t"]["how"] == {"type": "letters", "least": 3}
    assert data["ray"] == {"address": None, "cpus": 3}


def test_an_empty_store_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--store", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'none'}: nothing here yet\n"


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """`theseum show FILE | head -1`."""
    stages = "".join(f"  s{n}: {{kind: write, text: a}}\n" for n in range(3000))
    file = toy_file(tmp_path, "stages:\n" + stages)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "flow")]),
    }
    toys = str(ROOT / "tests" / "flow" / "toys.py")
    line = f"{sys.executable} {toys} show {file} | head -1"
    done = subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("name: ")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("flags\t\t: fpu avx512_bf16 amx_bf16", {"fpu", "avx512_bf16", "amx_bf16"}),
        ("Features\t: fp asimd bf16", {"fp", "asimd", "bf16"}),
        ("model name\t: some CPU", set()),
    ],
)
def test_cpu_flags_of_both_architectures(tmp_path: Path, line: str, flags: set[str]) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{line}\n\n")
    assert doctor.cpu_flags(path) == flags
    assert doctor.cpu_flags(tmp_path / "none") == set()


def test_doctor_tells_of_everything_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["doctor", "--store", str(tmp_path / "deep" / "store")])
    lines = capsys.readouterr().out.splitlines()
    topics = [line.split()[1] for line in lines]
    assert {"python", "torch", "cpu", "ray", "compiler", "slurm", "memory", "store"} <= set(topics)
    assert code == int(any(line.startswith("missing") for line in lines))
    assert not (tmp_path / "deep").exists()
