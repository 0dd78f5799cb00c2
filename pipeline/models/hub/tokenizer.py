"""Vocabularies as tokenizers of transformers, and tokenizers as vocabularies."""

from pathlib import Path
from typing import Any

import transformers
from tokenizers import processors
from transformers.convert_slow_tokenizer import import_protobuf

from pipeline.config import DataError
from pipeline.models.artifact import Network
from pipeline.models.encoder_decoder import EncoderDecoder
from pipeline.models.hub.family import Family
from pipeline.models.hub.silence import quiet
from pipeline.models.tokenizer_json import extended, tokenizer_of
from pipeline.tokenizer import ENGINES, MODEL_FILES, ROLES, EngineName, Vocabulary, imported

T5_SENTINELS = 100  # of a SentencePiece model, which does not say how many there are


def exported_tokenizer(vocabulary: Vocabulary, network: Network, family: Family) -> Any:
    """The vocabulary as a tokenizer: `[CLS] x [SEP]` for an encoder, `x </s>` for T5."""
    backend = _backend_of(vocabulary)
    names = dict(zip(ROLES, vocabulary.special, strict=True))
    pieces = {f"{role}_token": names[role] for role in ("pad", "unk", "eos")}
    shape: dict[str, Any] = {"model_input_names": ["input_ids", "attention_mask"]}
    if isinstance(network, EncoderDecoder):
        end = names["eos"]
        backend.post_processor = processors.TemplateProcessing(
            single=["$A", end], pair=["$A", end, "$B", end], special_tokens=[(end, vocabulary.eos)]
        )
        shape["extra_special_tokens"] = [
            vocabulary.piece(vocabulary.sentinel(index))
            for index in range(vocabulary.num_sentinels)
        ]
    else:
        start, end = names["cls"], names["sep"]
        backend.post_processor = processors.TemplateProcessing(
            single=[start, "$A", end],
            pair=[start, "$A", *[end] * family.separators, "$B", end],
            special_tokens=[(start, vocabulary.cls), (end, vocabulary.sep)],
        )
        pieces |= {f"{role}_token": names[role] for role in ("cls", "sep", "mask")}
        pieces["eos_token"] = end
        shape["model_max_length"] = network.config.max_length
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **pieces, **shape
    )


def _backend_of(vocabulary: Vocabulary) -> Any:
    """The vocabulary as a pipeline of the tokenizers library."""
    if vocabulary.engine == "tokenizers":
        return extended(vocabulary)
    description = import_protobuf().ModelProto()
    description.ParseFromString(vocabulary.model)
    return tokenizer_of(vocabulary, description)


def loaded_tokenizer(folder: Path) -> Any:
    """The tokenizer of `folder`, as a user would load it; DataError when there is none."""
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{folder}: holds no tokenizer that transformers can read: {reason}"
        ) from None
    if not tokenizer.is_fast:
        raise DataError(
            f"{folder}: its tokenizer has no form of the tokenizers library; save it with one"
        )
    return tokenizer


def imported_vocabulary(folder: Path, num_sentinels: int | None) -> Vocabulary:
    """The vocabulary of a Hugging Face folder, all ids as they are there.

    From `tokenizer.json` or else `spiece.model` if it has them, else from what transformers makes
    of the files that it has. `num_sentinels` None: as many as the tokenizer knows.
    """
    tokenizer = loaded_tokenizer(folder)
    engine: EngineName = "tokenizers"
    if (path := folder / MODEL_FILES["tokenizers"]).is_file():
        model = path.read_bytes()
    elif (path := folder / MODEL_FILES["sentencepiece"]).is_file():
        engine, model = "sentencepiece", path.read_bytes()
    else:
        model = tokenizer.backend_tokenizer.to_str().encode()
    known = ENGINES[engine](model)
    found = {role: getattr(tokenizer, f"{role}_token", None) for role in ROLES}
    names = {
        role: str(name)
        for role, name in found.items()
        if name and known.id_of(str(name)) is not None
    }
    if num_sentinels is None:
        num_sentinels = T5_SENTINELS if engine == "sentencepiece" else _sentinels_in(known)
    try:
        return imported(model, engine, num_sentinels, names)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None


def _sentinels_in(engine: Any) -> int:
    """How many of `<extra_id_0>`, `<extra_id_1>`, ... there are."""
    count = 0
    while engine.id_of(f"<extra_id_{count}>") is not None:
        count += 1
    return count
