"""What a model has to beat: always the commonest label, and a linear model over word counts."""

from collections.abc import Callable

import numpy as np

from pipeline.evaluate.task import LabelledTexts

WORD = r"(?u)\b\w+\b"

Baseline = Callable[[LabelledTexts, tuple[str, ...]], np.ndarray]


def majority(train: LabelledTexts, texts: tuple[str, ...]) -> np.ndarray:
    """The commonest training label (among equals the first) for every text. [texts], int64."""
    return np.full(len(texts), np.bincount(train.labels).argmax(), dtype=np.int64)


def linear(train: LabelledTexts, texts: tuple[str, ...]) -> np.ndarray:
    """Labels by logistic regression over TF-IDF of words and word pairs. [texts], int64."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD),
        LogisticRegression(C=10.0, max_iter=1000),
    )
    model.fit(train.texts, train.labels)
    return np.asarray(model.predict(texts), dtype=np.int64)


BASELINES: dict[str, Baseline] = {"majority": majority, "tfidf_logistic_regression": linear}
