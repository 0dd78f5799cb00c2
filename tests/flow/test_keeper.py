"""What cleans up after a run that was killed."""

import subprocess
import sys
import time
from pathlib import Path

from pipeline.flow.keeper import start_keeper, users_of

USE = """
import sys, time
file = open(sys.argv[1], "w")
print("open", flush=True)
time.sleep(60)
"""


def user(path: Path) -> subprocess.Popen[bytes]:
    """A process that keeps `path` open."""
    process = subprocess.Popen([sys.executable, "-c", USE, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_keeper_ends_what_used_the_folder_and_nothing_else(tmp_path: Path) -> None:
    folder, beside = tmp_path / "run", tmp_path / "run-beside"
    folder.mkdir()
    beside.mkdir()
    with user(folder / "log") as inside, user(beside / "log") as outside:
        assert users_of(folder) == [inside.pid]
        keeper = start_keeper(folder)
        time.sleep(0.3)
        assert inside.poll() is None
        assert folder.exists()
        assert keeper.stdin is not None
        keeper.stdin.close()
        assert keeper.wait(10) == 0
        assert inside.wait(10) == -9
        assert not folder.exists()
        assert outside.poll() is None
        outside.kill()
