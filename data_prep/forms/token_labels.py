"""Rows with a label for every word of a text."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from data_prep.forms.classification import ordered_labels
from data_prep.forms.fields import Record, Row, Rows, check_labels, list_of
from pipeline.complaints import shown
from pipeline.config import DataError, config


@config
class TokenLabelsForm:
    """The fields that hold the words and their labels, as lists or as texts with blanks between.

    `names` are those of labels that files have as numbers from 0.
    """

    METRICS: ClassVar[tuple[str, ...]] = ("entity_f1", "word_accuracy")

    type: Literal["token_labels"] = "token_labels"
    words: str = "tokens"
    labels: str = "labels"
    names: tuple[str, ...] = ()

    def row(self, record: Record, place: str) -> Row:
        """Words, and their labels by name."""
        words, labels = (_split(record, field, place) for field in (self.words, self.labels))
        if len(words) != len(labels):
            raise DataError(f"{place}: {len(words)} words have {len(labels)} labels")
        return {"words": words, "labels": [self._name(label, place) for label in labels]}

    def _name(self, label: str, place: str) -> str:
        if not self.names:
            return label
        if not label.isdigit() or int(label) >= len(self.names):
            raise DataError(
                f"{place}: label {shown(label)} is no number from 0 to {len(self.names) - 1}"
            )
        return self.names[int(label)]

    def known_by(self, row: Row) -> Any:
        """What two rows of different splits must not share."""
        return tuple(row["words"])

    def settle(self, splits: Mapping[str, Rows]) -> list[str]:
        """Number the labels of all words by those of training, and return these."""
        labels = ordered_labels({n for row in splits["train"].values() for n in row["labels"]})
        numbers = {label: number for number, label in enumerate(labels)}
        for rows in splits.values():
            for place, row in rows.items():
                check_labels(place, row["labels"], labels)
                row["labels"] = [numbers[name] for name in row["labels"]]
        return labels

    def facts(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        """Words of the train split."""
        return {"words": sum(len(row["words"]) for row in splits["train"].values())}


def _split(record: Record, field: str, place: str) -> list[str]:
    value = record.get(field)
    parts = value.split() if isinstance(value, str) else list_of(record, field, place)
    if not parts:
        raise DataError(f"{place}: field {field!r} holds {shown(value)}, needs words")
    return [str(part) for part in parts]
