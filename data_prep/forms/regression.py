"""Rows with a number for a text or a pair of texts."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from data_prep.forms.fields import Record, Row, Rows, number_of, texts_of
from pipeline.config import config


@config
class RegressionForm:
    """The fields that hold a text, a second one if there are two, and as `label` the number."""

    METRICS: ClassVar[tuple[str, ...]] = ("pearson", "spearman")

    type: Literal["regression"] = "regression"
    text: str = "text"
    second: str | None = None
    label: str = "label"

    def row(self, record: Record, place: str) -> Row:
        """Texts and number."""
        row = texts_of(record, self.text, self.second, place)
        return row | {"label": number_of(record, self.label, place)}

    def known_by(self, row: Row) -> Any:
        """What two rows of different splits must not share."""
        return row["text"], row.get("second")

    def settle(self, _splits: Mapping[str, Rows]) -> list[str]:
        """There are no labels."""
        return []

    def facts(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        """The mean of the numbers of the train split."""
        numbers = [row["label"] for row in splits["train"].values()]
        return {"mean": round(sum(numbers) / len(numbers), 6)}
