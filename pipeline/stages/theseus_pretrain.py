"""The `theseus_pretrain` stage: a pretrained model to a shallower one for any task, by Theseus on its own objective."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipeline.compress.replacing import Replacing
from pipeline.compress.theseus import TheseusObjective
from pipeline.config import ConfigError, as_dict, config
from pipeline.data.shards import TokenRows
from pipeline.flow.stage import Artifact, Claim, Conflict, Reads, Work
from pipeline.models.artifact import load_model, save_model
from pipeline.objectives import ObjectiveConfig
from pipeline.stages.pretrain import CorruptedRows
from pipeline.stages.retraining import around, check_rows, why_not_trained
from pipeline.stages.theseus import refuse_zero_3, steps_of
from pipeline.train.run import Trainable, TrainSettings


@config
class TheseusPretrain(Replacing):
    """Replace the layers of the language model `model` by fewer successors, on the rows of `tokens`.

    `objective` is what `model` was pretrained with, or another one for such models; `tokens` may
    also be pairs of texts, for objective text_to_text. Replacing lasts `schedule.replacing_epochs`
    passes over the rows; then the successors train alone for `successor_epochs`.
    """

    makes: ClassVar[Artifact] = "language_model"
    claims: ClassVar[Claim] = "job"
    version: ClassVar[int] = 1

    kind: Literal["theseus_pretrain"] = "theseus_pretrain"
    model: Annotated[str, Reads("language_model")]
    tokens: Annotated[str, Reads("tokens", "text_pairs")]
    objective: ObjectiveConfig
    successor_epochs: Annotated[float, Field(ge=0)] = 1.0
    train: TrainSettings = Field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_zero_3(self.train)

    def sources(self) -> Sequence[Path]:
        """Nothing from outside the store."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Train, and say what came out."""
        work.train(self)
        rows = len(TokenRows(work.inputs[self.tokens], "train"))
        replacing, steps = self.steps(rows)
        return {"steps": steps, "replacing_steps": replacing, "rows": rows}

    def steps(self, rows: int) -> tuple[int, int]:
        """Steps with replacing, and all steps, for so many `rows`."""
        return steps_of(self, rows)

    def trainable(self, inputs: Mapping[str, Path]) -> Trainable:
        """Network, data and objective, the same on every rank."""
        network, _ = load_model(inputs[self.model] / "model")
        rows, unseen = (TokenRows(inputs[self.tokens], split) for split in ("train", "validation"))
        vocabulary = check_rows(rows, inputs[self.model])
        if words := why_not_trained(self.objective, network.config, rows.row_length):
            raise ConfigError([f"objective: {words}"])
        replacing, steps = self.steps(len(rows))
        objective = TheseusObjective(
            around(network, self.objective, seed=self.train.seed),
            self.splits_of(network.config),
            rate=lambda step: self.schedule.at(step, replacing),
            seed=self.train.seed,
            start=self.start,
            mode=self.predecessors,
        )
        corruption = self.objective.corruption(vocabulary, rows.row_length)
        facts = {"objective": as_dict(self.objective), "row_length": rows.row_length}
        return Trainable(
            objective=objective,
            source=CorruptedRows(rows, corruption),
            held_out=CorruptedRows(unseen, corruption),
            steps=steps,
            settings=self.train,
            save=lambda folder: save_model(folder, objective.kept(), vocabulary, facts),
        )

    def conflicts(self, stages: Mapping[str, Any], processes: int) -> Iterator[Conflict]:
        """An objective that is not for this model, layers that cannot be grouped, batches not to be shared out."""
        before = stages[self.model].shape(stages)
        if before is not None:
            row_length = getattr(stages[self.tokens], "row_length", None)
            if words := why_not_trained(self.objective, before, row_length):
                yield ("objective",), words
            yield from self.why_not(before)
        yield from self.train.conflicts(processes)

    def shape(self, stages: Mapping[str, Any]) -> Any:
        """The config of the network that comes out; None where that of `model` is not known yet."""
        before = stages[self.model].shape(stages)
        return None if before is None else self.shape_of(before)
