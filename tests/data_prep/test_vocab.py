"""A vocabulary is a function of the corpus lines and the config, with the special ids in place."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.vocab import LONGEST_LINE_BYTES, CorpusLines, Vocab, fit
from pipeline.config import DataError
from pipeline.tokenizer import SPECIAL_PIECES, load_vocabulary

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


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_the_stage_writes_a_vocabulary_and_says_how_it_does(corpus: Path, algorithm: Any) -> None:
    stage = Vocab(corpus="c", size=350, algorithm=algorithm, num_sentinels=7, num_threads=2)
    out = corpus.parent / "out"
    counts = stage.run(Here(out, {"c": corpus}))
    vocabulary = load_vocabulary(out)
    assert [vocabulary.piece(index) for index in range(6)] == list(SPECIAL_PIECES)
    assert (vocabulary.num_pieces, vocabulary.size) == (350, 357)
    assert counts["size"] == 357
    assert (counts["lines"], counts["lines_used"], counts["lines_too_long"]) == (600, 600, 0)
    texts = sentences(9, 50)
    encoded = vocabulary.encode(texts)
    assert counts["validation"]["characters"] == sum(map(len, texts))
    assert counts["validation"]["tokens"] == sum(map(len, encoded))
    assert counts["validation"]["unknown_rate"] == 0.0
    assert [vocabulary.decode(ids) for ids in encoded] == texts


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_the_same_corpus_gives_the_same_bytes(corpus: Path, algorithm: Any) -> None:
    stage = Vocab(corpus="c", size=350, algorithm=algorithm, num_threads=2)
    models = {stage.trained(CorpusLines(corpus, stage.max_sentences)) for _ in range(2)}
    assert len(models) == 1


def test_which_lines_are_used_does_not_depend_on_the_parts(corpus: Path) -> None:
    lines = CorpusLines(corpus, 150)
    used = list(lines)
    assert lines.used == len(used)
    # Binomial with n = 600 and p = 1/4: 5 standard deviations are 53.
    assert abs(len(used) - 150) < 53
    everything = sentences(0, 300) + sentences(1, 300)
    other = corpus.parent / "other"
    for number, start in enumerate(range(0, 600, 100)):
        write_part(other, "train", number, everything[start : start + 100])
    assert list(CorpusLines(other, 150)) == used
    assert {*used[:75]} != {*everything[:75]}


def test_every_line_is_used_when_there_is_room(corpus: Path) -> None:
    assert list(CorpusLines(corpus, 600)) == sentences(0, 300) + sentences(1, 300)


def test_a_line_too_long_is_left_out_and_counted(corpus: Path) -> None:
    write_part(corpus, "train", 2, ["a " * LONGEST_LINE_BYTES + "\n\nThe end."])
    lines = CorpusLines(corpus, 10_000)
    assert list(lines)[600:] == ["The end."]
    assert (lines.total, lines.too_long) == (602, 1)


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_a_corpus_too_small_for_the_size_is_refused_in_words(corpus: Path, algorithm: Any) -> None:
    stage = Vocab(corpus="c", size=30_000, algorithm=algorithm, num_threads=1)
    lines = CorpusLines(corpus, 1000)
    with pytest.raises(DataError, match=r"600 lines give at most \d+ pieces; set size") as refusal:
        stage.trained(lines)
    most = re.search(r"at most (\d+)", str(refusal.value))
    assert most
    fitting = Vocab(corpus="c", size=int(most[1]), algorithm=algorithm, num_threads=1)
    assert fitting.trained(lines)


def test_a_size_below_the_single_characters_is_refused_in_words(corpus: Path) -> None:
    stage = Vocab(corpus="c", size=100, num_threads=1)
    with pytest.raises(DataError, match=r"single characters and special pieces alone are \d+"):
        stage.trained(CorpusLines(corpus, 1000))


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no text"):
        Vocab(corpus="c", size=300).run(Here(tmp_path / "out", {"c": tmp_path}))


def test_special_pieces_in_a_text_are_plain_text(corpus: Path) -> None:
    stage = Vocab(corpus="c", size=350, num_threads=1)
    stage.run(Here(corpus.parent / "out", {"c": corpus}))
    vocabulary = load_vocabulary(corpus.parent / "out")
    (ids,) = vocabulary.encode(["[MASK] </s> <pad> <extra_id_0>"])
    assert ids.min() >= vocabulary.first_ordinary_id
    assert ids.max() < vocabulary.num_pieces


def test_unknown_tokens_are_counted(corpus: Path) -> None:
    stage = Vocab(corpus="c", size=120, byte_fallback=False, num_threads=1)
    stage.run(Here(corpus.parent / "out", {"c": corpus}))
    write_part(corpus, "validation", 0, ["small ☃ stone"])
    figures = fit(load_vocabulary(corpus.parent / "out"), corpus)
    assert figures["unknown_rate"] == round(1 / figures["tokens"], 6)
