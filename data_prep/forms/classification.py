"""Rows with one of several labels for a text or a pair of texts."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from data_prep.forms.fields import Record, Row, Rows, check_labels, name_of, texts_of
from pipeline.config import DataError, config

WHOLE_NUMBER = re.compile(r"-?[0-9]+")


@config
class ClassificationForm:
    """The fields that hold a text, a second one if there are two, and the label."""

    METRICS: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "f1", "matthews")

    type: Literal["classification"] = "classification"
    text: str = "text"
    second: str | None = None
    label: str = "label"

    def row(self, record: Record, place: str) -> Row:
        """Texts, and the label by name."""
        row = texts_of(record, self.text, self.second, place)
        return row | {"label": name_of(record, self.label, place)}

    def known_by(self, row: Row) -> Any:
        """What two rows of different splits must not share."""
        return row["text"], row.get("second")

    def settle(self, splits: Mapping[str, Rows]) -> list[str]:
        """Number the labels of all rows by those of training, and return these."""
        labels = ordered_labels({row["label"] for row in splits["train"].values()})
        numbers = {label: number for number, label in enumerate(labels)}
        for rows in splits.values():
            for place, row in rows.items():
                check_labels(place, [row["label"]], labels)
                row["label"] = numbers[row["label"]]
        return labels

    def facts(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        """Test accuracy of always answering the most frequent label of the train split."""
        counts = Counter(row["label"] for row in splits["train"].values())
        answer = max(sorted(counts), key=lambda label: counts[label])
        hits = sum(row["label"] == answer for row in splits["test"].values())
        return {"majority_share": round(hits / len(splits["test"]), 6)}


def ordered_labels(labels: set[str]) -> list[str]:
    """Labels by number if all are whole numbers, else by name; at least two."""
    if len(labels) < 2:
        raise DataError(f"the train split has one label, {min(labels)!r}; a task needs two or more")
    if all(WHOLE_NUMBER.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)
