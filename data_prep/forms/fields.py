"""Values of the fields of a labelled record, each checked, and refused with its place."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.labelled_files import value_of
from pipeline.complaints import nearest, shown
from pipeline.config import DataError

Record = Mapping[str, Any]
Row = dict[str, Any]
Rows = dict[str, Row]  # by place


def text_of(record: Record, field: str, place: str) -> str:
    """Some text."""
    value = value_of(record, field, place)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: field {field!r} holds {shown(value)}, needs some text")
    return value


def texts_of(record: Record, first: str, second: str | None, place: str) -> Row:
    """`text`, and `second` where a second field is named."""
    row: Row = {"text": text_of(record, first, place)}
    return row if second is None else row | {"second": text_of(record, second, place)}


def name_of(record: Record, field: str, place: str) -> str:
    """The name of a label: text, or a whole number."""
    value = value_of(record, field, place)
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise DataError(
            f"{place}: field {field!r} holds {shown(value)}, needs text or a whole number"
        )
    return str(value)


def number_of(record: Record, field: str, place: str) -> float:
    """A finite number, or text that is one."""
    value = value_of(record, field, place)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{place}: field {field!r} holds {shown(value)}, needs a number")
    return number


def list_of(record: Record, field: str, place: str) -> list[Any]:
    """A list with something in it."""
    value = value_of(record, field, place)
    if not isinstance(value, list) or not value:
        raise DataError(f"{place}: field {field!r} holds {shown(value)}, needs a list")
    return value


def check_labels(place: str, names: Sequence[str], labels: Sequence[str]) -> None:
    """DataError if a label does not occur in training."""
    for name in names:
        if name not in labels:
            raise DataError(
                f"{place}: label {name!r} does not occur in the train split"
                f"{nearest(name, labels)}; its labels are: {', '.join(labels)}"
            )
