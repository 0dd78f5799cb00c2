"""Rows with named fields, as JSON lines, Parquet and `datasets` hold them, and the page each one is."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from data_prep.sources.page import MAX_PAGE_BYTES, Fault, Page, Unreadable, encoded, plain, utc
from pipeline.config import config

USUAL_TEXT, USUAL_URL, USUAL_TIMESTAMP = "text", "url", "timestamp"
MAX_URL_CHARACTERS = 4096
Field = Annotated[str, pydantic.Field(min_length=1)] | None


@config
class RowFields:
    """Which fields of a row are read; `a.b` is field b inside field a.

    A row holds plain text (`text_field`, usually `text`) or a page (`html_field`). Address and date
    are in `url_field` and `timestamp_field`; where these are not given, in `url` and `timestamp` if
    a row has them. A field that is named here must be there.
    """

    text_field: Field = None
    html_field: Field = None
    url_field: Field = None
    timestamp_field: Field = None

    @pydantic.model_validator(mode="after")
    def _one_content(self) -> "RowFields":
        if self.text_field and self.html_field:
            raise ValueError(
                "text_field and html_field are both given; a row is read as one of them"
            )
        return self

    @property
    def content(self) -> str:
        """The field that holds the text or the page."""
        return self.html_field or self.text_field or USUAL_TEXT

    def wanted(self) -> dict[str, bool]:
        """Fields that are read, and whether each must be there."""
        return {
            self.content: True,
            self.url_field or USUAL_URL: self.url_field is not None,
            self.timestamp_field or USUAL_TIMESTAMP: self.timestamp_field is not None,
        }


@dataclasses.dataclass(frozen=True)
class Row:
    """A row as it was read: its fields, its place in the file, the address it has if it names none."""

    values: Mapping[str, Any]
    record: int
    address: str


def page_of(row: Row, fields: RowFields) -> Page | Fault:
    """The page a row is."""
    try:
        url = _text_at(row, fields.url_field, USUAL_URL)[:MAX_URL_CHARACTERS] or row.address
        date = utc(_value_at(row, fields.timestamp_field, USUAL_TIMESTAMP))
        content = field_of(row.values, fields.content)
        body = encoded(content) if isinstance(content, str) else content
        if not isinstance(body, bytes):
            raise Unreadable("wrong_type", f"{fields.content!r} is {_kind(content)}, not text")
        if len(body) > MAX_PAGE_BYTES:
            raise Unreadable("too_large", f"{len(body)} bytes; at most {MAX_PAGE_BYTES} are read")
    except Unreadable as why:
        return why.at(row.record, row.address)
    is_html = fields.html_field is not None
    declared = "utf-8" if isinstance(content, str) or not is_html else None
    return Page(url, date, row.record, body, declared, is_html)


def field_of(values: Mapping[str, Any], name: str) -> Any:
    """The value of a field; Unreadable when it is missing."""
    if name in values:
        return values[name]
    outer, dot, inner = name.partition(".")
    if dot and isinstance(values.get(outer), Mapping):
        return field_of(values[outer], inner)
    known = ", ".join(map(str, list(values)[:8]))
    raise Unreadable("missing_field", f"no field {name!r}, only {plain(known)}")


def _value_at(row: Row, name: str | None, usual: str) -> Any:
    return field_of(row.values, name) if name else row.values.get(usual)


def _text_at(row: Row, name: str | None, usual: str) -> str:
    value = _value_at(row, name, usual)
    if value is None and name is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable("wrong_type", f"{name or usual!r} is {_kind(value)}, not text")
    return plain(value)


def _kind(value: Any) -> str:
    return "empty" if value is None else f"of type {type(value).__name__}"
