"""What every stage of Theseus is told: how many successors there are, what they start as, and when they take over."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from pipeline.compress.rate import LinearRate, RateConfig
from pipeline.compress.shallow import Splits, depths_of, shallow_shape
from pipeline.compress.splits import Split, Start, split_of
from pipeline.compress.theseus import Mode
from pipeline.config import ConfigError, config

AtLeastOne = Annotated[int, Field(ge=1)]


@config
class Replacing:
    """Successors in place of the layers of a model, and the `schedule` by which they take over.

    `num_layers` successors share the layers out evenly; a `split` lists how many each one replaces,
    such as [1, 2, 3]. `num_decoder_layers` and `decoder_split` say the same of a decoder beside an
    encoder. Successors `start` as copies of the bottom layers (the paper), of the first of those they
    replace (alternate) or of the top ones. `predecessors` are in evaluation mode, without dropout, or
    in training mode, as in the released code.
    """

    num_layers: AtLeastOne | None = None
    split: tuple[AtLeastOne, ...] = ()
    num_decoder_layers: AtLeastOne | None = None
    decoder_split: tuple[AtLeastOne, ...] = ()
    start: Start = "bottom"
    predecessors: Mode = "evaluation"
    schedule: RateConfig = Field(default_factory=LinearRate)

    def __post_init__(self) -> None:
        if (self.num_layers is None) == (not self.split):
            raise ValueError(
                "successors are counted by num_layers or listed by split; give one of them"
            )
        if self.num_decoder_layers is not None and self.decoder_split:
            raise ValueError("num_decoder_layers and decoder_split are both given; keep one")

    def splits_of(self, shape: Any) -> Splits:
        """The split of each stack of a model; ConfigError where there is none."""
        if problems := list(self.why_not(shape)):
            raise ConfigError([f"{key}: {words}" for (key,), words in problems])
        return {n: split for n, split in self._found(shape).items() if isinstance(split, tuple)}

    def why_not(self, shape: Any) -> Iterator[tuple[tuple[str], str]]:
        """What in these settings does not fit a model of this shape: key and words."""
        found = list(self._found(shape).values())
        of_layers = "split" if self.split else "num_layers"
        of_decoder = "decoder_split" if self.decoder_split else "num_decoder_layers"
        if isinstance(found[0], str):
            yield (of_layers,), found[0]
        if len(found) == 1:
            if self._decoder_asked():
                words = f"a model of type {shape.type} is one stack; give num_layers or split"
                yield (of_decoder,), words
        elif isinstance(found[1], str):
            yield (of_decoder if self._decoder_asked() else of_layers,), found[1]
        elif shape.shared_stacks and found[0] != found[1]:
            yield (of_decoder,), "encoder and decoder share their layers; split both alike"

    def shape_of(self, shape: Any) -> Any:
        """The config of the successor of a model; `shape` itself where there is none, as `why_not` says."""
        if list(self.why_not(shape)):
            return shape
        return shallow_shape(shape, [len(split) for split in self.splits_of(shape).values()])

    def _decoder_asked(self) -> bool:
        return bool(self.num_decoder_layers or self.decoder_split)

    def _found(self, shape: Any) -> dict[str, Split | str]:
        """The split of each stack, or why there is none."""
        found: dict[str, Split | str] = {}
        for name, depth in depths_of(shape).items():
            of_decoder = name == "decoder" and self._decoder_asked()
            number = self.num_decoder_layers if of_decoder else self.num_layers
            sizes = self.decoder_split if of_decoder else self.split
            found[name] = split_of(depth, number, sizes)
        return found
