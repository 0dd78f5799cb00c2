"""A vocabulary is a function of the corpus lines and the config, with the special ids in place."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece

from data_prep import vocab, vocab_words
from data_prep.vocab import Vocab
from data_prep.vocab_sample import sampled_lines, text_lines
from data_prep.vocab_words import LONGEST_LINE_BYTES
from pipeline.config import DataError
from pipeline.tokenizer import SPECIAL_PIECES, Vocabulary, load_vocabulary

SYLLABLES = "ka ri mo ten sul ba der li no pra vi gu shan e to".split()
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in ("", "s", "ing")]


@dataclass
class Here:
    """The work of a stage, done in this process."""

    out: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], *, unit: str
    ) -> Iterator[Any]:
        return map(function, items)

    def progress(self, done: int, total: int, unit: str, **figures: float) -> None:
        raise NotImplementedError

    def train(self, stage: Any) -> None:
        raise NotImplementedError


def write_part(folder: Path, split: str, number: int, texts: list[str]) -> None:
    (folder / split).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts}), folder / split / f"part-{number:05d}.parquet")


def sentences(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"The {' '.join(rng.choice(WORDS, 6))} {rng.integers(1000)}." for _ in range(count)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for number in range(2):
        lines = sentences(number, 300)
        pages = ["\n".join(lines[start : start + 5]) for start in range(0, 300, 5)]
        write_part(tmp_path / "corpus", "train", number, pages)
    write_part(tmp_path / "corpus", "validation", 0, sentences(9, 50))
    return tmp_path / "corpus"


def made(corpus: Path, **settings: Any) -> tuple[Vocabulary, Mapping[str, Any]]:
    """The vocabulary a stage makes, and its counts."""
    out = corpus.parent / "-".join(["out", *map(str, settings.values())])
    stage = Vocab(**{"corpus": "c", "size": 350, "num_threads": 1, **settings})
    counts = stage.run(Here(out, {"c": corpus}))
    assert sorted(path.name for path in out.iterdir()) == ["spiece.model", "vocabulary.json"]
    return load_vocabulary(out), counts


def pieces(model: bytes) -> list[tuple[str, float]]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = range(processor.get_piece_size())
    return [(processor.id_to_piece(token), processor.get_score(token)) for token in ids]


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_the_stage_writes_a_vocabulary_and_says_how_it_does(corpus: Path, algorithm: Any) -> None:
    vocabulary, counts = made(corpus, algorithm=algorithm, num_sentinels=7, num_threads=2)
    assert [vocabulary.piece(index) for index in range(6)] == list(SPECIAL_PIECES)
    assert (vocabulary.num_pieces, vocabulary.size) == (350, 357)
    assert counts["size"] == 357
    assert (counts["lines"], counts["lines_too_long"]) == (600, 0)
    texts = sentences(9, 50)
    encoded = vocabulary.encode(texts)
    found = counts["validation"]
    assert found["characters"] == sum(map(len, texts))
    assert found["tokens"] == sum(map(len, encoded))
    assert found["words"] == sum(len(text.split()) for text in texts)
    assert found["tokens_per_word"] == round(found["tokens"] / found["words"], 4)
    assert found["unknown_rate"] == 0.0
    assert [vocabulary.decode(ids) for ids in encoded] == texts


AWKWARD = [
    "\u2581\u2581a \u2581 b\u2581",
    "x\u0301 \u00b4 a\u200b\u0301 \ufb01 \u00bd \u00a0\u00a0 [CLS] foo[MASK]bar <pad> stop",
    "na\u00efve\u0000nul \u2047 \u00e9\ttab",
    "line one\nline two\r\nline\u2028three\u0085four",
    "\u3000\u5168\u89d2\u3000\u30b9\u30da\u30fc\u30b9 \ufdfa 1234567",
    "left out \u2585 because of one sign\nbut not this line",
    "\u200b",
    "  ",
]


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("coverage", [1.0, 0.98])
def test_word_counts_give_the_pieces_of_the_raw_text(
    corpus: Path, coverage: float, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BPE on counts, in any cut, is BPE on the lines, and the model treats text in the same way."""
    texts = AWKWARD * 3
    write_part(corpus, "train", 2, texts)
    size = sum(part.stat().st_size for part in (corpus / "train").iterdir())
    monkeypatch.setattr(vocab_words, "BYTES_PER_PARTITION", size // partitions + partitions)
    monkeypatch.setattr(vocab_words, "WORDS_AT_ONCE", 100)
    monkeypatch.setattr(vocab_words, "LONGEST_LINE_BYTES", 1000)
    write_part(corpus, "train", 3, ["too long " * 200])
    everything = [*sentences(0, 300), *sentences(1, 300), *texts]
    raw = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in everything for line in text.splitlines()),
        model_writer=raw,
        model_type="bpe",
        vocab_size=420,
        character_coverage=coverage,
        byte_fallback=True,
        split_digits=True,
        max_sentence_length=1000,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        num_threads=2,
        minloglevel=2,
    )
    vocabulary, counts = made(corpus, size=420, algorithm="bpe", character_coverage=coverage)
    assert pieces(vocabulary.model) == pieces(raw.getvalue())
    reference = Vocabulary(raw.getvalue(), 100)
    for ours, theirs in zip(vocabulary.encode(texts), reference.encode(texts), strict=True):
        assert np.array_equal(ours, theirs)
    assert (counts["lines_reserved"], counts["lines_too_long"]) == (3, 1)


def test_the_rarest_words_are_left_out_when_there_are_too_many(tmp_path: Path) -> None:
    write_part(tmp_path / "corpus", "train", 0, ["one one one two two six ten"])
    (table,) = vocab_words.counted_words(
        Here(tmp_path), [tmp_path / "corpus/train/part-00000.parquet"], tmp_path / "scratch"
    )[1]
    for most, least in ((9, 1), (4, 1), (3, 2), (2, 2), (1, 3)):
        assert vocab_words.least_count([table], most) == least
    assert list(vocab_words.word_lines([table], 2)) == ["\u2581one\t3", "\u2581two\t2"]


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_the_same_corpus_gives_the_same_bytes(corpus: Path, algorithm: Any) -> None:
    models = {made(corpus, algorithm=algorithm, num_sentinels=n)[0].model for n in (1, 2)}
    assert len(models) == 1


def test_t5s_layout_has_t5s_ids_and_the_rest_above(corpus: Path) -> None:
    vocabulary, _ = made(corpus, layout="t5", algorithm="bpe", num_sentinels=100)
    assert [vocabulary.piece(token) for token in range(3)] == ["<pad>", "</s>", "<unk>"]
    assert vocabulary.ordinary == (3, 350)
    # T5 counts its 100 sentinels down from the last of its ids.
    assert (vocabulary.sentinel(0), vocabulary.sentinel(99)) == (449, 350)
    assert (vocabulary.cls, vocabulary.sep, vocabulary.mask) == (450, 451, 452)
    assert vocabulary.size == 453


def test_figures_are_of_each_source_and_language(corpus: Path) -> None:
    texts, sources, languages = sentences(5, 4), ["a", "a", "b", "b"], ["en", "de", "en", "en"]
    table = pa.table({"text": texts, "source": sources, "language": languages})
    pq.write_table(table, corpus / "validation" / "part-00000.parquet")
    vocabulary, counts = made(corpus, algorithm="bpe")
    tokens = [len(ids) for ids in vocabulary.encode(texts)]
    found = counts["validation"]
    assert found["tokens"] == sum(tokens)
    assert {name: own["tokens"] for name, own in found["sources"].items()} == {
        "a": sum(tokens[:2]),
        "b": sum(tokens[2:]),
    }
    assert {name: own["tokens"] for name, own in found["languages"].items()} == {
        "de": tokens[1],
        "en": sum(tokens) - tokens[1],
    }


def sample(corpus: Path, most: int) -> tuple[vocab_words.Lines, list[str]]:
    scratch = corpus.parent / f"scratch-{corpus.name}-{most}"
    parts = sorted((corpus / "train").iterdir())
    lines, paths = sampled_lines(Here(scratch), parts, most, scratch)
    return lines, list(text_lines(paths))


def test_which_lines_are_used_does_not_depend_on_the_parts(corpus: Path) -> None:
    lines, used = sample(corpus, 150)
    assert lines.total == 600
    # Binomial with n = 600 and p = 1/4: 5 standard deviations are 53.
    assert abs(len(used) - 150) < 53
    everything = sentences(0, 300) + sentences(1, 300)
    other = corpus.parent / "other"
    for number, start in enumerate(range(0, 600, 100)):
        write_part(other, "train", number, everything[start : start + 100])
    assert sample(other, 150)[1] == used
    assert {*used[:75]} != {*everything[:75]}


def test_every_line_is_used_when_there_is_room(corpus: Path) -> None:
    assert sample(corpus, 600)[1] == sentences(0, 300) + sentences(1, 300)


def test_a_line_too_long_is_left_out_and_counted(corpus: Path) -> None:
    write_part(corpus, "train", 2, ["a " * LONGEST_LINE_BYTES + "\n\nThe end."])
    lines, used = sample(corpus, 10_000)
    assert used[600:] == ["The end."]
    assert (lines.total, lines.too_long) == (602, 1)


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_a_corpus_too_small_for_the_size_is_refused_in_words(corpus: Path, algorithm: Any) -> None:
    with pytest.raises(DataError, match=r"600 lines give at most \d+ pieces; set size") as refusal:
        made(corpus, size=30_000, algorithm=algorithm)
    most = re.search(r"at most (\d+)", str(refusal.value))
    assert most
    assert made(corpus, size=int(most[1]), algorithm=algorithm)[0].num_pieces == int(most[1])


def test_a_size_below_the_single_characters_is_refused_in_words(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"single characters and special pieces alone are \d+"):
        made(corpus, size=100)


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no text"):
        Vocab(corpus="c", size=300).run(Here(tmp_path / "out", {"c": tmp_path}))


def test_a_second_run_goes_on_from_what_is_there(corpus: Path) -> None:
    """A run that was killed before its end is finished without counting or training again."""
    out = corpus.parent / "out"
    first = Here(out, {"c": corpus})
    parts = sorted((corpus / "train").iterdir())
    stage = Vocab(corpus="c", size=350, algorithm="bpe", num_threads=1)
    lines, tables = vocab_words.counted_words(first, parts, out / ".scratch")
    training = vocab.Training(
        stage, corpus, lines.total, tuple(tables), out / ".scratch/trained.model"
    )
    facts = vocab.train_unit(training)
    before = training.path.read_bytes()
    for part in parts:
        part.write_bytes(b"gone")
    counts = stage.run(first)
    assert counts["words_used"] == facts["words_used"]
    assert load_vocabulary(out).model == before


def test_special_pieces_in_a_text_are_plain_text(corpus: Path) -> None:
    vocabulary, _ = made(corpus)
    (ids,) = vocabulary.encode(["[MASK] </s> <pad> <extra_id_0>"])
    assert ids.min() >= vocabulary.ordinary[0]
    assert ids.max() < vocabulary.num_pieces


def test_unknown_tokens_are_counted(corpus: Path) -> None:
    write_part(corpus, "validation", 0, ["small \u2603 stone"])
    _, counts = made(corpus, size=120, byte_fallback=False)
    found = counts["validation"]
    assert found["unknown"] == 1
    assert found["unknown_rate"] == round(1 / found["tokens"], 6)
