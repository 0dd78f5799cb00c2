"""A task folder holds what the files say, or the first bad row is named with file and line."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from data_prep.forms.classification import ClassificationForm, ordered_labels
from data_prep.task import Task, read_rows
from pipeline import files
from pipeline.config import ConfigError, DataError, build_from

ROOT = Path(__file__).parents[2]


@dataclass
class Out:
    """The part of a stage's work that this stage uses."""

    out: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)


def rows(*pairs: tuple[Any, Any]) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs)


def made(folder: Path, **texts: str) -> Task:
    """A task whose three files hold these texts; `dog` and `cat` unless said otherwise."""
    default = {
        "train": rows(("a barks", "dog"), ("b purrs", "cat"), ("c barks", "dog")),
        "validation": rows(("d purrs", "cat")),
        "test": rows(("e barks", "dog"), ("f purrs", "cat"), ("g purrs", "cat")),
    }
    for split, text in (default | texts).items():
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return Task(**{split: folder / f"{split}.jsonl" for split in default})


def refused(task: Task, folder: Path) -> str:
    with pytest.raises(DataError) as refusal:
        task.run(Out(folder / "out"))
    return str(refusal.value)


def test_the_folder_holds_the_texts_with_numbered_labels(tmp_path: Path) -> None:
    facts = made(tmp_path).run(Out(tmp_path / "out"))
    assert facts == files.read_json(tmp_path / "out" / "task.json")
    assert facts == {
        "form": "classification",
        "labels": ["cat", "dog"],
        "metric": "accuracy",
        "also": [],
        "counts": {"train": 3, "validation": 1, "test": 3},
        "removed": {"train": 0, "validation": 0},
        "majority_share": round(1 / 3, 6),
    }
    assert list(files.read_json_lines(tmp_path / "out" / "train.jsonl")) == [
        {"text": "a barks", "label": 1},
        {"text": "b purrs", "label": 0},
        {"text": "c barks", "label": 1},
    ]


def test_a_text_of_a_later_split_is_removed_from_the_earlier_one(tmp_path: Path) -> None:
    task = made(
        tmp_path,
        train=rows(("a", "dog"), ("b", "cat"), ("x", "dog"), ("y", "dog"), ("y", "dog")),
        validation=rows(("x", "dog"), ("z", "cat")),
        test=rows(("y", "dog"), ("z", "cat")),
    )
    assert task.run(Out(tmp_path / "out"))["removed"] == {"train": 3, "validation": 1}
    texts = {
        split: [row["text"] for row in files.read_json_lines(tmp_path / "out" / f"{split}.jsonl")]
        for split in ("train", "validation", "test")
    }
    assert texts == {"train": ["a", "b"], "validation": ["x"], "test": ["y", "z"]}


def test_a_split_that_holds_nothing_of_its_own_is_refused(tmp_path: Path) -> None:
    task = made(tmp_path, validation=rows(("e barks", "dog")))
    message = refused(task, tmp_path)
    assert message == f"{task.validation}: every text of validation stands in a later split too"


@pytest.mark.parametrize("ending", ["\n", ""])
def test_compressed_and_delimited_files_are_read_alike(tmp_path: Path, ending: str) -> None:
    task = made(tmp_path)
    expected = task.run(Out(tmp_path / "out"))
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(
        gzip.compress(task.train.read_text().rstrip("\n").encode() + ending.encode())
    )
    csv_file = tmp_path / "validation.csv"
    csv_file.write_text(f'label,text\ncat,"d purrs"{ending}')
    tsv_file = tmp_path / "test.tsv"
    tsv_file.write_text(f"text\tlabel\ne barks\tdog\nf purrs\tcat\ng purrs\tcat{ending}")
    other = Task(train=packed, validation=csv_file, test=tsv_file)
    assert other.run(Out(tmp_path / "other")) == expected
    assert files.checksums_of(tmp_path / "other") == files.checksums_of(tmp_path / "out")


def test_a_label_unknown_in_training_is_refused_with_its_place(tmp_path: Path) -> None:
    task = made(tmp_path, test=rows(("e", "dog"), ("f", "cap")))
    assert refused(task, tmp_path) == (
        f"{task.test}:2: label 'cap' does not occur in the train split; did you mean 'cat'?; "
        "its labels are: cat, dog"
    )


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ('{"text": "a", "label": "x"}\n{"txt": "b", "label": "y"}\n', ":2: no field 'text'"),
        ('{"text": "a", "label": "x"}\n\n{"text": " ", "label": "y"}\n', ":3: field 'text' holds"),
        (
            '{"text": "a", "label": 1.5}\n',
            ":1: field 'label' holds 1.5, needs text or a whole number",
        ),
        ('{"text": "a", "label": true}\n', ":1: field 'label' holds true"),
        ('{"text": "a", "label": "x"}\n{"text": \n', ":2: not valid JSON"),
        ('["a", "x"]\n', ":1: needs keys and values"),
        ("", ": holds no rows"),
        ("\n", ": holds no rows"),
    ],
)
def test_a_bad_row_is_refused_with_its_place(tmp_path: Path, train: str, message: str) -> None:
    task = made(tmp_path, train=train)
    assert f"{task.train}{message}" in refused(task, tmp_path)


def test_a_row_of_a_table_with_too_few_fields_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label\na,x\nb\n")
    task = made(tmp_path)
    task = Task(train=path, validation=task.validation, test=task.test)
    assert f"{path}:3: no field 'label'" in refused(task, tmp_path)


@pytest.mark.parametrize("name", ["train.orc", "folder", "", "train.jsonl.zip", "train.parquet.gz"])
def test_a_file_of_another_form_is_refused_before_anything_runs(name: str) -> None:
    data = {"train": name, "validation": "v.csv", "test": "t.tsv.gz"}
    with pytest.raises(ConfigError) as caught:
        build_from(Task, data)
    assert str(caught.value) == (
        f'value: train: got "{Path(name)}"; '
        "allowed: a file .jsonl, .csv, .tsv, .parquet, .arrow, .json; .jsonl, .csv, .tsv may end in .gz"
    )


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_the_mark_a_spreadsheet_begins_with_is_no_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    text = {"csv": "text,label\na,x\n", "jsonl": rows(("a", "x"))}[suffix]
    path.write_text(text, encoding="utf-8-sig")
    assert list(read_rows(path, ClassificationForm()).values()) == [{"text": "a", "label": "x"}]


def test_labels_that_only_look_like_numbers_are_ordered_by_name() -> None:
    assert ordered_labels({"10", "9", "-1"}) == ["-1", "9", "10"]
    assert ordered_labels({"10", "9", "--1"}) == ["--1", "10", "9"]


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.jsonl.gz"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    task = made(tmp_path)
    message = refused(
        Task(train=tmp_path / name, validation=task.validation, test=task.test), tmp_path
    )
    assert "no such file" in message


@pytest.mark.parametrize("cut", [5, 30])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, cut: int) -> None:
    task = made(tmp_path)
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress(task.train.read_bytes())[:cut])
    message = refused(Task(train=path, validation=task.validation, test=task.test), tmp_path)
    assert f"{path}: cannot be read" in message


def test_one_label_is_no_task(tmp_path: Path) -> None:
    assert "has one label, 'dog'" in refused(made(tmp_path, train=rows(("a", "dog"))), tmp_path)


def test_numbers_are_ordered_as_numbers() -> None:
    assert ordered_labels({"10", "9", "-1"}) == ["-1", "9", "10"]
    assert ordered_labels({"10", "9", "b"}) == ["10", "9", "b"]


def test_the_shipped_definitions_are_a_balanced_task(tmp_path: Path) -> None:
    folder = ROOT / "data" / "quickstart"
    splits = ("train", "validation", "test")
    task = Task(**{split: folder / f"definitions-{split}.jsonl.gz" for split in splits})
    facts = task.run(Out(tmp_path))
    assert facts["counts"] == {"train": 8000, "validation": 1000, "test": 1000}
    assert facts["removed"] == {"train": 0, "validation": 0}
    assert (len(facts["labels"]), facts["majority_share"]) == (8, 0.125)
