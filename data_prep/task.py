"""The `task` stage: labelled files to one checked form, with labels as numbers.

The labels are those of the train file. A row must not be known from training when it is tested: one that stands
in a later split too is removed from the earlier one, and counted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from data_prep.forms import AnyForm
from data_prep.forms.classification import ClassificationForm
from data_prep.forms.fields import Rows
from data_prep.known_tasks import KNOWN
from data_prep.labelled_files import LabelledFile, records
from pipeline import files
from pipeline.complaints import nearest, shown
from pipeline.config import DataError, config
from pipeline.flow.stage import Artifact, Claim, Work
from pipeline.runtime import rng_of

SPLITS = ("train", "validation", "test")
VALIDATION_PART = 20


@config
class Task:
    """A task: one file for each split, and the `form` of its rows.

    `like` names a known task (`known_tasks`), which has a form and metrics; what is given here goes before. Without a
    file for `validation` a twentieth of the rows of training is set apart for it, by a key.

    Files are JSON lines, CSV or TSV with a header, each possibly compressed with gzip, Parquet, what `datasets` saves,
    or SQuAD's JSON. `metric` is the score by which models are compared, the form's first unless given; those in
    `also` are measured beside it.
    """

    makes: ClassVar[Artifact] = "task"
    claims: ClassVar[Claim] = "cpu"
    version: ClassVar[int] = 2

    kind: Literal["task"] = "task"
    train: LabelledFile
    test: LabelledFile
    validation: LabelledFile | None = None
    like: str | None = None
    form: AnyForm | None = None
    metric: str | None = None
    also: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.like is not None and self.like not in KNOWN:
            raise ValueError(
                f"like: got {shown(self.like)}; allowed: {', '.join(KNOWN)}"
                f"{nearest(self.like, KNOWN)}"
            )
        form, metrics = self.judged()
        for name in metrics:
            if name not in form.METRICS:
                raise ValueError(
                    f"metric: got {shown(name)}; allowed for form {form.type}: "
                    f"{', '.join(form.METRICS)}{nearest(name, form.METRICS)}"
                )

    def judged(self) -> tuple[AnyForm, tuple[str, ...]]:
        """The form, and all metrics, that by which models are compared first."""
        known = KNOWN[self.like] if self.like else None
        form = self.form or (known.form if known else ClassificationForm())
        usual = known.metrics if known else form.METRICS[:1]
        first = self.metric or usual[0]
        also = usual if self.also is None else self.also
        return form, (first, *(name for name in also if name != first))

    def sources(self) -> Sequence[Path]:
        """The two or three files."""
        return [path for path in (self.train, self.validation, self.test) if path is not None]

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write the three splits and `task.json`; the same facts are the stage's counts."""
        form, metrics = self.judged()
        train = read_rows(self.train, form)
        if self.validation is None:
            train, unseen = set_apart(train, self.train)
        else:
            unseen = read_rows(self.validation, form)
        splits = {"train": train, "validation": unseen, "test": read_rows(self.test, form)}
        return write_task(work.out, splits, form, metrics)


def write_task(
    folder: Path,
    splits: dict[str, Rows],
    form: AnyForm,
    metrics: Sequence[str],
) -> Mapping[str, Any]:
    """Write rows as a task folder, and return the facts in its `task.json`."""
    labels = form.settle(splits)
    removed = remove_repeated(splits, form)
    for split, rows in splits.items():
        files.write_json_lines(folder / f"{split}.jsonl", list(rows.values()))
    metric, *also = metrics
    facts = {
        "form": form.type,
        "labels": labels,
        "metric": metric,
        "also": also,
        "counts": {split: len(rows) for split, rows in splits.items()},
        "removed": removed,
        **form.facts(splits),
    }
    files.write_json(folder / "task.json", facts)
    return facts


def read_rows(path: Path, form: AnyForm) -> Rows:
    """Each row by its place `file:line`; DataError at the first bad row."""
    rows = {}
    for line, record in records(path):
        place = f"{path}:{line}"
        rows[place] = form.row(record, place)
    if not rows:
        raise DataError(f"{path}: holds no rows; a task needs labelled texts in every split")
    return rows


def set_apart(rows: Rows, path: Path) -> tuple[Rows, Rows]:
    """The rows without one in VALIDATION_PART, and these: which ones is drawn by a key."""
    if len(rows) < VALIDATION_PART:
        raise DataError(
            f"{path}: {len(rows)} rows are too few to set some apart; name a validation file"
        )
    drawn = rng_of(0, "validation", len(rows)).permutation(len(rows))
    chosen = set(drawn[: len(rows) // VALIDATION_PART].tolist())
    kept: Rows = {}
    apart: Rows = {}
    for number, (place, row) in enumerate(rows.items()):
        (apart if number in chosen else kept)[place] = row
    return kept, apart


def remove_repeated(splits: dict[str, Rows], form: AnyForm) -> dict[str, int]:
    """Take out of each split what stands in a later one; return how many rows went."""
    removed = {}
    for number, split in enumerate(SPLITS[:-1]):
        later = {
            form.known_by(row) for other in SPLITS[number + 1 :] for row in splits[other].values()
        }
        kept = {
            place: row for place, row in splits[split].items() if form.known_by(row) not in later
        }
        if not kept:
            place = next(iter(splits[split])).rpartition(":")[0]
            raise DataError(f"{place}: every text of {split} stands in a later split too")
        removed[split] = len(splits[split]) - len(kept)
        splits[split] = kept
    return removed
