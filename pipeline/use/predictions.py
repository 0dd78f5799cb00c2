"""What a fine-tuned model says of rows: labels with probabilities, a number, a choice, words' labels, or an answer.

Rows are read and outputs are understood as in fine-tuning and evaluation, by the form of the task.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.complaints import shown
from pipeline.config import ConfigError
from pipeline.evaluate.forms.form import Reading, outputs_of
from pipeline.evaluate.task import form_of
from pipeline.models.artifact import Classifier
from pipeline.use.model import Model
from pipeline.use.reading import TOKENS_AT_ONCE, TextError

TEXT, TEXTS = "a text", "a list of texts"
# What a row needs in each form of task; a row of texts may have a `second` one.
FIELDS: Mapping[str, Mapping[str, str]] = {
    "classification": {"text": TEXT},
    "regression": {"text": TEXT},
    "choice": {"text": TEXT, "choices": TEXTS},
    "token_labels": {"words": TEXTS},
    "span": {"question": TEXT, "context": TEXT},
}
OPTIONAL: Mapping[str, Mapping[str, str]] = {
    "classification": {"second": TEXT},
    "regression": {"second": TEXT},
}


def predict(
    model: Model, rows: Sequence[str | Mapping[str, Any]], *, at_once: int = TOKENS_AT_ONCE
) -> list[Mapping[str, Any]]:
    """What the model says of each row: a text, or the fields of its form of task (`FIELDS`).

    A row that is longer than those of fine-tuning were is cut or read in windows, as it was then. ConfigError for a
    model that is not fine-tuned on a task, TextError for a row that lacks something.
    """
    network = model.network
    if not isinstance(network, Classifier):
        raise ConfigError(
            [f"{model.name}: a {type(network).__name__} predicts nothing; name a fine-tuned model"]
        )
    form = form_of(model.facts)
    asked = [_row(row, number, form.name) for number, row in enumerate(rows)]
    if not asked:
        return []
    max_length = model.facts.get("max_length", network.config.max_length)
    source = form.encoded(asked, model.vocabulary, Reading(max_length, model.facts.get("stride")))
    outputs = outputs_of(network, source, batch=max(1, at_once // max_length))
    labels = model.facts.get("labels") or [f"LABEL_{n}" for n in range(network.num_labels)]
    return [form.told(answer, labels) for answer in form.answers(outputs, source)]


def _row(row: str | Mapping[str, Any], number: int, form: str) -> dict[str, Any]:
    """The fields that are read of a row, and nothing else; TextError if one is not what it should be."""
    given = {"text": row} if isinstance(row, str) else row
    optional = {name: kind for name, kind in OPTIONAL.get(form, {}).items() if name in given}
    found = {}
    for name, kind in {**FIELDS[form], **optional}.items():
        value = given.get(name)
        if name not in given or not _is(value, kind):
            got = f", holds {shown(value)}" if name in given else ""
            raise TextError(number, f"{name}: {form.replace('_', ' ')} needs {kind}{got}")
        found[name] = value
    return found


def _is(value: Any, kind: str) -> bool:
    if kind == TEXT:
        return isinstance(value, str)
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
