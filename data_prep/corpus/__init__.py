"""The `corpus` stage: raw pages of many sources to clean, deduplicated, accounted documents."""

from data_prep.corpus.stage import Corpus

__all__ = ["Corpus"]
