"""`theseum ui`: serves the store's runs, and leaves nothing behind when it is ended."""

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from pipeline.runtime import free_port
from pipeline.track import mlflow


def start(store, port):
    command = [sys.executable, "-m", "pipeline", "ui", "--store", str(store), "--port", str(port)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def answer(port):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
                return response.status, response.read().decode()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError("the UI did not answer within a minute")


@pytest.mark.slow
def test_it_serves_a_store_and_leaves_nothing(tmp_path):
    mlflow.connect(None, tmp_path, "study")
    port = free_port()
    ui = start(tmp_path, port)
    try:
        status, page = answer(port)
        assert status == 200
        assert "MLflow" in page
    finally:
        ui.send_signal(signal.SIGINT)
        assert ui.wait(timeout=30) == 0
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)
    assert left.stdout == ""


def test_a_store_without_runs_is_an_error_in_words(tmp_path):
    ui = start(tmp_path, free_port())
    output, _ = ui.communicate(timeout=60)
    assert ui.returncode == 3
    assert "no run has been tracked here yet" in output
