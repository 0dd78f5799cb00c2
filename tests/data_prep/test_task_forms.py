"""Tasks of every form from files of every kind, tasks by name, and what is refused."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import pytest

from data_prep.forms.span import SpanForm
from data_prep.known_tasks import KNOWN
from data_prep.task import Task, read_rows
from data_prep.text_pairs import TextTask
from data_prep.text_templates import TEMPLATES
from pipeline import files
from pipeline.config import ConfigError, DataError, build_from
from pipeline.evaluate.metrics import METRICS
from pipeline.evaluate.task import load_task


@dataclass
class Out:
    out: Path
    inputs: dict = field(default_factory=dict)


def made(folder, form, rows, **more):
    """The task of these rows: all but the last two train, then one for validation and one to be tested."""
    for split, part in (("train", rows[:-2]), ("validation", rows[-2:-1]), ("test", rows[-1:])):
        files.write_json_lines(folder / f"{split}.jsonl", part)
    paths = {s: str(folder / f"{s}.jsonl") for s in ("train", "validation", "test")}
    facts = build_from(Task, {**paths, "form": form, **more}).run(Out(folder / "out"))
    return facts, load_task(folder / "out")


def test_a_regression_has_numbers_however_they_are_written(tmp_path):
    rows = [{"a": f"x{n}", "b": "y", "score": value} for n, value in enumerate([1, "2.5", -3.0, 0])]
    form = {"type": "regression", "text": "a", "second": "b", "label": "score"}
    facts, task = made(tmp_path, form, rows, also=["spearman"])
    assert (facts["labels"], facts["metric"], facts["mean"]) == ([], "pearson", 1.75)
    assert task.rows("train")[1] == {"text": "x1", "second": "y", "label": 2.5}
    assert task.also == ("spearman",)
    rows[0]["score"] = "nan"
    with pytest.raises(
        DataError, match=r"train.jsonl:1: field 'score' holds .nan., needs a number"
    ):
        made(tmp_path, form, rows)


def test_a_choice_is_counted_from_where_the_files_count(tmp_path):
    rows = [{"p": f"why {n}", "q": "?", "c": ["this", "that"], "gold": 1 + n % 2} for n in range(4)]
    form = {"type": "choice", "text": ["p", "q"], "choices": ["c"], "label": "gold", "first": 1}
    _, task = made(tmp_path, form, rows)
    assert task.rows("train")[1] == {"text": "why 1 ?", "choices": ["this", "that"], "label": 1}
    rows[0]["gold"] = 3
    with pytest.raises(DataError, match="needs a number from 1 to 2"):
        made(tmp_path, form, rows)


def test_words_have_labels_by_name_or_number(tmp_path):
    rows = [{"tokens": ["Ann", "ran", str(n)], "labels": [1, 0, 0]} for n in range(4)]
    form = {"type": "token_labels", "names": ["O", "B-PER"]}
    facts, task = made(tmp_path, form, rows)
    assert facts["labels"] == ["B-PER", "O"]
    assert task.rows("train")[0] == {"words": ["Ann", "ran", "0"], "labels": [0, 1, 1]}
    named = [{"tokens": f"Ann ran {n}", "labels": "B-PER O O"} for n in range(4)]
    assert made(tmp_path, {"type": "token_labels"}, named)[1].rows("train") == task.rows("train")
    rows[0]["labels"] = [1, 0]
    with pytest.raises(DataError, match="3 words have 2 labels"):
        made(tmp_path, form, rows)


def test_squads_own_files_and_those_of_the_hub_are_the_same_rows(tmp_path):
    context = "Ann ran. Bob sat."
    questions = [("who ran?", [{"text": "Ann", "answer_start": 0}]), ("who ate?", [])]
    qas = [{"id": str(n), "question": q, "answers": a} for n, (q, a) in enumerate(questions)]
    nested = {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]}
    (tmp_path / "squad.json").write_text(json.dumps(nested))
    flat = [
        {
            "context": context,
            "question": q,
            "answers": {
                "text": [one["text"] for one in a],
                "answer_start": [one["answer_start"] for one in a],
            },
        }
        for q, a in questions
    ]
    datasets.Dataset.from_list(flat).save_to_disk(tmp_path / "saved")
    form = SpanForm()
    expected = [
        {"context": context, "question": "who ran?", "answers": [{"text": "Ann", "start": 0}]},
        {"context": context, "question": "who ate?", "answers": []},
    ]
    saved = tmp_path / "saved"
    arrow = next(saved.glob("*.arrow"))
    for path in (tmp_path / "squad.json", saved / "state.json", arrow):
        assert list(read_rows(path, form).values()) == expected
    wrong = nested["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]
    wrong["answer_start"] = 1
    (tmp_path / "squad.json").write_text(json.dumps(nested))
    with pytest.raises(DataError, match=r"squad.json:1: answer .Ann. does not stand at letter 1"):
        read_rows(tmp_path / "squad.json", form)


def test_without_a_validation_file_a_twentieth_is_set_apart_by_a_key(tmp_path):
    rows = [{"text": f"text {n}", "label": n % 2} for n in range(60)]
    files.write_json_lines(tmp_path / "train.jsonl", rows)
    files.write_json_lines(tmp_path / "test.jsonl", [{"text": "other", "label": 1}])
    task = Task(train=tmp_path / "train.jsonl", test=tmp_path / "test.jsonl")
    assert task.run(Out(tmp_path / "one"))["counts"] == {"train": 57, "validation": 3, "test": 1}
    task.run(Out(tmp_path / "two"))
    assert files.checksums_of(tmp_path / "one") == files.checksums_of(tmp_path / "two")
    parts = [load_task(tmp_path / "one").rows(split) for split in ("train", "validation")]
    assert sorted(row["text"] for part in parts for row in part) == sorted(r["text"] for r in rows)


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_task_reads_its_fields_and_is_judged_by_its_metrics(name, tmp_path):
    form = KNOWN[name].form
    fields = [getattr(form, part, None) for part in ("text", "second", "question", "context")]
    fields += getattr(form, "choices", ())
    names = [n for one in fields if one for n in ([one] if isinstance(one, str) else one)]
    for split in ("train", "validation", "test"):
        rows = []
        for number in range(2):
            row = {part: f"{part} of {split} {number}" for part in names}
            answers = {"text": [row.get("context", " ")[:3]], "answer_start": [0]}
            rows.append({**row, "label": number, "answers": answers})
        files.write_json_lines(tmp_path / f"{split}.jsonl", rows)
    paths = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "validation", "test")}
    facts = build_from(Task, {**paths, "like": name}).run(Out(tmp_path / "out"))
    assert (facts["metric"], *facts["also"]) == KNOWN[name].metrics
    assert set(KNOWN[name].metrics) <= METRICS.keys()
    assert facts["counts"]["test"] == 2


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_known_task_is_written_as_t5_writes_it(name):
    task = build_from(TextTask, {"train": "a.csv", "validation": "b.csv", "like": name})
    assert set(task.template.metrics) <= METRICS.keys()
    words = task.template.words
    row = {part: f"<{part}>" for part in ("sentence", "sentence1", "sentence2", "question1")}
    row |= {part: f"<{part}>" for part in ("question2", "hypothesis", "premise", "question")}
    row |= {part: f"<{part}>" for part in ("passage", "choice1", "choice2", "answer", "paragraph")}
    row |= {"word": "w", "article": "<article>", "highlights": "short", "label": 1}
    inputs, targets = task.pair(row, "here")
    assert "<" in inputs
    assert targets == {"cnn_dailymail": "short", "glue/stsb": "1.0"}.get(name, words.get("1"))


def test_mistakes_are_refused_with_the_nearest_name():
    paths = {"train": "a.csv", "test": "b.csv"}
    with pytest.raises(ConfigError, match="did you mean 'glue/mrpc'"):
        build_from(Task, {**paths, "like": "glue/mrcp"})
    with pytest.raises(ConfigError, match="allowed for form regression: pearson, spearman"):
        build_from(Task, {**paths, "form": {"type": "regression"}, "metric": "accuracy"})
    with pytest.raises(ConfigError, match="inputs: say what is read of a row"):
        build_from(TextTask, {"train": "a.csv", "validation": "b.csv"})
