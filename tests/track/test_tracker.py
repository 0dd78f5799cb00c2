"""The journal: numbered, once per step, safe against being cut off."""

from pipeline import files
from pipeline.track.tracker import Journal


def entries(path):
    return list(files.read_json_lines(path))


def test_entries_are_numbered_across_restarts(tmp_path):
    path = tmp_path / "journal.jsonl"
    for attempt in range(3):
        journal = Journal(path)
        journal.note(attempt=attempt)
        journal.close()
    assert [entry["seq"] for entry in entries(path)] == [0, 1, 2]


def test_a_step_is_reported_once(tmp_path):
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    for step in range(1, 6):
        first.metrics(step, {"loss": float(step)})
    first.metrics(4, {"held_out/loss": 1.0})
    first.close()
    again = Journal(path)
    for step in range(3, 8):
        again.metrics(step, {"loss": float(step), "held_out/loss": 0.0})
    again.close()
    losses = [e["step"] for e in entries(path) if "loss" in e["values"]]
    held_out = [e["step"] for e in entries(path) if "held_out/loss" in e["values"]]
    assert losses == [1, 2, 3, 4, 5, 6, 7]
    assert held_out == [4, 5, 6, 7]


def test_torn_last_line_is_cut_off(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for step in range(3):
        journal.metrics(step, {"loss": 0.5})
    journal.close()
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        recovered = Journal(path)
        recovered.metrics(9, {"loss": 1.0})
        recovered.close()
        found = entries(path)
        assert [e["seq"] for e in found] == list(range(len(found)))
        assert found[-1]["step"] == 9
