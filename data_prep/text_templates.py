"""Tasks of text to text by name: how T5 writes them (Raffel et al. 2020, appendix D), and how they are judged.

Fields are called as in the data sets of the Hugging Face hub: those of GLUE, SuperGLUE, SQuAD and CNN / Daily Mail.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TextTemplate:
    """Templates of both sides, words for labels, the step of numbers, and metrics of what is written."""

    inputs: str
    targets: str = "{label}"
    words: Mapping[str, str] = field(default_factory=dict)
    step: float | None = None
    metrics: tuple[str, ...] = ("accuracy",)


def _words(*names: str) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names)}


ENTAILMENT = _words("entailment", "not_entailment")
BOOLEAN = _words("False", "True")

TEMPLATES: Mapping[str, TextTemplate] = {
    "glue/cola": TextTemplate(
        "cola sentence: {sentence}",
        words=_words("unacceptable", "acceptable"),
        metrics=("matthews",),
    ),
    "glue/sst2": TextTemplate("sst2 sentence: {sentence}", words=_words("negative", "positive")),
    "glue/mrpc": TextTemplate(
        "mrpc sentence1: {sentence1} sentence2: {sentence2}",
        words=_words("not_equivalent", "equivalent"),
    ),
    "glue/stsb": TextTemplate(
        "stsb sentence1: {sentence1} sentence2: {sentence2}",
        step=0.2,
        metrics=("pearson", "spearman"),
    ),
    "glue/qqp": TextTemplate(
        "qqp question1: {question1} question2: {question2}",
        words=_words("not_duplicate", "duplicate"),
    ),
    "glue/mnli": TextTemplate(
        "mnli hypothesis: {hypothesis} premise: {premise}",
        words=_words("entailment", "neutral", "contradiction"),
    ),
    "glue/qnli": TextTemplate("qnli question: {question} sentence: {sentence}", words=ENTAILMENT),
    "glue/rte": TextTemplate("rte sentence1: {sentence1} sentence2: {sentence2}", words=ENTAILMENT),
    "super_glue/boolq": TextTemplate(
        "boolq passage: {passage} question: {question}", words=BOOLEAN
    ),
    "super_glue/cb": TextTemplate(
        "cb hypothesis: {hypothesis} premise: {premise}",
        words=_words("entailment", "contradiction", "neutral"),
        metrics=("accuracy", "macro_f1"),
    ),
    "super_glue/copa": TextTemplate(
        "copa choice1: {choice1} choice2: {choice2} premise: {premise} question: {question}",
        words=_words("choice1", "choice2"),
    ),
    "super_glue/multirc": TextTemplate(
        "multirc question: {question} answer: {answer} paragraph: {paragraph}", words=BOOLEAN
    ),
    "super_glue/rte": TextTemplate(
        "rte hypothesis: {hypothesis} premise: {premise}", words=ENTAILMENT
    ),
    "super_glue/wic": TextTemplate(
        "wic sentence1: {sentence1} sentence2: {sentence2} word: {word}", words=BOOLEAN
    ),
    "cnn_dailymail": TextTemplate(
        "summarize: {article}", "{highlights}", metrics=("rouge1", "rouge2", "rougeLsum")
    ),
}
