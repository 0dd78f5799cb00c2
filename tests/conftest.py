"""Fixtures shared by the suites: a small real vocabulary and token folder, made once."""

import io
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from real_text import documents

from pipeline.data.shard_file import layout_for, shard_facts, write_shard
from pipeline.data.shards import write_manifest
from pipeline.tokenizer import SPECIAL_PIECES, Vocabulary


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """A unigram vocabulary of 600 pieces and 40 sentinels."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents()),
        model_writer=model,
        vocab_size=600,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece=SPECIAL_PIECES[0],
        eos_piece=SPECIAL_PIECES[1],
        unk_piece=SPECIAL_PIECES[2],
        control_symbols=list(SPECIAL_PIECES[3:]),
        num_threads=1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return Vocabulary(model.getvalue(), 40)


@pytest.fixture(scope="session")
def token_folder(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tokens` stage's output: rows of 30 tokens, two splits."""
    folder = tmp_path_factory.mktemp("tokens")
    encoded = [np.asarray(ids) for ids in vocabulary.encode(documents())]
    facts, layout = {}, layout_for(vocabulary, 30)
    for split, part in (("train", encoded[200:]), ("validation", encoded[:200])):
        path = folder / split / "shard-00000.arrow"
        write_shard(path, [(0, part)], layout)
        facts[split] = [shard_facts(path)]
    write_manifest(
        folder, vocabulary=vocabulary, layout=layout, sources={"dictionary": 1.0}, shards=facts
    )
    return folder
