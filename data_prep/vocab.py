"""The `vocab` stage: train a SentencePiece model on the train split of a corpus.

BPE learns from the counts of all words, which gives the pieces of training on the whole text, in memory that does not
grow with it. Unigram learns from a sample of lines chosen by hash. The number of threads is part of the config
because unigram scores depend on it.
"""

import io
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import sentencepiece
from pydantic import Field
from sentencepiece import sentencepiece_model_pb2 as model_format

from data_prep.documents import parts_of
from data_prep.vocab_fit import validation_fit
from data_prep.vocab_sample import sampled_lines, text_lines
from data_prep.vocab_words import (
    LONGEST_LINE_BYTES,
    RULES,
    counted_words,
    least_count,
    normalizer_spec,
    word_lines,
)
from pipeline import files
from pipeline.config import DataError, config
from pipeline.flow.stage import Artifact, Claim, Reads, Work
from pipeline.tokenizer import EOS, PAD, SPECIAL_PIECES, UNK, Vocabulary

SCRATCH = ".scratch"
LONGEST_WORD_BYTES = 1 << 24  # a line of one word, normalised to a multiple of its length
QUIET = 2  # SentencePiece's log level: errors only


@config
class Vocab:
    """A vocabulary of `size` pieces, byte pieces included, and sentinels above them.

    `num_sentinels` is how many marks of hidden spans there are. With `layout: theseum` all special
    pieces are the first ids; with `layout: t5` the ids are T5's, `<pad>`, `</s>`, `<unk>`, pieces,
    sentinels, and what T5 does not have ([CLS], [SEP], [MASK]) comes last.
    `character_coverage` is the share of the corpus's characters that get a piece of their own; with
    `byte_fallback` the others are spelt in bytes. `split_digits` makes every digit a piece.
    `algorithm` and `num_threads` are SentencePiece's.
    For bpe the words of all lines are counted; when there are more than `max_words` different ones,
    the rarest are left out. For unigram about `max_sentences` lines are used when the corpus has
    more. Lines of more than 64 KiB are left out and counted.
    """

    makes: ClassVar[Artifact] = "vocab"
    claims: ClassVar[Claim] = "units"
    version: ClassVar[int] = 2

    kind: Literal["vocab"] = "vocab"
    corpus: Annotated[str, Reads("corpus")]
    size: Annotated[int, Field(ge=64, le=1 << 20)]
    algorithm: Literal["unigram", "bpe"] = "unigram"
    layout: Literal["theseum", "t5"] = "theseum"
    num_sentinels: Annotated[int, Field(ge=0, le=1000)] = 100
    max_words: Annotated[int, Field(ge=1)] = 2_000_000
    max_sentences: Annotated[int, Field(ge=1)] = 1_000_000
    character_coverage: Annotated[float, Field(gt=0.9, le=1.0)] = 0.9995
    byte_fallback: bool = True
    split_digits: bool = True
    num_threads: Annotated[int, Field(ge=1, le=256)] = 4

    def sources(self) -> Sequence[Path]:
        """None: everything comes from another stage."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write the vocabulary; report what it is made of and how it does on validation text."""
        corpus, scratch = work.inputs[self.corpus], work.out / SCRATCH
        parts = parts_of(corpus, "train")
        if self.algorithm == "bpe":
            lines, tables = counted_words(work, parts, scratch)
        else:
            lines, tables = sampled_lines(work, parts, self.max_sentences, scratch)
        if not lines.total:
            raise DataError(f"{corpus}: its train split has no text to make a vocabulary of")
        training = Training(self, corpus, lines.total, tuple(tables), scratch / "trained.model")
        (facts,) = work.map(train_unit, [training], unit="vocabularies trained")
        vocabulary = Vocabulary(training.path.read_bytes(), self.num_sentinels)
        vocabulary.check_bijective()
        vocabulary.save(work.out)
        counts = {
            "size": vocabulary.size,
            "pieces": vocabulary.num_pieces,
            "algorithm": self.algorithm,
            "layout": self.layout,
            "num_threads": self.num_threads,
            "lines": lines.total,
            "lines_too_long": lines.too_long,
            "lines_reserved": lines.reserved,
            **facts,
            "validation": validation_fit(work, corpus, work.out),
        }
        shutil.rmtree(scratch)
        return counts


@dataclass(frozen=True)
class Training:
    """A model to be trained on what was counted or sampled, and its place."""

    stage: Vocab
    corpus: Path
    lines: int
    tables: tuple[Path, ...]
    path: Path


def train_unit(training: Training) -> dict[str, int]:
    """Train a model unless that is done; returns how much of the corpus it has seen."""
    done = training.path.with_suffix(".json")
    if not done.exists():
        if training.stage.algorithm == "bpe":
            least = least_count(training.tables, training.stage.max_words)
            used = Counted(word_lines(training.tables, least))
            model = on_words(training, used)
            facts = {"words_used": used.number, "least_word_count": least}
        else:
            used = Counted(text_lines(training.tables))
            model = on_lines(training, used)
            facts = {"lines_used": used.number}
        files.write_bytes(training.path, model)
        files.write_json(done, facts)
    return files.read_json(done)


class Counted:
    """Strings one by one, and how many have been taken."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._strings = iter(strings)
        self.number = 0

    def __iter__(self) -> "Counted":
        return self

    def __next__(self) -> str:
        string = next(self._strings)
        self.number += 1
        return string


def on_lines(training: Training, lines: Iterable[str]) -> bytes:
    """The model of these lines of text."""
    settings = {"max_sentence_length": LONGEST_LINE_BYTES, "normalization_rule_name": RULES}
    return _trained(training, lines, settings)


def on_words(training: Training, words: Iterable[str]) -> bytes:
    """The model of words with their counts: they are normalised already, so the trainer leaves them alone.

    The model gets the rules afterwards.
    """
    settings = {
        "input_format": "tsv",
        "max_sentence_length": LONGEST_WORD_BYTES,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
    }
    model = model_format.ModelProto.FromString(_trained(training, words, settings))
    model.normalizer_spec.ParseFromString(normalizer_spec())
    return bytes(model.SerializeToString(deterministic=True))


def _trained(training: Training, sentences: Iterable[str], settings: Mapping[str, Any]) -> bytes:
    """SentencePiece's model; DataError when there is too little text for the size."""
    stage, model = training.stage, io.BytesIO()
    inside = SPECIAL_PIECES[UNK + 1 :] if stage.layout == "theseum" else ()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=stage.algorithm,
            vocab_size=stage.size,
            character_coverage=stage.character_coverage,
            byte_fallback=stage.byte_fallback,
            split_digits=stage.split_digits,
            num_threads=stage.num_threads,
            pad_id=PAD,
            eos_id=EOS,
            unk_id=UNK,
            bos_id=-1,
            pad_piece=SPECIAL_PIECES[PAD],
            eos_piece=SPECIAL_PIECES[EOS],
            unk_piece=SPECIAL_PIECES[UNK],
            control_symbols=list(inside),
            minloglevel=QUIET,
            **settings,
        )
    except RuntimeError as error:
        raise DataError(_refusal(training, str(error))) from None
    return model.getvalue()


def _refusal(training: Training, message: str) -> str:
    """SentencePiece's message in our words."""
    place = f"{training.corpus}: a vocabulary of size {training.stage.size} cannot be made"
    if most := re.search(r"value <= (\d+)", message):
        return (
            f"{place}: its {training.lines} lines give at most {most[1]} pieces; "
            f"set size to {most[1]} or less, or give the corpus more pages"
        )
    if least := re.search(r"required_chars\D*\d+ vs (\d+)", message):
        return (
            f"{place}: single characters and special pieces alone are {least[1]}; "
            f"set size above {least[1]} or lower character_coverage"
        )
    return f"{place}: {' '.join(message.split())}"
