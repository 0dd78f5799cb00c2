"""Locks that die with their holder, and the list of what a store holds."""

import signal
import subprocess
import sys
from pathlib import Path

from pipeline.files import write_json, write_text
from pipeline.flow.store import ERROR, TASK, Lock, Presence, Store

HOLD = """
import sys, time
from pathlib import Path
from pipeline.flow.store import Lock
assert Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock.path)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert not lock.acquire()
        holder = lock.holder()
        assert holder is not None
        assert holder.pid == other.pid
        other.send_signal(signal.SIGKILL)
    assert lock.holder() is None
    assert lock.acquire()
    lock.release()
    assert lock.holder() is None


def test_workers_are_waited_for(tmp_path: Path) -> None:
    one, other = Presence(tmp_path / "x.workers"), Presence(tmp_path / "x.workers")
    with one:
        with other:
            assert not Presence(tmp_path / "x.workers").alone()
        assert not Presence(tmp_path / "x.workers").alone()
    assert Presence(tmp_path / "x.workers").alone()


def test_listing_tells_running_interrupted_and_failed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("a", "b", "c"):
        write_json(store.partial(name, "0" * 64) / TASK, {"kind": f"kind-{name}"})
    write_text(store.partial("b", "0" * 64) / ERROR, "{}")
    lock = store.lock("c", "0" * 64)
    assert lock.acquire()
    listed = [(output.name, output.kind, output.state) for output in store.outputs()]
    lock.release()
    assert listed == [
        ("a-00000000", "kind-a", "interrupted"),
        ("b-00000000", "kind-b", "failed"),
        ("c-00000000", "kind-c", "running"),
    ]


def test_an_empty_store_is_not_created(tmp_path: Path) -> None:
    assert list(Store(tmp_path / "store").outputs()) == []
    assert not (tmp_path / "store").exists()
