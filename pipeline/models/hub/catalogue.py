"""The families there are: which one a folder is of, and which one a network is exported to."""

from pathlib import Path
from typing import Any, NamedTuple

import transformers

from pipeline.config import DataError
from pipeline.models.artifact import Network
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoderConfig
from pipeline.models.heads import ReplacedTokenDetector
from pipeline.models.hub.bert import BERT
from pipeline.models.hub.electra import ELECTRA
from pipeline.models.hub.family import Family, FamilyName, Settings, check_place, is_bare
from pipeline.models.hub.modernbert import MODERNBERT
from pipeline.models.hub.roberta import ROBERTA
from pipeline.models.hub.t5 import T5
from pipeline.models.shape import Shape
from pipeline.tokenizer import Vocabulary

FAMILIES: dict[FamilyName, Family] = {
    family.model_type: family for family in (BERT, ELECTRA, MODERNBERT, ROBERTA, T5)
}


class Kind(NamedTuple):
    """What a folder holds: its family, the class of transformers it is read with, and its config."""

    family: Family
    architecture: str
    settings: Settings

    @property
    def bare(self) -> bool:
        """Whether there is no head, so that states are all it computes."""
        return is_bare(self.architecture)

    @property
    def network(self) -> type[Network]:
        """What it is here."""
        return self.family.classes[self.architecture]


def family_for(network: Network, name: FamilyName | None = None) -> Family:
    """The family that `network` is exported to: the one called `name`, else what its shape is nearest to."""
    shape = network.config
    if name is None and isinstance(shape, EncoderDecoderConfig):
        name = "t5"
    elif name is None and isinstance(shape, EncoderConfig):
        own_size = isinstance(network, ReplacedTokenDetector) or shape.embedding_size
        name = "modernbert" if shape.positions == "rotary" else "electra" if own_size else "bert"
    if name is None:
        raise DataError(f"a model of type {shape.type} has no class in transformers")
    return FAMILIES[name]


def settings_for(network: Network, vocabulary: Vocabulary, family: Family) -> dict[str, Any]:
    """The `config.json` of `network`; DataError when it says more than the family has a place for."""
    architecture = family.architecture_of(network)
    settings = {
        "architectures": [architecture],
        "model_type": family.model_type,
        "vocab_size": network.padded_vocab,
        **family.settings(network.config, vocabulary),
        **_ids(vocabulary, network),
        "dtype": "float32",
    }
    as_read = transformers.AutoConfig.for_model(**settings).to_dict()
    check_place(network.config, family, as_read)
    return settings


def _ids(vocabulary: Vocabulary, network: Network) -> dict[str, int]:
    """What `config.json` says of special ids."""
    if isinstance(network.config, EncoderDecoderConfig):
        ends = {"eos_token_id": vocabulary.eos, "decoder_start_token_id": vocabulary.pad}
    else:
        ends = {"bos_token_id": vocabulary.cls, "eos_token_id": vocabulary.sep}
    return {"pad_token_id": vocabulary.pad, **ends}


def kind_of(folder: Path) -> Kind:
    """What the Hugging Face folder holds; DataError when it is nothing that can be read here."""
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: holds no Hugging Face model (config.json is missing)")
    try:
        found = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{folder / 'config.json'}: transformers refuses it: {reason}") from None
    settings = found.to_dict()
    family = FAMILIES.get(settings["model_type"])
    if family is None:
        raise DataError(
            f"{folder}: a model of type {settings['model_type']!r}; only {', '.join(FAMILIES)} can "
            "be imported"
        )
    named = [family.read_as.get(name, name) for name in settings["architectures"] or ()]
    if not named or named[0] not in family.classes:
        what = f"its class is {named[0]}" if named else "config.json names no class (architectures)"
        known = ", ".join((*family.classes, *family.read_as))
        raise DataError(f"{folder}: {what}; only {known} can be imported")
    return Kind(family, named[0], settings)


def shape_of(folder: Path) -> Shape:
    """The config of the network that a Hugging Face folder describes."""
    kind = kind_of(folder)
    try:
        return kind.family.shape(kind.settings)
    except (DataError, ValueError) as error:
        raise DataError(f"{folder / 'config.json'}: {error}") from None
