"""Hugging Face folders, written and read: networks with their tokenizers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
import transformers

from pipeline import files
from pipeline.config import DataError
from pipeline.models.artifact import Network
from pipeline.models.heads import SequenceClassifier
from pipeline.models.hub.catalogue import Kind, family_for, kind_of, settings_for, shape_of
from pipeline.models.hub.family import FamilyName, is_bare, is_unused
from pipeline.models.hub.silence import quiet
from pipeline.models.hub.tokenizer import exported_tokenizer, imported_vocabulary
from pipeline.models.hub.weights import exported_weights, fill
from pipeline.runtime import key_of
from pipeline.tokenizer import Vocabulary

HEAD = "head."  # what begins the names of a language head's weights


class Imported(NamedTuple):
    """What came out of a folder; `new_head` says that its language head is untrained."""

    network: Network
    vocabulary: Vocabulary
    architecture: str
    labels: tuple[str, ...]
    new_head: bool


def export_folder(
    network: Network,
    vocabulary: Vocabulary,
    folder: Path,
    labels: Sequence[str] = (),
    family: FamilyName | None = None,
) -> None:
    """Write `network` and its tokenizer into `folder`, for AutoModel and AutoTokenizer.

    `labels` names the classes of a classifier. `family` is one of `catalogue.FAMILIES`; without it
    the one whose shape the network has. Raises DataError for a network that transformers has no
    class for.
    """
    chosen = family_for(network, family)
    settings = settings_for(network, vocabulary, chosen) | _labelled(network, labels)
    weights = exported_weights(network, chosen, settings)
    data = safetensors.torch.save(weights, {"format": "pt"})
    files.write_bytes(folder / "model.safetensors", data)
    exported_tokenizer(vocabulary, network, chosen).save_pretrained(folder)
    files.write_json(folder / "config.json", settings)


def _labelled(network: Network, labels: Sequence[str]) -> dict[str, Any]:
    """What `config.json` says of the classes of a classifier."""
    if not isinstance(network, SequenceClassifier):
        return {}
    names = list(labels) or [f"LABEL_{index}" for index in range(network.num_labels)]
    assert len(names) == network.num_labels, (names, network.num_labels)
    return {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }


def import_folder(folder: Path, num_sentinels: int | None = None) -> Imported:
    """The network and the vocabulary in a Hugging Face folder, float32, in evaluation mode.

    A model without a head gets a new language head, with the same initial values every time. The
    vocabulary has `num_sentinels` (None: as many as the tokenizer knows). DataError says what
    cannot be imported, and why.
    """
    kind, shape = kind_of(folder), shape_of(folder)
    vocabulary = imported_vocabulary(folder, num_sentinels)
    model = loaded_model(folder)
    theirs = {_prefix(model) + name: tensor for name, tensor in model.state_dict().items()}
    labels = tuple(model.config.id2label.values()) if kind.network is SequenceClassifier else ()
    network = _built(kind, shape, vocabulary, len(labels))
    try:
        missing = fill(network, theirs, kind.family, kind.settings)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    without = [name for name in missing if not name.endswith(".bias")]
    if any(not (kind.bare and name.startswith(HEAD)) for name in without):
        raise DataError(f"{folder}: {len(without)} weights are missing, first {without[0]}")
    return Imported(network.eval(), vocabulary, kind.architecture, labels, kind.bare)


def _built(kind: Kind, shape: Any, vocabulary: Vocabulary, num_labels: int) -> Network:
    """A network of this kind with the initial values of a fixed seed."""
    build: Any = kind.network
    more = (num_labels,) if kind.network is SequenceClassifier else ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(0, "new head") % (1 << 63))
        network: Network = build(shape, vocabulary.size, *more)
    return network


def _prefix(model: Any) -> str:
    """What begins the names of this model's weights in models that have a head as well."""
    return f"{model.base_model_prefix}." if is_bare(type(model).__name__) else ""


def loaded_model(folder: Path) -> Any:
    """The model in `folder`, float32, evaluation mode; DataError if a weight found no place."""
    kind = kind_of(folder)
    loader = getattr(transformers, kind.architecture)
    try:
        with quiet():
            model, report = loader.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{folder}: transformers cannot load it: {reason}") from None
    apart = sorted(map(str, (*report["missing_keys"], *report["unexpected_keys"])))
    if left := [n for n in apart if not is_unused(_prefix(model) + n, kind.family)]:
        raise DataError(f"{folder}: {len(left)} weights do not fit, first {left[0]}")
    return model.eval()
