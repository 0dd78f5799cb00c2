"""Rows with a question, a context, and the stretches of it that answer the question: SQuAD's."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from data_prep.forms.fields import Record, Row, Rows, text_of
from data_prep.labelled_files import value_of
from pipeline.complaints import shown
from pipeline.config import DataError, config


@config
class SpanForm:
    """The fields that hold the question, the context, and the answers.

    Answers are `{text: [...], answer_start: [...]}`, as `datasets` has them, or `[{text, answer_start}, ...]`, as
    SQuAD's files; starts are counted in letters. Where there is none the question has no answer in the context.
    """

    METRICS: ClassVar[tuple[str, ...]] = ("squad_f1", "squad_exact")

    type: Literal["span"] = "span"
    question: str = "question"
    context: str = "context"
    answers: str = "answers"

    def row(self, record: Record, place: str) -> Row:
        """Question, context and answers, each where it says to stand."""
        question, context = (
            text_of(record, field, place) for field in (self.question, self.context)
        )
        found = [self._answer(one, context, place) for one in self._pairs(record, place)]
        return {"question": question, "context": context, "answers": found}

    def _pairs(self, record: Record, place: str) -> list[tuple[Any, Any]]:
        value = value_of(record, self.answers, place)
        if isinstance(value, Mapping) and {"text", "answer_start"} <= value.keys():
            return list(zip(value["text"], value["answer_start"], strict=True))
        if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
            return [(one.get("text"), one.get("answer_start")) for one in value]
        raise DataError(
            f"{place}: field {self.answers!r} holds {shown(value)}, needs texts and where they start"
        )

    def _answer(self, pair: tuple[Any, Any], context: str, place: str) -> Row:
        text, start = pair
        fits = isinstance(text, str) and isinstance(start, int) and text.strip() and start >= 0
        if not fits or context[start : start + len(text)] != text:
            raise DataError(
                f"{place}: answer {shown(text)} does not stand at letter {shown(start)} of its context"
            )
        return {"text": text, "start": start}

    def known_by(self, row: Row) -> Any:
        """What two rows of different splits must not share."""
        return row["question"], row["context"]

    def settle(self, _splits: Mapping[str, Rows]) -> list[str]:
        """There are no labels."""
        return []

    def facts(self, splits: Mapping[str, Rows]) -> dict[str, Any]:
        """Questions of the train split that have no answer."""
        return {"unanswerable": sum(not row["answers"] for row in splits["train"].values())}
