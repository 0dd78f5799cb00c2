"""Documents are true: links lead somewhere, commands run, the tree is the tree on disk."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator

import documents
import pytest
import rules

from pipeline.cli import main

DOCUMENTS = documents.documents()
TREE = rules.ROOT / "docs" / "tree.md"
PACKAGES = ("pipeline", "data_prep", "launch")
TREE_HEAD = """# Every file, and what it is for

Drawn by `make golden` from the first sentence of each file.

"""
# How a command of theseum is tried out. Of `run`, its file and overrides; tests/flow runs runs.
TRIED_AS = {name: name for name in ("plan", "show", "preview", "ls", "matrix", "doctor")} | {
    "run": "plan"
}
# Commands that are too long to be tried out, and the test that runs the same.
ELSEWHERE = {
    r"theseum( \w+)? --help": "tests/test_cli.py::test_help_is_quick",
    r"theseum (generate|fill|score|rerank|embed|predict) .*": (
        "tests/use/test_use_command.py::test_documented_commands_are_understood"
    ),
    r"theseum ui": "tests/test_ui.py::test_it_serves_a_store_and_leaves_nothing",
    r"theseum variance .*": "tests/train/test_variance.py::test_lines_about_a_stage_folder_a_checkpoint_and_a_model",
    r"torchrun .*-m pipeline\.train \S*job\.json": (
        "tests/launch/test_launchers.py::test_losses_are_those_of_the_supervisor_bit_for_bit"
    ),
    r"deepspeed .*--module pipeline\.train \S*job\.json": (
        "tests/launch/test_launchers.py::test_losses_are_those_of_the_supervisor_bit_for_bit"
    ),
    r"sbatch .*slurm/train\.sbatch \S*job\.json": (
        "tests/launch/test_launchers.py::test_batch_script_starts_one_rank_a_task_with_the_allocated_threads"
    ),
}
# Commands that only bring a reader to the place where the others run.
GETTING_THERE = (r"git clone https://\S+( \S+)?", r"cd \S+", r"(source|\.) \.venv/bin/activate")


def complaints(command: str) -> Iterator[str]:
    """Run a command, or as much of it as is quick, and say what is wrong with it.

    That it fails, or that it is neither quick nor run by another test.
    """
    program, *rest = shlex.split(command)
    if program == "make":
        # VENV is given so that a command of the project is known by its path.
        told = ["make", "--dry-run", "VENV=.venv", *rest]
        done = subprocess.run(told, cwd=rules.ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"{command}: {done.stderr}"
        for line in done.stdout.splitlines():
            if line.startswith(".venv/bin/theseum "):
                yield from complaints(line.removeprefix(".venv/bin/"))
    elif program == "theseum" and rest and rest[0] in TRIED_AS:
        if main([TRIED_AS[rest[0]], *rest[1:]]) != 0:
            yield f"{command}: fails"
    elif not any(re.fullmatch(known, command) for known in (*GETTING_THERE, *ELSEWHERE)):
        yield f"{command}: nothing tries it out"


def shell_commands() -> list[object]:
    """Every command in a shell block of a document."""
    return [
        pytest.param(command, id=f"{path.relative_to(rules.ROOT)}: {command}")
        for path in DOCUMENTS
        for block in documents.blocks(path.read_text(encoding="utf-8"), documents.SHELLS)
        for command in documents.commands(block)
    ]


@pytest.fixture
def _copy(tmp_path, monkeypatch):
    """A working directory with the repository's configs and data, without its outputs."""
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(rules.ROOT / name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(rules.ROOT)))
def test_links_lead_somewhere(path):
    assert list(documents.broken_links(path, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("command", shell_commands())
@pytest.mark.usefixtures("_copy")
def test_a_documented_command_works(command):
    assert list(complaints(command)) == []


def test_shell_blocks_are_marked_sh():
    # So that there is one spelling to look for, and no block that nothing tries out.
    others = documents.SHELLS - {"sh"} | {""}
    texts = {path.name: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    assert [(name, b) for name, text in texts.items() for b in documents.blocks(text, others)] == []


@pytest.mark.parametrize("place", ELSEWHERE.values())
def test_other_tests_that_run_commands_are_there(place):
    path, _, name = place.partition("::")
    assert f"def {name or 'test_'}" in (rules.ROOT / path).read_text(encoding="utf-8")


def test_the_tree_is_the_tree_on_disk():
    drawn = f"{TREE_HEAD}```text\n{documents.drawn_tree(PACKAGES)}```\n"
    if os.environ.get("THESEUM_REFRESH_GOLDEN") == "1":
        TREE.write_text(drawn, encoding="utf-8")
    assert TREE.read_text(encoding="utf-8") == drawn, "`make golden` draws it again"


@pytest.mark.usefixtures("_copy")
def test_a_planted_fault_is_caught():
    assert list(complaints("rm -rf store")) == ["rm -rf store: nothing tries it out"]
    [words] = complaints("make coffee")
    assert "No rule" in words
    assert list(complaints("theseum run configs/runs/quickstart.yaml stages.pretrain.stepz=1"))
    text = (
        "See [this](gone.md), [that](#there), [here](#a-place) and `pipeline/gone.py`.\n# A place\n"
    )
    found = documents.broken_links(rules.ROOT / "README.md", text)
    assert list(found) == ["gone.md", "#there", "pipeline/gone.py"]
    block = "a b \\\n  c  # why\n# only words\nd && e\n"
    assert list(documents.commands(block)) == ["a b c", "d", "e"]
