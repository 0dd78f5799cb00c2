"""Tasks by name: GLUE, SuperGLUE and SQuAD, with the fields they have on the Hugging Face hub and the official metrics.

The test splits of GLUE and SuperGLUE come without labels, so what is reported is the score on the official validation
split, as papers do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from data_prep.forms import AnyForm
from data_prep.forms.choice import ChoiceForm
from data_prep.forms.classification import ClassificationForm
from data_prep.forms.regression import RegressionForm
from data_prep.forms.span import SpanForm


@dataclass(frozen=True)
class KnownTask:
    """The form of its rows, its metrics (models are compared by the first), and the split they are tested on."""

    form: AnyForm
    metrics: tuple[str, ...]
    tested: str = "validation"


def _pair(text: str, second: str) -> ClassificationForm:
    return ClassificationForm(text=text, second=second)


SENTENCES = _pair("sentence1", "sentence2")
PREMISE = _pair("premise", "hypothesis")

KNOWN: Mapping[str, KnownTask] = {
    "glue/cola": KnownTask(ClassificationForm(text="sentence"), ("matthews", "accuracy")),
    "glue/sst2": KnownTask(ClassificationForm(text="sentence"), ("accuracy",)),
    "glue/mrpc": KnownTask(SENTENCES, ("f1", "accuracy")),
    "glue/stsb": KnownTask(
        RegressionForm(text="sentence1", second="sentence2"), ("spearman", "pearson")
    ),
    "glue/qqp": KnownTask(_pair("question1", "question2"), ("f1", "accuracy")),
    "glue/mnli": KnownTask(PREMISE, ("accuracy",), "validation_matched"),
    "glue/mnli_mismatched": KnownTask(PREMISE, ("accuracy",), "validation_mismatched"),
    "glue/qnli": KnownTask(_pair("question", "sentence"), ("accuracy",)),
    "glue/rte": KnownTask(SENTENCES, ("accuracy",)),
    "glue/wnli": KnownTask(SENTENCES, ("accuracy",)),
    "super_glue/boolq": KnownTask(_pair("question", "passage"), ("accuracy",)),
    "super_glue/cb": KnownTask(PREMISE, ("accuracy", "macro_f1")),
    "super_glue/copa": KnownTask(
        ChoiceForm(text=("premise", "question"), choices=("choice1", "choice2")), ("accuracy",)
    ),
    "super_glue/rte": KnownTask(PREMISE, ("accuracy",)),
    "squad": KnownTask(SpanForm(), ("squad_f1", "squad_exact")),
    "squad_v2": KnownTask(SpanForm(), ("squad_f1", "squad_exact")),
}
