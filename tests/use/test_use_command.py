"""The commands of the verbs: what goes in comes out in its order, with what was found."""

import io
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from use_worlds import model_of

from pipeline.cli import _parser, main
from pipeline.models.artifact import save_model
from pipeline.use import embed, load, score

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "use.md"
TEXTS = [
    "a large animal that lives in water",
    "",
    "red",
    "food made of milk",
    "a tree",
    "a red tree",
]


@pytest.fixture(scope="module")
def folders(vocabulary, tmp_path_factory):
    """Model folders by kind."""
    made = {}
    for name in ("tta", "mlm", "t5", "classifier"):
        model = model_of(name, vocabulary)
        made[name] = tmp_path_factory.mktemp(name)
        save_model(made[name] / "model", model.network.float(), vocabulary, model.facts)
    return made


@pytest.fixture
def typed(monkeypatch):
    """Give text as standard input."""

    def give(text):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return give


def told(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_standard_input_is_answered_in_its_order(folders, typed, capsys):
    expected = [one.total for one in score(load(folders["tta"], "cpu"), TEXTS)]
    for window in ("1", "4", "100"):
        typed("".join(f"{text}\n" for text in TEXTS))
        command = ["score", str(folders["tta"]), "--window", window, "--at-once", "24"]
        assert main(command) == 0
        found = told(capsys)
        assert [one["text"] for one in found] == TEXTS
        assert [one["score"] for one in found] == pytest.approx(expected, rel=1e-5)
    typed("red\n")
    assert main(["score", str(folders["tta"]), "--each"]) == 0
    (one,) = told(capsys)
    assert one["score"] == pytest.approx(sum(value for _, value in one["each"]))


def test_draws_belong_to_lines_and_not_to_windows(folders, typed, capsys):
    found = []
    for window in ("2", "100"):
        typed("".join(f"{text}\n" for text in TEXTS))
        how = ["--how", "sampling", "--seed", "4", "--num-samples", "2", "--max-new-tokens", "5"]
        assert main(["generate", str(folders["t5"]), "--window", window, *how]) == 0
        found.append([[h["text"] for h in one["hypotheses"]] for one in told(capsys)])
    assert found[0] == found[1]


def test_fields_of_json_lines_are_kept_and_files_are_whole(folders, tmp_path, capsys):
    given, out = tmp_path / "given.jsonl", tmp_path / "out.jsonl"
    rows = [{"id": n, "body": text} for n, text in enumerate(TEXTS)]
    given.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    command = ["predict", str(folders["classifier"]), "--in", str(given), "--out", str(out)]
    assert main([*command, "--field", "body"]) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(one["id"], one["body"]) for one in found] == list(enumerate(TEXTS))
    assert all(sum(one["probabilities"].values()) == pytest.approx(1) for one in found)
    assert main([*command[:4], "--field", "body", "--plain"]) == 0
    assert capsys.readouterr().out.splitlines() == [one["label"] for one in found]
    before = out.read_text()
    given.write_text('{"text": "red"}\n{"text": 3}\n')
    assert main(command) == 3
    assert capsys.readouterr().err == (f"{given}:2: text: classification needs a text, holds 3\n")
    assert out.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"given.jsonl", "out.jsonl"}


def test_arrays_grow_window_by_window(folders, tmp_path):
    given, out = tmp_path / "given.txt", tmp_path / "vectors.npy"
    given.write_text("".join(f"{text}\n" for text in TEXTS))
    command = ["embed", str(folders["mlm"]), "--in", str(given), "--out", str(out)]
    assert main([*command, "--window", "4"]) == 0
    expected = embed(load(folders["mlm"], "cpu"), TEXTS)
    assert np.allclose(np.load(out), expected, atol=1e-6)
    given.write_text("")
    assert main(command) == 0
    assert np.load(out).size == 0


def test_lists_come_back_best_first(folders, typed, capsys):
    one = {
        "id": 7,
        "hypotheses": [{"text": "red", "score": -9.0}, {"text": "a tree", "score": 0.0}],
    }
    typed(json.dumps(one) + "\n")
    assert main(["rerank", str(folders["tta"]), "--weight", "0"]) == 0
    (found,) = told(capsys)
    assert found["id"] == 7
    assert [hypothesis["text"] for hypothesis in found["hypotheses"]] == ["a tree", "red"]
    typed('{"hypotheses": [{"text": "red"}]}\n')
    assert main(["rerank", str(folders["tta"])]) == 3
    assert capsys.readouterr().err.startswith("standard input:1: hypothesis 1 needs")


def test_mistakes_are_one_line(folders, typed, capsys):
    for command, text, code, words in (
        (["generate", str(folders["tta"])], "red\n", 2, "T-TA predicts every token"),
        (["generate", str(folders["t5"]), "--beams", "2"], "red\n", 2, "beams: unknown key"),
        (["fill", str(folders["mlm"])], "a [MASK]\nred\n", 3, "standard input:2: has no [MASK]"),
        (["score", str(folders["tta"]), "--form", "jsonl"], "red\n", 3, "is not JSON"),
        (["score", str(folders["t5"])], "red\n", 2, "writes a text for a source"),
        (["score", "/nowhere"], "red\n", 3, "holds no model"),
        (["score", str(folders["tta"]), "--in", "/nowhere"], "", 3, "No such file"),
    ):
        typed(text)
        assert main(command) == code
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


def test_documented_commands_are_understood():
    commands = re.findall(r"^theseum (.+)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    verbs = {_parser().parse_args(shlex.split(command)).verb for command in commands}
    assert verbs == {"generate", "fill", "score", "rerank", "embed", "predict"}
