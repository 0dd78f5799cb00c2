"""Rows with a text and several choices, one of which is right."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from data_prep.forms.fields import Record, Row, Rows, list_of, name_of, text_of
from pipeline.complaints import shown
from pipeline.config import DataError, config


@config
class ChoiceForm:
    """The fields that hold the text, the choices, and as `label` the number of the right one, counted from `first`.

    `text` may be several fields, which are joined by a blank. `choices` is a field with a list of
    texts, or several fields with one each.
    """

    METRICS: ClassVar[tuple[str, ...]] = ("accuracy",)

    type: Literal["choice"] = "choice"
    text: tuple[str, ...] = ("text",)
    choices: Annotated[tuple[str, ...], Field(min_length=1)] = ("choices",)
    label: str = "label"
    first: int = 0

    def row(self, record: Record, place: str) -> Row:
        """Text, choices and the number of the right one from 0."""
        text = " ".join(text_of(record, field, place) for field in self.text)
        if len(self.choices) == 1:
            choices = list_of(record, self.choices[0], place)
        else:
            choices = [text_of(record, field, place) for field in self.choices]
        if len(choices) < 2 or not all(isinstance(one, str) and one.strip() for one in choices):
            raise DataError(f"{place}: choices {shown(choices)} must be two texts or more")
        name = name_of(record, self.label, place)
        right = int(name) - self.first if name.lstrip("-").isdigit() else -1
        if not 0 <= right < len(choices):
            last = self.first + len(choices) - 1
            raise DataError(
                f"{place}: field {self.label!r} holds {shown(name)}, needs a number from {self.first} to {last}"
            )
        return {"text": text, "choices": choices, "label": right}

    def known_by(self, row: Row) -> Any:
        """What two rows of different splits must not share."""
        return row["text"], *row["choices"]

    def settle(self, _splits: Mapping[str, Rows]) -> list[str]:
        """Choices have no names."""
        return []

    def facts(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        """How many choices a row has, at most."""
        return {"choices": max(len(row["choices"]) for row in splits["train"].values())}
