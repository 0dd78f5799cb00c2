"""The `theseus` stage: a fine-tuned classifier to a shallower one, by BERT-of-Theseus."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipeline import files
from pipeline.compress.replacing import Replacing
from pipeline.compress.theseus import TheseusObjective
from pipeline.config import DataError, config
from pipeline.evaluate.forms import Aims, Reading
from pipeline.evaluate.task import load_task
from pipeline.flow.stage import Artifact, Claim, Conflict, Reads, Work
from pipeline.models.artifact import save_model
from pipeline.models.encoder import EncoderConfig
from pipeline.stages.finetune import MaxLength, check_length, loaded_classifier, too_long
from pipeline.tokenizer import load_vocabulary
from pipeline.train.run import DeepSpeedConfig, Trainable, TrainSettings


@config
class Theseus(Replacing):
    """Replace the layers of the classifier `model` by fewer successors, on its own task.

    Replacing lasts `schedule.replacing_epochs`; then the successors train alone for
    `successor_epochs`. An epoch is one pass over the task's train split. Texts longer than
    `max_length` tokens lose their end.
    """

    makes: ClassVar[Artifact] = "classifier"
    claims: ClassVar[Claim] = "job"
    version: ClassVar[int] = 2

    kind: Literal["theseus"] = "theseus"
    model: Annotated[str, Reads("classifier")]
    task: Annotated[str, Reads("task")]
    successor_epochs: Annotated[float, Field(ge=0)] = 1.0
    max_length: MaxLength = 128
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
        steps = files.read_json(work.out / "done.json")["steps"]
        return {"steps": steps, "rows": len(load_task(work.inputs[self.task]).rows("train"))}

    def steps(self, rows: int) -> tuple[int, int]:
        """Steps with replacing, and all steps, for a train split of `rows`."""
        return steps_of(self, rows)

    def trainable(self, inputs: Mapping[str, Path]) -> Trainable:
        """Network, data and objective, the same on every rank."""
        predecessor, facts = loaded_classifier(inputs[self.model])
        check_length(self.max_length, predecessor.config.max_length, self.model)
        task = load_task(inputs[self.task])
        if list(task.labels) != facts["labels"]:
            raise DataError(
                f"{task.folder}: its labels are not those that the classifier of stage "
                f"{self.model!r} knows; compress a classifier on the task it was fine-tuned on"
            )
        vocabulary = load_vocabulary(inputs[self.model] / "model" / "tokenizer")
        reading = Reading(self.max_length, facts.get("stride"))
        rows = task.source("train", vocabulary, reading)
        replacing, steps = self.steps(len(rows))
        objective = TheseusObjective(
            task.form.objective(predecessor, Aims(task.metric)),
            self.splits_of(predecessor.config),
            rate=lambda step: self.schedule.at(step, replacing),
            seed=self.train.seed,
            start=self.start,
            mode=self.predecessors,
        )
        facts = {**facts, "max_length": self.max_length}
        return Trainable(
            objective=objective,
            source=rows,
            held_out=task.source("validation", vocabulary, reading),
            steps=steps,
            settings=self.train,
            save=lambda folder: save_model(folder, objective.kept(), vocabulary, facts),
        )

    def conflicts(self, stages: Mapping[str, Any], processes: int) -> Iterator[Conflict]:
        """Layers that cannot be grouped, a model too short, batches that cannot be shared out."""
        before = stages[self.model].shape(stages)
        if isinstance(before, EncoderConfig):
            if words := too_long(self.max_length, before.max_length, self.model):
                yield ("max_length",), words
            yield from self.why_not(before)
        yield from self.train.conflicts(processes)

    def shape(self, stages: Mapping[str, Any]) -> Any:
        """The config of the network that comes out."""
        return self.shape_of(stages[self.model].shape(stages))


def steps_of(stage: Any, rows: int) -> tuple[int, int]:
    """Steps with replacing, and all steps, of a stage with `schedule` and `successor_epochs`."""
    epochs = stage.schedule.replacing_epochs
    batches = stage.train.batches()
    return (
        batches.steps_for(epochs * rows),
        batches.steps_for((epochs + stage.successor_epochs) * rows),
    )


def refuse_zero_3(train: TrainSettings) -> None:
    """ValueError for the one engine that cannot exchange modules."""
    if isinstance(train.engine, DeepSpeedConfig) and train.engine.zero_stage == 3:
        raise ValueError(
            "zero_stage 3 needs the same modules to run in every step, and Theseus exchanges "
            "them; allowed: train.engine.zero_stage 0, 1 or 2, or engine torch"
        )
