"""Texts that grow by one token at a time, for every kind of network that can: only what is new is computed.

Prompts of different lengths end in the same column, with padding before them: distances between
columns are then those between positions, whatever the positions are made of.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from pipeline.config import ConfigError, DataError
from pipeline.data.example import Visibility
from pipeline.models.decoder import LanguageModel
from pipeline.models.decoding import Marks
from pipeline.models.encoder_decoder import EncoderDecoder
from pipeline.models.heads import MaskedLanguageModel
from pipeline.models.transformer import mixers_of
from pipeline.models.tta import LanguageAutoencoder

Prompts = Sequence[Sequence[int]]
ClozeKind = Literal["prefix", "causal"]
# Token types of prompt and new tokens by which UniLM's objectives are told apart (Dong et al. 2019)
CLOZE_TYPES: Mapping[ClozeKind, tuple[int, int]] = {"prefix": (4, 5), "causal": (2, 2)}
UNILM_TYPES = 6


class Growing(Protocol):
    """A batch of texts under way. V is the vocabulary's size."""

    def begin(self) -> Tensor:
        """Logits [B, V] of each text's first new token."""
        ...

    def extend(self, tokens: Tensor) -> Tensor:
        """Logits [B, V] of what comes after these newest tokens [B]."""
        ...

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch ([new batch], int64); one may be taken twice."""
        ...


class GrowingText:
    """Prompts that a decoder continues. In a prefix model the prompt is the prefix."""

    def __init__(self, network: LanguageModel, prompts: Prompts) -> None:
        self.network = network
        self.ids, self.segments = ending_together(prompts, device_of(network))
        self.prefix = self.segments > 0 if network.config.visibility == "prefix" else None
        self.caches = network.new_caches()

    def begin(self) -> Tensor:
        return self._read(self.ids)

    def extend(self, tokens: Tensor) -> Tensor:
        new = tokens[:, None]
        self.segments = torch.cat([self.segments, torch.ones_like(new)], dim=1)
        if self.prefix is not None:
            self.prefix = torch.cat([self.prefix, torch.zeros_like(new, dtype=torch.bool)], dim=1)
        return self._read(new)

    def select(self, rows: Tensor) -> None:
        self.caches.select(rows)
        self.segments = self.segments[rows]
        if self.prefix is not None:
            self.prefix = self.prefix[rows]

    def _read(self, ids: Tensor) -> Tensor:
        positions = newest_positions(self.segments, ids.shape[1])
        states = self.network.states(ids, self.segments, positions, self.prefix, self.caches)
        return self.network.logits(states[:, -1])[:, : self.network.vocab_size]


class GrowingTarget:
    """Targets that an encoder-decoder makes of its inputs, which are read once."""

    def __init__(self, network: EncoderDecoder, inputs: Prompts, start: int) -> None:
        self.network = network
        ids, segments = beginning_together(inputs, device_of(network))
        self.input_segments = segments
        self.encoded = network.encode(ids, segments)
        self.segments = segments[:, :0]
        self.start = torch.full_like(ids[:, 0], start)
        self.caches = network.new_caches()

    def begin(self) -> Tensor:
        return self.extend(self.start)

    def extend(self, tokens: Tensor) -> Tensor:
        new = tokens[:, None]
        self.segments = torch.cat([self.segments, torch.ones_like(new)], dim=1)
        states = self.network.decode(
            new, self.segments, self.encoded, self.input_segments, self.caches
        )
        return self.network.logits(states[:, -1])[:, : self.network.vocab_size]

    def select(self, rows: Tensor) -> None:
        self.caches.select(rows)
        self.segments = self.segments[rows]
        self.encoded = self.encoded[rows]
        self.input_segments = self.input_segments[rows]


class GrowingCloze:
    """UniLM: what comes next is read from a mask token in its place (Dong et al. 2019, 2.3).

    Every step computes two places, the newest token's and that of a mask after it. What the mixers
    remember of the mask is taken back, so the true token stands there in the step after. `kind`
    "prefix" is UniLM's sequence to sequence: all of a prompt, [CLS] ... [SEP], sees all of it.
    "causal" continues a text from left to right.
    """

    def __init__(
        self, network: MaskedLanguageModel, prompts: Prompts, mask: int, kind: ClozeKind
    ) -> None:
        self.network = network
        self.mask = mask
        self.kind = kind
        self.ids, self.segments = ending_together(prompts, device_of(network))
        self.prompted = self.segments > 0
        self.caches = network.encoder.new_caches()

    def begin(self) -> Tensor:
        return self._read(self.ids, CLOZE_TYPES[self.kind][0])

    def extend(self, tokens: Tensor) -> Tensor:
        new = tokens[:, None]
        self._add(torch.ones_like(new))
        return self._read(new, CLOZE_TYPES[self.kind][1])

    def select(self, rows: Tensor) -> None:
        self.caches.select(rows)
        self.segments = self.segments[rows]
        self.prompted = self.prompted[rows]

    def _add(self, segments: Tensor) -> None:
        self.segments = torch.cat([self.segments, segments], dim=1)
        self.prompted = torch.cat([self.prompted, torch.zeros_like(segments > 0)], dim=1)

    def _read(self, ids: Tensor, token_type: int) -> Tensor:
        """Logits at a mask after `ids` [B, n], of which the mixers remember all but the mask."""
        real, known = self.segments, self.prompted
        mask = torch.full_like(ids[:, :1], self.mask)
        self._add(torch.ones_like(mask))
        types = torch.full_like(ids, token_type)
        hidden = self.network.encoder(
            torch.cat([ids, mask], dim=1),
            self.segments,
            newest_positions(self.segments, ids.shape[1] + 1),
            self._visibility(ids.shape[1] + 1),
            torch.cat([types, torch.full_like(mask, CLOZE_TYPES[self.kind][1])], dim=1),
            self.caches,
        )
        self.caches.forget(1)
        self.segments, self.prompted = real, known
        logits: Tensor = self.network.head(hidden[:, -1])
        return logits[:, : self.network.vocab_size]

    def _visibility(self, queries: int) -> Visibility:
        own = self.segments[:, -queries:]
        prefix = self.prompted if self.kind == "prefix" else None
        return Visibility(self.kind, own, self.segments, prefix)


def growing(
    network: nn.Module,
    prompts: Prompts,
    marks: Marks,
    max_new_tokens: int,
    cloze: ClozeKind = "prefix",
) -> Growing:
    """`prompts` under way in `network`: what an encoder-decoder reads, what others continue.

    ConfigError for a network that cannot generate, DataError for prompts it cannot take.
    """
    if reason := why_not(network, cloze):
        raise ConfigError([f"generation: {reason}"])
    assert isinstance(network, LanguageModel | EncoderDecoder | MaskedLanguageModel)
    assert not network.training, "generation is for networks in evaluation mode"
    check_prompts(network, prompts, max_new_tokens)
    match network:
        case LanguageModel():
            return GrowingText(network, prompts)
        case EncoderDecoder():
            return GrowingTarget(network, prompts, marks.start)
        case MaskedLanguageModel():
            return GrowingCloze(network, prompts, marks.mask, cloze)


def why_not(network: nn.Module, cloze: ClozeKind = "prefix") -> str | None:
    """Why a network cannot generate, and what can, in words; None when it can."""
    others = "use a decoder, an encoder_decoder or UniLM"
    match network:
        case LanguageModel() | EncoderDecoder():
            return None
        case LanguageAutoencoder():
            return f"T-TA predicts every token from all others, later ones included; {others}"
        case MaskedLanguageModel():
            types = network.config.token_types
            if types < UNILM_TYPES:
                return (
                    f"an encoder with token_types {types} has no objective with causal visibility; "
                    f"{others}, which is an encoder with token_types {UNILM_TYPES}"
                )
            for mixer in mixers_of(network):
                if cloze not in mixer.honours:
                    return f"{type(mixer).__name__} cannot honour {cloze!r} visibility; {others}"
            return None
        case _:
            return f"{type(network).__name__} has no head that names tokens; {others}"


def check_prompts(
    network: LanguageModel | EncoderDecoder | MaskedLanguageModel,
    prompts: Prompts,
    max_new_tokens: int,
) -> None:
    """DataError for empty prompts, strange ids, and texts longer than the network's tables."""
    for number, prompt in enumerate(prompts):
        if not len(prompt):
            raise DataError(f"generation: prompt {number} has no token; begin it with a mark")
        if not 0 <= min(prompt) <= max(prompt) < network.vocab_size:
            strange = min(prompt) if min(prompt) < 0 else max(prompt)
            raise DataError(
                f"generation: prompt {number} has the id {strange}, "
                f"but the vocabulary ends at {network.vocab_size - 1}"
            )
    longest = longest_of(network)
    if longest is None:
        return
    given = max(len(prompt) for prompt in prompts)
    match network:
        case EncoderDecoder():  # the last new token is not read again, but a start mark is
            needed = max(given, max_new_tokens)
        case LanguageModel():
            needed = given + max_new_tokens - 1
        case MaskedLanguageModel():
            needed = given + max_new_tokens
    if needed > longest:
        raise DataError(
            f"generation: a prompt of {given} tokens and {max_new_tokens} new ones need {needed} "
            f"places, but this network's tables hold max_length {longest}; "
            "give shorter prompts or fewer max_new_tokens"
        )


def longest_of(network: nn.Module) -> int | None:
    """Tokens of the longest document that tables of places allow in a network; None: any number."""
    shape: Any = network.config
    if shape.positions == "learned" or any(m.needs_max_length for m in mixers_of(network)):
        return shape.max_length
    return None


def ending_together(prompts: Prompts, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and segments (0 padding, 1 real) [B, T], int64, with padding first."""
    ids, segments = beginning_together([list(reversed(prompt)) for prompt in prompts], device)
    return ids.flip(1), segments.flip(1)


def beginning_together(prompts: Prompts, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and segments (0 padding, 1 real) [B, T], int64, with padding last."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    segments = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.as_tensor(prompt)
        segments[row, : len(prompt)] = 1
    return ids.to(device), segments.to(device)


def newest_positions(segments: Tensor, count: int) -> Tensor:
    """Positions of the newest `count` places of `segments` [B, K], whose padding comes first."""
    positions: Tensor = (segments.cumsum(dim=1) - 1).clamp(min=0)
    return positions[:, -count:]


def device_of(network: nn.Module) -> torch.device:
    """Where the parameters of `network` are."""
    return next(network.parameters()).device
