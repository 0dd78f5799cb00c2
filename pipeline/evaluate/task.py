"""A task folder as a model sees it: labelled rows of one form, read by split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline import files
from pipeline.config import DataError
from pipeline.evaluate.forms import FORMS, EncodedRows, Reading
from pipeline.evaluate.forms.form import Form, TaskRow
from pipeline.tokenizer import Vocabulary

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class LabelledTask:
    """A folder written by the task stage. Models are compared by `metric`; `also` is measured beside it."""

    folder: Path
    labels: tuple[str, ...]
    metric: str
    form: Form
    also: tuple[str, ...] = ()

    def rows(self, split: Split) -> Sequence[TaskRow]:
        """The rows of one split; DataError when it is missing, empty or mislabelled."""
        path = self.folder / f"{split}.jsonl"
        if not path.exists():
            raise DataError(f"{path}: no such file; run the task stage again")
        rows = list(files.read_json_lines(path))
        if not rows:
            raise DataError(f"{path}: has no rows; a task needs labelled texts in every split")
        if self.labels:
            used = [n for row in rows for n in row.get("labels", [row.get("label", 0)])]
            if min(used) < 0 or max(used) >= len(self.labels):
                raise DataError(f"{path}: labels must be from 0 to {len(self.labels) - 1}")
        return rows

    def source(self, split: Split, vocabulary: Vocabulary, reading: Reading) -> EncodedRows:
        """The rows of one split as examples."""
        return self.form.encoded(self.rows(split), vocabulary, reading)


def load_task(folder: Path) -> LabelledTask:
    """Read what `task.json` says of a task folder."""
    try:
        facts = files.read_json(folder / "task.json")
    except FileNotFoundError:
        raise DataError(f"{folder}: holds no task (task.json is missing)") from None
    return LabelledTask(
        folder,
        tuple(facts["labels"]),
        facts["metric"],
        form_of(facts),
        tuple(facts.get("also", ())),
    )


def form_of(facts: Any) -> Form:
    """The form of the task, or of the model fine-tuned on one, that these facts describe."""
    return FORMS[facts.get("form", "classification")]
