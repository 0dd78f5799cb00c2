"""Forms of labelled rows: which fields of a file are read, and what a row of the task holds. One line a form."""

from typing import Annotated

from pydantic import Field

from data_prep.forms.choice import ChoiceForm
from data_prep.forms.classification import ClassificationForm
from data_prep.forms.regression import RegressionForm
from data_prep.forms.span import SpanForm
from data_prep.forms.token_labels import TokenLabelsForm

AnyForm = Annotated[
    ClassificationForm | RegressionForm | ChoiceForm | TokenLabelsForm | SpanForm,
    Field(discriminator="type"),
]
