"""An imported vocabulary keeps every id, and gets what objectives need above them."""

import io
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from real_text import documents

from data_prep.vocab_import import VocabImport, word_piece
from pipeline.config import ConfigError, DataError, build_from
from pipeline.tokenizer import Vocabulary, imported, load_vocabulary

BERT = ["[PAD]", *(f"[unused{n}]" for n in range(9)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass
class Here:
    """The work of a stage, done in this process."""

    out: Path
    inputs: dict[str, Path] = field(default_factory=dict)

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], *, unit: str
    ) -> Iterator[Any]:
        return map(function, items)


def imported_from(path: Path, **settings: Any) -> tuple[Vocabulary, Any]:
    """The vocabulary a stage imports, and its counts."""
    out = path.parent / "out"
    counts = VocabImport(path=path, **settings).run(Here(out))
    return load_vocabulary(out), counts


@pytest.fixture(scope="module")
def words() -> list[str]:
    """WordPiece pieces: all letters alone and inside, common words, common ends; lower case."""
    text = [plain for document in documents()[:400] for plain in bert_words(document)]
    letters = sorted({letter for word in text for letter in word} - set("z€"))
    common = sorted({word for word in text if len(word) > 1 and text.count(word) > 20})
    ends = [f"##{end}" for end in ("ing", "ed", "er", "tion", "al", "ly")]
    return [*BERT, *letters, *(f"##{letter}" for letter in letters), *common, *ends]


def bert_words(text: str) -> list[str]:
    """BERT's basic tokenizer for uncased Latin text: no accents, punctuation apart."""
    plain = unicodedata.normalize("NFD", text.lower())
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Mn")
    apart = "".join(
        f" {letter} "
        if unicodedata.category(letter).startswith("P") or letter in "$+<=>^`|~"
        else letter
        for letter in plain
    )
    return apart.split()


def longest_first(word: str, ids: dict[str, int]) -> list[int]:
    """WordPiece of one word, literally: the longest piece that fits, again and again."""
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = word[start:end] if start == 0 else f"##{word[start:end]}"
            if piece in ids:
                found.append(ids[piece])
                start = end
                break
        else:
            return [ids["[UNK]"]]
    return found


def test_word_piece_gives_berts_ids(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    vocabulary, counts = imported_from(tmp_path / "vocab.txt", num_sentinels=3)
    ids = {piece: number for number, piece in enumerate(words)}
    texts = [*documents()[:300], "Zebras, naïve CAFÉS.", "[MASK] it [PAD]", ""]
    for text, found in zip(texts, vocabulary.encode(texts), strict=True):
        expected = [token for word in bert_words(text) for token in longest_first(word, ids)]
        assert found.tolist() == expected
        assert found.dtype == np.int32
    assert [vocabulary.piece(token) for token in range(len(words))] == words
    assert (vocabulary.pad, vocabulary.unk, vocabulary.cls, vocabulary.sep) == (0, 10, 11, 12)
    assert (vocabulary.mask, vocabulary.ordinary) == (13, (14, len(words)))
    # T5's marks and end, which BERT does not have, are above.
    size = len(words)
    assert [vocabulary.sentinel(n) for n in range(3)] == [size + 2, size + 1, size]
    assert (vocabulary.eos, vocabulary.size) == (size + 3, size + 4)
    assert counts["added_above"] == ["</s>"]


def test_case_is_told_by_the_pieces_or_by_the_user() -> None:
    for pieces, case, expected in (
        ("[UNK]\na\n##a", "auto", 1),
        ("[UNK]\na\nA", "auto", 2),
        ("[UNK]\na\n##a", "keep", 0),
        ("[UNK]\na\nA", "lower", 1),
    ):
        (ids,) = imported(word_piece(pieces, case), "tokenizers", 0, {}).encode(["A"])
        assert ids.tolist() == [expected]


def sentence_piece(**settings: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents()[:300]),
        model_writer=model,
        vocab_size=200,
        num_threads=1,
        minloglevel=2,
        **settings,
    )
    return model.getvalue()


def test_t5s_model_keeps_t5s_ids(tmp_path: Path) -> None:
    model = sentence_piece(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (tmp_path / "spiece.model").write_bytes(model)
    vocabulary, counts = imported_from(tmp_path / "spiece.model")
    assert (vocabulary.pad, vocabulary.eos, vocabulary.unk) == (0, 1, 2)
    assert (vocabulary.sentinel(0), vocabulary.sentinel(99)) == (299, 200)
    assert counts["added_above"] == ["[CLS]", "[SEP]", "[MASK]"]
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text, ids in zip(documents()[:50], vocabulary.encode(documents()[:50]), strict=True):
        assert ids.tolist() == processor.encode(text)
        assert vocabulary.decode(ids) == processor.decode(processor.encode(text))


def test_other_special_pieces_are_found_or_named(tmp_path: Path) -> None:
    path = tmp_path / "other.model"
    path.write_bytes(sentence_piece(unk_piece="<what>", user_defined_symbols=["<hide>"]))
    vocabulary, _ = imported_from(path, special={"mask": "<hide>"}, num_sentinels=0)
    # SentencePiece's own default ids: <unk> 0, <s> 1, </s> 2, no padding.
    assert (vocabulary.unk, vocabulary.cls, vocabulary.sep, vocabulary.eos) == (0, 1, 2, 2)
    assert (vocabulary.mask, vocabulary.pad, vocabulary.size) == (3, 200, 201)
    # A text cannot spell the mask, not even one that the model would find in it.
    (ids,) = vocabulary.encode(["a <hide> b"])
    assert vocabulary.mask not in ids
    assert vocabulary.unk in ids
    with pytest.raises(DataError, match=r"no piece '<void>'"):
        imported_from(path, special={"pad": "<void>"})


def test_a_tokenizer_json_with_sentinels_inside(tmp_path: Path) -> None:
    names = ["<pad>", "</s>", "<unk>", *"abc", *(f"<extra_id_{n}>" for n in (2, 1, 0))]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.add_special_tokens([name for name in names if name.startswith("<")])
    backend.enable_truncation(2)
    backend.save(str(tmp_path / "tokenizer.json"))
    vocabulary, counts = imported_from(tmp_path / "tokenizer.json", num_sentinels=4)
    assert [vocabulary.sentinel(n) for n in range(4)] == [8, 7, 6, 9]
    assert counts["added_above"] == ["[CLS]", "[SEP]", "[MASK]"]
    assert [ids.tolist() for ids in vocabulary.encode(["a b c d a", ""])] == [[3, 4, 5, 2, 3], []]
    assert vocabulary.decode([3, 8, 4, 9]) == "a <extra_id_0> b <extra_id_3>"
    assert vocabulary.ordinary == (3, 6)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("vocab.txt", b"[UNK]\na\nb\na\n", "piece 'a' is on line 2 and on line 4"),
        ("vocab.txt", b"a\nb\n", r"no piece \[UNK\]"),
        ("vocab.txt", b"[UNK]\n\xff\n", "utf-8"),
        ("tokenizer.json", b"{", "JSON|Expecting"),
        ("tokenizer.json", b'{"vocab": {}}', "has no model"),
        ("spiece.model", b"nothing like it", "not a usable SentencePiece vocabulary"),
    ],
)
def test_a_damaged_vocabulary_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        imported_from(tmp_path / name)


def test_ids_that_are_not_one_to_one_are_refused(tmp_path: Path) -> None:
    model = tokenizers.models.WordLevel({"<unk>": 0, "a": 1, "b": 3}, unk_token="<unk>")
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(model).save(str(path))
    assert json.loads(path.read_text())["model"]["vocab"]["b"] == 3
    with pytest.raises(DataError, match="not one to one: id 2 is piece ''"):
        imported_from(path)


def test_a_file_of_another_kind_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"\.model \(SentencePiece\)"):
        build_from(VocabImport, {"kind": "vocab_import", "path": "vocab.bin"})
