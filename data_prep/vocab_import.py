"""The `vocab_import` stage: a vocabulary made elsewhere, so that pretraining can go on from an existing model.

All ids keep their meaning. What objectives need and the vocabulary lacks, such as sentinels in BERT's, gets ids above.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from data_prep.vocab_fit import validation_fit
from pipeline.config import DataError, config
from pipeline.flow.stage import Artifact, Claim, Reads, Work
from pipeline.tokenizer import ROLES, EngineName, Vocabulary, imported

SUFFIXES = {".model": "SentencePiece", ".json": "Hugging Face tokenizer", ".txt": "WordPiece"}
WORD_PIECE_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
Role = Literal["pad", "eos", "unk", "cls", "sep", "mask"]


@config
class VocabImport:
    """The vocabulary in `path`: `*.model` of SentencePiece, a `tokenizer.json`, or WordPiece's `vocab.txt`.

    `num_sentinels` is how many marks of hidden spans there are; those that the vocabulary has are
    used. `special` names the pieces of roles that do not have a usual name. `case` of a WordPiece
    vocabulary: `lower` puts text into lower case and takes accents off, as uncased BERT does; `auto`
    does so if no piece has a capital letter. With a `corpus`, says how it does on validation text.
    """

    makes: ClassVar[Artifact] = "vocab"
    claims: ClassVar[Claim] = "units"
    version: ClassVar[int] = 1

    kind: Literal["vocab_import"] = "vocab_import"
    path: Path
    corpus: Annotated[str | None, Reads("corpus")] = None
    num_sentinels: Annotated[int, Field(ge=0, le=1000)] = 100
    special: Mapping[Role, str] = Field(default_factory=dict)
    case: Literal["auto", "lower", "keep"] = "auto"

    @field_validator("path")
    @classmethod
    def _known(cls, path: Path) -> Path:
        if path.suffix not in SUFFIXES:
            kinds = ", ".join(f"{suffix} ({kind})" for suffix, kind in SUFFIXES.items())
            raise ValueError(f"a vocabulary is one of {kinds}; the file is {path.name!r}")
        return path

    def sources(self) -> Sequence[Path]:
        """The vocabulary's file."""
        return (self.path,)

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write the vocabulary; report its special ids, and how it does on validation text."""
        vocabulary = self.read()
        vocabulary.save(work.out)
        counts = {
            "size": vocabulary.size,
            "pieces": vocabulary.num_pieces,
            "algorithm": f"imported from {self.path.name}",
            "special_ids": vocabulary.special_ids,
            "added_above": added_above(vocabulary),
        }
        if self.corpus is not None:
            counts["validation"] = validation_fit(work, work.inputs[self.corpus], work.out)
        return counts

    def read(self) -> Vocabulary:
        """The vocabulary; DataError when the file is not what its name says."""
        engine: EngineName = "sentencepiece" if self.path.suffix == ".model" else "tokenizers"
        try:
            data = self.path.read_bytes()
            if self.path.suffix == ".txt":
                data = word_piece(data.decode(), self.case)
            if self.path.suffix == ".json" and "model" not in json.loads(data):
                raise DataError("it has no model; a tokenizer.json is needed")
            names = {str(role): piece for role, piece in self.special.items()}
            return imported(data, engine, self.num_sentinels, names)
        except (OSError, ValueError, RuntimeError, DataError) as error:
            kind = SUFFIXES[self.path.suffix]
            raise DataError(f"{self.path}: not a usable {kind} vocabulary: {error}") from None
        except Exception as error:  # the tokenizers library has no error of its own
            error.add_note(f"{self.path} was being read as a tokenizer.json")
            raise


def added_above(vocabulary: Vocabulary) -> list[str]:
    """Special pieces that the model has no id for, sentinels left out."""
    ids = vocabulary.special_ids
    return [vocabulary.piece(ids[role]) for role in ROLES if ids[role] >= vocabulary.num_pieces]


def word_piece(text: str, case: Literal["auto", "lower", "keep"]) -> bytes:
    """BERT's WordPiece (Devlin et al. 2019) of the pieces in `text`, one a line, as a `tokenizer.json`.

    DataError when a piece comes twice or [UNK] is missing.
    """
    pieces = text.removesuffix("\n").replace("\r\n", "\n").split("\n")
    ids = {piece: number for number, piece in enumerate(pieces)}
    for number, piece in enumerate(pieces):
        if ids[piece] != number:
            raise DataError(f"piece {piece!r} is on line {number + 1} and on line {ids[piece] + 1}")
    if "[UNK]" not in ids:
        raise DataError("has no piece [UNK]; is it a WordPiece vocabulary?")
    plain = [piece for piece in pieces if not piece.startswith("[")]
    lower = case == "lower" or (case == "auto" and plain == [piece.lower() for piece in plain])
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lower
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens(
        [AddedToken(piece, special=True) for piece in WORD_PIECE_SPECIAL if piece in ids]
    )
    return backend.to_str().encode()
