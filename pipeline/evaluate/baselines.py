"""What a model has to beat: always the same answer, and a linear model over word counts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluate.forms.form import TaskRow

WORD = r"(?u)\b\w+\b"

Baseline = Callable[[Sequence[TaskRow], Sequence[TaskRow]], np.ndarray]


def majority(train: Sequence[TaskRow], rows: Sequence[TaskRow]) -> np.ndarray:
    """The commonest training label (among equals the first) for every row. [rows], int64."""
    counts = np.bincount([row["label"] for row in train])
    return np.full(len(rows), counts.argmax(), dtype=np.int64)


def mean(train: Sequence[TaskRow], rows: Sequence[TaskRow]) -> np.ndarray:
    """The mean of the training numbers for every row. [rows], float64."""
    return np.full(len(rows), np.mean([row["label"] for row in train]))


def linear(train: Sequence[TaskRow], rows: Sequence[TaskRow]) -> np.ndarray:
    """Labels by logistic regression over TF-IDF of words and word pairs. [rows], int64."""
    from sklearn.linear_model import LogisticRegression

    return np.asarray(
        _fitted(LogisticRegression(C=10.0, max_iter=1000), train, rows), dtype=np.int64
    )


def ridge(train: Sequence[TaskRow], rows: Sequence[TaskRow]) -> np.ndarray:
    """Numbers by ridge regression over TF-IDF of words and word pairs. [rows], float64."""
    from sklearn.linear_model import Ridge

    return np.asarray(_fitted(Ridge(), train, rows), dtype=np.float64)


def _fitted(model: Any, train: Sequence[TaskRow], rows: Sequence[TaskRow]) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    whole = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD), model
    )
    whole.fit(texts_of(train), [row["label"] for row in train])
    return whole.predict(texts_of(rows))


def texts_of(rows: Sequence[TaskRow]) -> list[str]:
    """The text of each row, both of a pair one after the other."""
    return ["\n".join(filter(None, (row["text"], row.get("second")))) for row in rows]


# By form of task; the others have none.
BASELINES: Mapping[str, Mapping[str, Baseline]] = {
    "classification": {"majority": majority, "tfidf_logistic_regression": linear},
    "regression": {"mean": mean, "tfidf_ridge_regression": ridge},
}
