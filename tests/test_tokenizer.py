"""The vocabulary keeps its ids: special ones first, sentinels last, and notices a change."""

import io
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from pipeline import files
from pipeline.config import DataError
from pipeline.tokenizer import CLS, EOS, MASK, PAD, SEP, SPECIAL_PIECES, UNK, load_vocabulary
from pipeline.tokenizer import Vocabulary as Ids

TEXTS = ["a stone in the river", "the house of bread", "water and stone", "a river, a house"]


def trained(special: tuple[str, ...]) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        vocab_size=60,
        model_type="bpe",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece=special[0],
        control_symbols=list(special[3:]),
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def vocabulary() -> Ids:
    return Ids(trained(SPECIAL_PIECES), 10)


def test_special_ids_are_the_first_six(vocabulary: Ids) -> None:
    assert [vocabulary.piece(index) for index in range(6)] == list(SPECIAL_PIECES)
    assert (PAD, EOS, UNK, CLS, SEP, MASK) == (0, 1, 2, 3, 4, 5)
    assert vocabulary.ordinary == (6, vocabulary.num_pieces)


def test_sentinels_count_down_from_the_last_id(vocabulary: Ids) -> None:
    assert vocabulary.size == vocabulary.num_pieces + 10 == 70
    assert [vocabulary.sentinel(index) for index in range(10)] == list(range(69, 59, -1))
    assert vocabulary.piece(vocabulary.sentinel(3)) == "<extra_id_3>"
    with pytest.raises(DataError, match="sentinel 10 was asked for, but the vocabulary has 10"):
        vocabulary.sentinel(10)


def test_text_comes_back(vocabulary: Ids) -> None:
    for text, ids in zip(TEXTS, vocabulary.encode(TEXTS), strict=True):
        assert vocabulary.decode(ids) == text
        assert ids.dtype == np.int32
        assert ids.min() >= vocabulary.ordinary[0]


def test_texts_are_encoded_alone_as_together(vocabulary: Ids) -> None:
    for text, ids in zip(TEXTS, vocabulary.encode(TEXTS), strict=True):
        assert np.array_equal(vocabulary.encode([text])[0], ids)


def test_sentinels_are_decoded_by_name_between_the_text(vocabulary: Ids) -> None:
    first, second = vocabulary.encode(["a stone", "the river"])
    ids = [vocabulary.sentinel(0), *first, vocabulary.sentinel(1), *second]
    assert vocabulary.decode(ids) == "<extra_id_0> a stone <extra_id_1> the river"
    assert vocabulary.decode([]) == ""


def test_a_saved_vocabulary_is_read_back(vocabulary: Ids, tmp_path: Path) -> None:
    vocabulary.save(tmp_path)
    assert load_vocabulary(tmp_path) == vocabulary
    assert load_vocabulary(tmp_path).digest == vocabulary.digest


def test_the_digest_knows_the_number_of_sentinels(vocabulary: Ids) -> None:
    digests = {Ids(vocabulary.model, number).digest for number in (0, 10, 100, 256, 266)}
    assert len(digests) == 5


def test_a_changed_model_is_refused(vocabulary: Ids, tmp_path: Path) -> None:
    vocabulary.save(tmp_path)
    facts = files.read_json(tmp_path / "vocabulary.json")
    files.write_json(tmp_path / "vocabulary.json", facts | {"num_sentinels": 11})
    with pytest.raises(DataError, match="is not the one that vocabulary"):
        load_vocabulary(tmp_path)


def test_special_ids_are_looked_up(tmp_path: Path) -> None:
    other = Ids(trained(("<pad>", "</s>", "<unk>", "[MASK]", "<s>", "[CLS]")), 10)
    assert (other.cls, other.mask, other.num_pieces) == (5, 3, 60)
    # What the model lacks lies above the sentinels, which stay where T5 has them.
    assert (other.sep, other.sentinel(0), other.size) == (70, 69, 71)
    assert other.piece(70) == "[SEP]"
    assert other.ordinary == (6, 60)
    other.check_bijective()
    other.save(tmp_path)
    assert load_vocabulary(tmp_path).special_ids == other.special_ids


def test_special_ids_of_another_model_are_refused(vocabulary: Ids, tmp_path: Path) -> None:
    vocabulary.save(tmp_path)
    facts = files.read_json(tmp_path / "vocabulary.json")
    facts["special_ids"]["mask"] = 4
    files.write_json(tmp_path / "vocabulary.json", facts)
    with pytest.raises(DataError, match=r"special ids are .*make the vocabulary again"):
        load_vocabulary(tmp_path)


@pytest.mark.parametrize("name", ["spiece.model", "vocabulary.json"])
def test_a_missing_file_is_named(vocabulary: Ids, tmp_path: Path, name: str) -> None:
    vocabulary.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"holds no vocabulary .*{name} is missing"):
        load_vocabulary(tmp_path)
