"""The ways T5's study rewrites a text into inputs and targets (Raffel et al. 2020, section 3.3), one config each.

A denoiser is a pure function from tokens to (inputs, targets), both without the end token. Where the
paper's text and the released code differ, the code is the default and the other a named option.
"""

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.config import config
from pipeline.objectives import noise

Density = Annotated[float, Field(gt=0, lt=1)]
Pair = tuple[np.ndarray, np.ndarray]
SPREAD = 4.0  # standard deviations of a random length that shapes leave room for
MASKED_SHARE = 0.9  # BERT-style: the other tenth is replaced by a random token
FIRST_RANDOM_ID = 3  # T5's random tokens are any id from here on, sentinels included


@config
class Denoiser:
    """What all denoisers have: their `share` in a mixture, and a `prefix` text put before the inputs."""

    share: Annotated[float, Field(gt=0)] = 1.0
    prefix: str = ""

    def lengths(self, row_length: int) -> tuple[int, int]:
        """Tokens that inputs and targets need for rows of `row_length`, end tokens included."""
        raise NotImplementedError

    def most_spans(self, _row_length: int) -> int:
        """Sentinels that a row needs."""
        return 0

    def rewrite(self, tokens: np.ndarray, sentinels: np.ndarray, rng: np.random.Generator) -> Pair:
        """Inputs and targets of `tokens` [L]; `sentinels` are the ids of hidden spans, first one first."""
        raise NotImplementedError


@config
class Spans(Denoiser):
    """Random spans, the final choice of T5: inputs `c1 S1 c2 S2`, targets `S1 n1 S2 n2`.

    `density` of the tokens are hidden, in spans of `mean_span_length` on average. `final_sentinel`
    ends the targets with one more sentinel, as the paper's figure shows and the code does not do;
    `roll` turns the mask by a random offset, without which the last token is always hidden.
    """

    type: Literal["spans"] = "spans"
    density: Density = 0.15
    mean_span_length: Annotated[float, Field(ge=1)] = 3.0
    final_sentinel: bool = False
    roll: bool = False

    def lengths(self, row_length: int) -> tuple[int, int]:
        inputs, targets = noise.corrupted_lengths(row_length, self.density, self.mean_span_length)
        # A turned mask may begin and end inside one span, which is then two, or outside of all.
        return inputs + self.roll, targets + (self.final_sentinel or self.roll)

    def most_spans(self, row_length: int) -> int:
        spans = noise.noise_counts(row_length, self.density, self.mean_span_length)[1]
        return spans + (self.final_sentinel or self.roll)

    def rewrite(self, tokens: np.ndarray, sentinels: np.ndarray, rng: np.random.Generator) -> Pair:
        mask = noise.random_spans(len(tokens), self.density, self.mean_span_length, rng)
        if self.roll:
            mask = noise.rolled(mask, rng)
        inputs, targets = _both_sides(tokens, mask, sentinels)
        if self.final_sentinel and mask[-1:].any():
            targets = np.append(targets, sentinels[noise.runs(~mask)])
        return inputs, targets


@config
class ReplacedRuns(Denoiser):
    """Each token is hidden on its own with probability `density`; runs become one sentinel each.

    Targets longer than `target_length` are cut; unless it is given, hardly any is.
    """

    type: Literal["replaced_runs"] = "replaced_runs"
    density: Density = 0.15
    target_length: Annotated[int, Field(ge=2)] | None = None

    def lengths(self, row_length: int) -> tuple[int, int]:
        hidden, hidden_sd = _hidden(row_length, self.density)
        spans, spans_sd = _runs(row_length, self.density)
        room = SPREAD * (hidden_sd + spans_sd)
        inputs = row_length - hidden + spans + room
        targets = self.target_length or _room(hidden + spans + room, 2 * row_length)
        return _room(inputs, row_length), targets

    def most_spans(self, row_length: int) -> int:
        spans, deviation = _runs(row_length, self.density)
        return math.ceil(min(spans + (SPREAD + 2) * deviation, row_length / 2)) + 1

    def rewrite(self, tokens: np.ndarray, sentinels: np.ndarray, rng: np.random.Generator) -> Pair:
        return _both_sides(tokens, noise.iid(len(tokens), self.density, rng), sentinels)


@config
class BertStyle(Denoiser):
    """Each token is hidden with probability `density`; the whole text is written out.

    Nine tenths of the hidden tokens become one and the same sentinel, the others a random token.
    """

    type: Literal["bert_style"] = "bert_style"
    density: Density = 0.15

    def lengths(self, row_length: int) -> tuple[int, int]:
        return row_length + 1, row_length + 1

    def most_spans(self, _row_length: int) -> int:
        return 1

    def rewrite(self, tokens: np.ndarray, sentinels: np.ndarray, rng: np.random.Generator) -> Pair:
        mask = noise.iid(len(tokens), self.density, rng)
        draw = rng.random(len(tokens))
        random_tokens = rng.integers(FIRST_RANDOM_ID, sentinels[0] + 1, size=len(tokens))
        hidden = np.where(draw < MASKED_SHARE, sentinels[0], random_tokens)
        return np.where(mask, hidden, tokens), tokens


@config
class MassStyle(Denoiser):
    """Each token becomes, with probability `density`, the same sentinel; the whole text is written out."""

    type: Literal["mass_style"] = "mass_style"
    density: Density = 0.15

    def lengths(self, row_length: int) -> tuple[int, int]:
        return row_length + 1, row_length + 1

    def most_spans(self, _row_length: int) -> int:
        return 1

    def rewrite(self, tokens: np.ndarray, sentinels: np.ndarray, rng: np.random.Generator) -> Pair:
        mask = noise.iid(len(tokens), self.density, rng)
        return np.where(mask, sentinels[0], tokens), tokens


@config
class DroppedTokens(Denoiser):
    """Each token is, with probability `density`, left out without a mark and written out.

    Targets longer than `target_length` are cut; unless it is given, hardly any is.
    """

    type: Literal["dropped_tokens"] = "dropped_tokens"
    density: Density = 0.15
    target_length: Annotated[int, Field(ge=2)] | None = None

    def lengths(self, row_length: int) -> tuple[int, int]:
        hidden, deviation = _hidden(row_length, self.density)
        inputs = _room(row_length - hidden + SPREAD * deviation, row_length)
        return inputs, self.target_length or _room(hidden + SPREAD * deviation, row_length)

    def rewrite(self, tokens: np.ndarray, _sentinels: np.ndarray, rng: np.random.Generator) -> Pair:
        mask = noise.iid(len(tokens), self.density, rng)
        return tokens[~mask], tokens[mask]


@config
class Deshuffling(Denoiser):
    """The inputs are the text in a random order; the text is written out."""

    type: Literal["deshuffling"] = "deshuffling"

    def lengths(self, row_length: int) -> tuple[int, int]:
        return row_length + 1, row_length + 1

    def rewrite(self, tokens: np.ndarray, _sentinels: np.ndarray, rng: np.random.Generator) -> Pair:
        return noise.permuted(tokens, np.ones(len(tokens), dtype=bool), rng), tokens


@config
class PrefixLanguageModel(Denoiser):
    """The text goes on: inputs are its first k tokens, k uniform from 1, targets the others."""

    type: Literal["prefix_lm"] = "prefix_lm"

    def lengths(self, row_length: int) -> tuple[int, int]:
        return max(row_length, 2), max(row_length, 2)

    def rewrite(self, tokens: np.ndarray, _sentinels: np.ndarray, rng: np.random.Generator) -> Pair:
        if len(tokens) < 2:
            return tokens, tokens[:0]
        split = int(rng.integers(1, len(tokens)))
        return tokens[:split], tokens[split:]


DenoiserConfig = Annotated[
    Spans
    | ReplacedRuns
    | BertStyle
    | MassStyle
    | DroppedTokens
    | Deshuffling
    | PrefixLanguageModel,
    Field(discriminator="type"),
]


def _both_sides(tokens: np.ndarray, mask: np.ndarray, sentinels: np.ndarray) -> Pair:
    """Sentinels for what is hidden in the inputs, and for what is not in the targets."""
    if not mask.any():
        return tokens, tokens[:0]
    inputs = noise.spans_to_sentinels(tokens, mask, sentinels)
    return inputs, noise.spans_to_sentinels(tokens, ~mask, sentinels)


def _hidden(length: int, density: float) -> tuple[float, float]:
    """Mean and standard deviation of the hidden tokens under an i.i.d. mask."""
    return length * density, math.sqrt(length * density * (1 - density))


def _runs(length: int, density: float) -> tuple[float, float]:
    """Mean and (for long rows) standard deviation of the runs of hidden tokens under an i.i.d. mask.

    A run begins where a hidden token follows a clean one; beginnings at neighbouring places exclude
    each other, hence the negative term.
    """
    r = density * (1 - density)
    return density + (length - 1) * r, math.sqrt(max(length * (r - 3 * r * r), 0.25))


def _room(expected: float, most: int) -> int:
    """Places for a random number of tokens, at most `most`, and the end token."""
    return min(math.ceil(expected), most) + 1
