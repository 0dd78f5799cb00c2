"""A vocabulary as a `tokenizer.json`, the form that transformers reads.

Of a SentencePiece model the pieces, their scores and the character map are copied. What differs is small: special
pieces written out in a text become special ids, and rare characters and ties may be cut differently.
"""

from collections.abc import Collection, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers import normalizers as normal

from pipeline.config import DataError
from pipeline.tokenizer import Vocabulary

UNIGRAM, BPE = 1, 2  # model types of a SentencePiece file
SPACE = "▁"


def tokenizer_of(vocabulary: Vocabulary, description: Any) -> Tokenizer:
    """`vocabulary` as a pipeline with the same ids, sentinels included.

    `description` is the SentencePiece model as a parsed `ModelProto`.
    """
    backend = Tokenizer(_model_of(vocabulary, description))
    backend.normalizer = _normalizer_of(description.normalizer_spec)
    prepend = "first" if description.normalizer_spec.add_dummy_prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=prepend)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(content=" ", left=1, right=0)] if prepend == "first" else []),
        ]
    )
    return _with_special(backend, vocabulary)


def extended(vocabulary: Vocabulary) -> Tokenizer:
    """The `tokenizer.json` of an imported vocabulary, with the ids above it."""
    return _with_special(Tokenizer.from_str(vocabulary.model.decode()), vocabulary)


def _with_special(backend: Tokenizer, vocabulary: Vocabulary) -> Tokenizer:
    """`backend` with every special piece and sentinel; those it lacks are added in the order of ids."""
    above = [vocabulary.piece(token) for token in range(vocabulary.num_pieces, vocabulary.size)]
    inside = [name for name in vocabulary.special if name not in above]
    names = dict.fromkeys((*inside, *above))
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    assert backend.get_vocab_size() == vocabulary.size
    return backend


def _model_of(vocabulary: Vocabulary, description: Any) -> models.Model:
    """The segmentation model: unigram by its scores, or BPE by merges rebuilt from its scores."""
    pieces = [(piece.piece, piece.score) for piece in description.pieces]
    byte_fallback = description.trainer_spec.byte_fallback
    if description.trainer_spec.model_type == UNIGRAM:
        return models.Unigram(pieces, vocabulary.unk, byte_fallback)
    if description.trainer_spec.model_type != BPE:
        raise DataError("only unigram and bpe vocabularies can be exported")
    return models.BPE(
        vocab={piece: index for index, (piece, _) in enumerate(pieces)},
        merges=merges_of(pieces, without=vocabulary.special),
        unk_token=vocabulary.piece(vocabulary.unk),
        fuse_unk=True,
        byte_fallback=byte_fallback,
    )


def merges_of(
    pieces: Sequence[tuple[str, float]], without: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Every pair of pieces that make a third, best score first: BPE's merges in order.

    Special pieces, `without`, are not made of others.
    """
    ordinary = [(piece, score) for piece, score in pieces if piece not in without]
    known = {piece for piece, _ in ordinary}
    ranked = sorted(ordinary, key=lambda piece: -piece[1])
    return [
        (piece[:cut], piece[cut:])
        for piece, _ in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]


def _normalizer_of(rules: Any) -> normal.Normalizer:
    steps: list[normal.Normalizer] = []
    if rules.precompiled_charsmap:
        steps.append(normal.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normal.Strip(left=False), normal.Replace(Regex(" {2,}"), " ")]
    return normal.Sequence(steps)  # type: ignore[arg-type]  # any list is taken
