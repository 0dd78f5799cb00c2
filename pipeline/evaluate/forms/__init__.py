"""Forms of tasks: what a row holds, how a network reads it, learns from it, and what it answers. One line a form."""

from pipeline.evaluate.forms import choice, classification, regression, span, token_labels
from pipeline.evaluate.forms.form import Aims, EncodedRows, Reading

FORMS = {
    form.name: form
    for form in (
        classification.FORM,
        regression.FORM,
        choice.FORM,
        token_labels.FORM,
        span.FORM,
    )
}

__all__ = ["FORMS", "Aims", "EncodedRows", "Reading"]
