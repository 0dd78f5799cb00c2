"""A packed row as an encoder reads it: `[CLS] row [SEP]`, with segments and positions.

[CLS] joins the first document of the row and [SEP] the last; documents are segments from 1, padding is
segment 0, and positions restart in each document.
"""

import numpy as np

from pipeline.data.example import Example, Row
from pipeline.objectives import noise
from pipeline.tokenizer import Vocabulary

FRAME = 2  # tokens around a row


def framed(row: Row, tokens: np.ndarray, vocabulary: Vocabulary, row_length: int) -> Example:
    """input_ids, segment_ids and position_ids [row_length + 2] of `row`, whose tokens may be changed ones."""
    length = row_length + FRAME
    segments = row.segments()
    positions = np.concatenate([np.arange(1, n + 1) for n in row.lengths])
    ids = np.concatenate(([vocabulary.cls], tokens, [vocabulary.sep]))
    return {
        "input_ids": noise.padded(ids, length, vocabulary.pad),
        "segment_ids": noise.padded(
            np.concatenate((segments[:1], segments, segments[-1:])), length, 0
        ),
        "position_ids": noise.padded(
            np.concatenate(([0], positions, positions[-1:] + 1)), length, 0
        ),
    }
