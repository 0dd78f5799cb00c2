"""How text is generated, as configuration, and what comes out of it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config import config
from pipeline.tokenizer import EOS, MASK, PAD

Count = Annotated[int, Field(ge=1)]


@config
class Greedy:
    """The most probable token at every step, until the end mark or for `max_new_tokens`.

    With `no_repeated` n no n tokens in a row come twice among the new ones of a text.
    """

    type: Literal["greedy"] = "greedy"
    max_new_tokens: Count = 64
    no_repeated: Count | None = None


@config
class Sampling:
    """Tokens drawn from the model's probabilities, `num_samples` texts a prompt.

    Logits are divided by `temperature`. Of the `top_k` most probable tokens the fewest that have
    `top_p` of their probability (Holtzman et al. 2020) share it by what the model gives them. A draw
    is named by `seed`, the number of the prompt, that of its sample and the step. `max_new_tokens`
    and `no_repeated` are as for `Greedy`.
    """

    type: Literal["sampling"] = "sampling"
    max_new_tokens: Count = 64
    no_repeated: Count | None = None
    num_samples: Count = 1
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_k: Count | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0


@config
class Beam:
    """The `num_returned` best texts that a search with `beams` open texts finds.

    The score of a text of n tokens, its end mark included, is its log-probability divided by
    ((5 + n) / 6)^`length_penalty` (Wu et al. 2016, GNMT; T5: 0.6). A text that reaches
    `max_new_tokens` counts as it is. `no_repeated` is as for `Greedy`.
    """

    type: Literal["beam"] = "beam"
    max_new_tokens: Count = 64
    no_repeated: Count | None = None
    beams: Count = 4
    length_penalty: Annotated[float, Field(ge=0)] = 0.6
    num_returned: Count = 1

    def __post_init__(self) -> None:
        if self.num_returned > self.beams:
            raise ValueError(
                f"num_returned {self.num_returned} is more than {self.beams} beams can promise; "
                f"give as many beams"
            )

    def penalty(self, length: int) -> float:
        """What the log-probability of a text of `length` tokens is divided by.

        >>> Beam(length_penalty=1.0).penalty(7)
        2.0
        """
        return float(((5 + length) / 6) ** self.length_penalty)


Decoding = Annotated[Greedy | Sampling | Beam, Field(discriminator="type")]


@dataclass(frozen=True)
class Marks:
    """Ids with a meaning: `start` begins a decoder's target (T5: padding), `end` ends every text.

    `mask` is what UniLM predicts from. Those in `never` are not generated.
    """

    start: int = PAD
    end: int = EOS
    mask: int = MASK
    never: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert self.end not in self.never, "a text must be able to end"


@dataclass(frozen=True)
class Hypothesis:
    """A generated text: `tokens` without prompt and end mark, and whether it `ended` by that mark.

    `score` is its log-probability, the end mark's included; divided by `Beam.penalty` in a search.
    """

    tokens: tuple[int, ...]
    score: float
    ended: bool
