"""Labelled texts as a classifier is given them."""

import io
import json

import pytest
import sentencepiece

from pipeline.config import DataError
from pipeline.evaluate.forms import FORMS, Reading
from pipeline.evaluate.task import load_task
from pipeline.runtime import rng_of
from pipeline.tokenizer import CLS, PAD, SEP, SPECIAL_PIECES, Vocabulary

TEXTS = ("a cat sat", "the dog ran far away from the big bad cat", "cat")


@pytest.fixture(scope="module")
def vocabulary():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 50),
        model_writer=out,
        vocab_size=40,
        hard_vocab_limit=False,
        bos_id=-1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        pad_piece=SPECIAL_PIECES[0],
        control_symbols=list(SPECIAL_PIECES[3:]),
        minloglevel=2,
    )
    return Vocabulary(out.getvalue(), 3)


def source_of(vocabulary, max_length):
    rows = [{"text": text, "label": label} for label, text in enumerate(TEXTS)]
    return FORMS["classification"].encoded(rows, vocabulary, Reading(max_length))


def test_a_text_stands_between_cls_and_sep_and_long_texts_lose_their_end(vocabulary):
    max_length = 10
    source = source_of(vocabulary, max_length)
    for index, text in enumerate(TEXTS):
        example = source.example(index, rng_of(0, "any"))
        ids = [CLS, *vocabulary.encode([text])[0][: max_length - 2], SEP]
        padding = max_length - len(ids)
        assert example["input_ids"].tolist() == [*ids, *[PAD] * padding]
        assert example["segment_ids"].tolist() == [1] * len(ids) + [0] * padding
        assert example["position_ids"].tolist() == list(range(max_length))
        assert example["label"] == index
    assert len(vocabulary.encode([TEXTS[1]])[0]) > max_length - 2


def test_a_batch_is_trimmed_to_its_longest_row_in_steps_of_eight(vocabulary):
    source = source_of(vocabulary, 64)
    lengths = source.lengths
    for rows in ([0], [2], [0, 1], [0, 1, 2]):
        batch = source.collate([source.example(row, rng_of(0, "any")) for row in rows])
        expected = -(-lengths[rows].max() // 8) * 8
        assert batch["input_ids"].shape == (len(rows), expected)
        assert batch["label"].tolist() == rows
        assert (batch["segment_ids"].sum(axis=1) == lengths[rows]).all()
        for row, ids in zip(rows, batch["input_ids"], strict=True):
            assert (ids == source.input_ids[row, :expected]).all()
        assert (source.input_ids[rows][:, expected:] == PAD).all()


def test_a_length_between_two_steps_is_kept(vocabulary):
    source = source_of(vocabulary, 10)
    assert source.lengths[1] == 10
    batch = source.collate([source.example(1, rng_of(0, "any"))])
    assert batch["input_ids"].shape == (1, 10)


def test_mistakes_in_a_task_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"task\.json is missing"):
        load_task(tmp_path)
    (tmp_path / "task.json").write_text(json.dumps({"labels": ["x", "y"], "metric": "accuracy"}))
    task = load_task(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        task.rows("test")
    (tmp_path / "test.jsonl").write_text("")
    with pytest.raises(DataError, match="no rows"):
        task.rows("test")
    (tmp_path / "test.jsonl").write_text('{"text": "a", "label": 2}\n')
    with pytest.raises(DataError, match="from 0 to 1"):
        task.rows("test")
