"""The `pretrain` stage: one objective on one network, from random weights, on packed token rows."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from pipeline import files
from pipeline.config import ConfigError, as_dict, config
from pipeline.data.curriculum import Curriculum, CutRows, Rows
from pipeline.data.example import Example
from pipeline.data.joined import JoinedRows
from pipeline.data.mixture import MixedOrder, MixtureConfig, strangers
from pipeline.data.shards import Split, TokenRows
from pipeline.flow.stage import Artifact, Claim, Conflict, Reads, Work
from pipeline.models import ModelConfig
from pipeline.models.artifact import save_model
from pipeline.objectives import ObjectiveConfig
from pipeline.objectives.objective import Objective
from pipeline.runtime import key_of
from pipeline.tokenizer import Vocabulary
from pipeline.train.combinations import positions_needed, why_not
from pipeline.train.run import AtLeastOne, Measure, Trainable, TrainSettings
from pipeline.train.sketch import BlankRows, Sketch
from pipeline.train.until import Until
from pipeline.train.yardstick import yardstick_of


@config
class Pretrain:
    """Pretrain `model` with `objective` on the rows of the `tokens` stage.

    The run ends after so many `steps`, that is updates, or `until` so many tokens, hours or FLOPs are
    spent. `mixture` says how often the rows of each source are read; without it every row is read once in
    an epoch. `curriculum` cuts rows short at first. Supervised `tasks` of a `text_pairs` stage are further
    sources, for objective text_to_text.
    """

    makes: ClassVar[Artifact] = "language_model"
    claims: ClassVar[Claim] = "job"
    version: ClassVar[int] = 1

    kind: Literal["pretrain"] = "pretrain"
    tokens: Annotated[str, Reads("tokens")]
    model: ModelConfig
    objective: ObjectiveConfig
    steps: AtLeastOne | None = None
    until: Until | None = None
    tasks: Annotated[str, Reads("text_pairs")] | None = None
    mixture: MixtureConfig | None = None
    curriculum: Curriculum | None = None
    train: TrainSettings = Field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        if reason := why_not(self.objective, self.model):
            raise ValueError(reason)
        if self.model.type == "encoder_decoder" and self.train.precision == "fp16":
            raise ValueError(
                "train.precision fp16: activations of encoder-decoders outgrow its largest number; allowed: auto, "
                "bf16, float32, or fp16_for_t5 if you mean it"
            )
        if self.tasks is not None and self.objective.type != "text_to_text":
            raise ValueError(
                f"objective {self.objective.type} knows no tasks; "
                "allowed: objective.type text_to_text, or no tasks"
            )
        if (self.steps is None) == (self.until is None):
            raise ValueError(
                "a run ends after steps, or until tokens, hours or flops are spent; give one of both"
            )
        if self.curriculum is not None:
            self._check_curriculum(self.curriculum)

    def sources(self) -> Sequence[Path]:
        """Nothing from outside the store."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Train, and say what came out."""
        work.train(self)
        steps = files.read_json(work.out / "done.json")["steps"]
        return {"steps": steps, "rows": self.train.batches().rows_before(steps)}

    def trainable(self, inputs: Mapping[str, Path]) -> Trainable:
        """Network, data and objective, the same on every rank."""
        rows, unseen = (TokenRows(inputs[self.tokens], split) for split in ("train", "validation"))
        vocabulary = rows.vocabulary()
        if words := self._too_long(rows.row_length):
            raise ConfigError([words])
        if self.curriculum is not None and (words := self.curriculum.why_not(rows.row_length)):
            raise ConfigError([f"curriculum: {words}"])
        read = self._with_tasks(rows, inputs, "train")
        torch.manual_seed(key_of(self.train.seed, "init") % (1 << 63))
        chosen: Any = self.objective  # trains this model: `why_not` has been asked
        objective: Objective = chosen.objective(self.model, vocabulary.size)
        kept: Any = objective.kept()
        corruption_of = functools.cache(
            functools.partial(self.objective.corruption, vocabulary)
        )  # by the length of rows
        corruption = corruption_of(rows.row_length)
        facts = {"objective": as_dict(self.objective), "row_length": rows.row_length}
        return Trainable(
            objective=objective,
            source=CorruptedRows(read, corruption, self._growth(rows.row_length, corruption_of)),
            held_out=CorruptedRows(self._with_tasks(unseen, inputs, "validation"), corruption),
            steps=self.steps,
            settings=self.train,
            save=lambda folder: save_model(folder, kept, vocabulary, facts),
            order=self._order(read),
            yardstick=self._yardstick(kept, unseen),
            until=self.until,
        )

    def sketch(self, stages: Mapping[str, Any], vocabulary: Vocabulary) -> Sketch:
        """What will be trained, told before there are tokens; `vocabulary` may be a blank one."""
        row_length = stages[self.tokens].row_length
        chosen: Any = self.objective
        with torch.device("meta"):
            objective: Objective = chosen.objective(self.model, vocabulary.size)
        corruption = self.objective.corruption(vocabulary, row_length)
        source = CorruptedRows(BlankRows(row_length), corruption)
        return Sketch(objective, source, self.train, self.steps, self.until)

    def conflicts(self, stages: Mapping[str, Any], processes: int) -> Iterator[Conflict]:
        """Rows too long or not cut, unknown sources, a warm-up without end, batches that cannot be shared out."""
        row_length = stages[self.tokens].row_length
        if words := self._too_long(row_length):
            yield ("model", "max_length"), words
        if self.curriculum is not None and (words := self.curriculum.why_not(row_length)):
            yield ("curriculum", "first_tokens"), words
        if self.mixture is not None:
            names = [source.name for source in stages[stages[self.tokens].corpus].inputs]
            if self.tasks is not None:
                names += stages[self.tasks].tasks
            if words := strangers(self.mixture, names):
                yield ("mixture",), words
        if words := self.train.schedule.why_not(self.steps):
            yield ("train", "schedule"), words
        yield from self.train.conflicts(processes)

    def shape(self, _stages: Mapping[str, Any]) -> Any:
        """The config of the network that comes out."""
        return self.model

    def _with_tasks(
        self, rows: TokenRows, inputs: Mapping[str, Path], split: Split
    ) -> TokenRows | JoinedRows:
        """`rows`, and behind them those of the tasks."""
        if self.tasks is None:
            return rows
        return JoinedRows([rows, TokenRows(inputs[self.tasks], split)])

    def _check_curriculum(self, curriculum: Curriculum) -> None:
        if self.tasks is not None:
            raise ValueError(
                "curriculum cuts the ends of rows off, which are the targets of tasks; allowed: one of both"
            )
        if self.steps is not None and curriculum.steps >= self.steps:
            raise ValueError(
                f"curriculum.steps {curriculum.steps} is not less than the {self.steps} steps of the run, so "
                "whole rows are never read; use fewer"
            )

    def _growth(self, row_length: int, corruption_of: Callable[[int], Any]) -> "Growth | None":
        if self.curriculum is None:
            return None
        return Growth(self.curriculum, row_length, corruption_of)

    def _order(self, rows: TokenRows | JoinedRows) -> MixedOrder | None:
        if self.mixture is None:
            return None
        return MixedOrder(self.mixture, rows.sources(), seed=self.train.seed)

    def _yardstick(self, network: nn.Module, rows: TokenRows) -> Measure | None:
        """The figure by which networks of this kind are compared; None where training measures it anyway."""
        found = yardstick_of(network)
        if found is None or found.config == self.objective:
            return None
        corruption = found.corruption(network, rows.vocabulary(), rows.row_length)
        if corruption is None:
            return None
        return Measure(found.name, found.around(network), CorruptedRows(rows, corruption))

    def _too_long(self, row_length: int) -> str:
        """Why rows of `row_length` do not fit into the model, "" if they do."""
        needed = positions_needed(self.objective, self.model.type, row_length)
        if self.model.max_length is None or needed <= self.model.max_length:
            return ""
        return (
            f"rows of {row_length} tokens make sequences of {needed}, but model.max_length is "
            f"{self.model.max_length}; raise it, or shorten row_length of stage {self.tokens}"
        )


@dataclasses.dataclass(frozen=True)
class Growth:
    """How rows become longer, and how rows of a length are corrupted."""

    curriculum: Curriculum
    row_length: int
    corruption_of: Callable[[int], Any]


@dataclasses.dataclass(frozen=True)
class CorruptedRows:
    """Token rows as a Source, corrupted for an objective.

    A corruption that has `corrupt_beside` is given another row too, drawn at random; one that has `at_step` changes
    with the steps of training, as rows do that have a `growth`.
    """

    rows: Rows
    corruption: Any
    growth: Growth | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Row `index`, corrupted."""
        row = self.rows.row(index)
        beside = getattr(self.corruption, "corrupt_beside", None)
        if beside is None:
            example: Example = self.corruption.corrupt(row, rng)
            return example
        other = index + int(rng.integers(1, max(len(self.rows), 2)))
        example = beside(row, self.rows.row(other % len(self.rows)), rng)
        return example

    def at_step(self, step: int) -> "CorruptedRows":
        """The same rows as step number `step` corrupts them."""
        rows, corruption = self.rows, self.corruption
        if (growth := self.growth) is not None:
            length = growth.curriculum.length(step, growth.row_length)
            rows, corruption = CutRows(rows, length), growth.corruption_of(length)
        told = getattr(corruption, "at_step", None)
        return CorruptedRows(rows, told(step) if told else corruption)

    def collate(self, examples: Sequence[Example]) -> Mapping[str, np.ndarray]:
        """One batch."""
        batch: Mapping[str, np.ndarray] = self.corruption.collate(examples)
        return batch
