"""The `distill` stage: a smaller classifier that learns a task from a larger one."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from pipeline import files
from pipeline.compress.distill import Distillation
from pipeline.compress.student import Student
from pipeline.compress.taught import FACTS, TaughtRows, facts_of
from pipeline.config import ConfigError, DataError, config
from pipeline.data.example import Source
from pipeline.evaluate.forms import Reading
from pipeline.evaluate.task import LabelledTask, Split, load_task
from pipeline.flow.stage import Artifact, Claim, Conflict, Reads, Work
from pipeline.models.artifact import load_model, save_model
from pipeline.runtime import key_of
from pipeline.stages.finetune import MaxLength, loaded_classifier, too_long
from pipeline.tokenizer import Vocabulary, load_vocabulary
from pipeline.train.run import Trainable, TrainSettings


@config
class Distill(Student):
    """Teach a student the `task` that `teacher` was fine-tuned on, for `epochs` passes over its rows.

    A `student` is another stage's classifier, such as a successor of Theseus, or a language model, which
    gets a new head. `taught` names a stage that has kept what the teacher says, for methods that
    look at nothing else. Texts longer than `max_length` tokens lose their end.
    """

    makes: ClassVar[Artifact] = "classifier"
    claims: ClassVar[Claim] = "job"
    version: ClassVar[int] = 1

    kind: Literal["distill"] = "distill"
    teacher: Annotated[str, Reads("classifier")]
    task: Annotated[str, Reads("task")]
    student: Annotated[str, Reads("classifier", "language_model")] | None = None
    taught: Annotated[str, Reads("taught")] | None = None
    epochs: Annotated[float, Field(gt=0)] = 3.0
    max_length: MaxLength = 128
    train: TrainSettings = Field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        self.check_one(self.student)
        if self.taught is not None and self.method.type not in ("logits", "pkd"):
            raise ValueError(
                f"method {self.method.type} looks at whole sequences of states, which are not kept; "
                "allowed: method logits or pkd, or no taught"
            )

    def sources(self) -> Sequence[Path]:
        """Nothing from outside the store."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Train, and say what came out."""
        work.train(self)
        steps = files.read_json(work.out / "done.json")["steps"]
        return {"steps": steps, "rows": len(load_task(work.inputs[self.task]).rows("train"))}

    def trainable(self, inputs: Mapping[str, Path]) -> Trainable:
        """Networks, data and objective, the same on every rank."""
        teacher, facts = loaded_classifier(inputs[self.teacher])
        task = load_task(inputs[self.task])
        if list(task.labels) != facts["labels"]:
            raise DataError(
                f"{task.folder}: its labels are not those that the classifier of stage "
                f"{self.teacher!r} knows; distil on the task it was fine-tuned on"
            )
        vocabulary = load_vocabulary(inputs[self.teacher] / "model" / "tokenizer")
        torch.manual_seed(key_of(self.train.seed, "init") % (1 << 63))
        student = self._student(teacher, inputs, vocabulary)
        for shape, stage in ((teacher.config, self.teacher), (student.config, "student")):
            if words := too_long(self.max_length, shape.max_length, stage):
                raise ConfigError([f"max_length: {words}"])
        if words := self.why_not(teacher.config, student.config):
            raise ConfigError([f"method: {words}"])
        reading = Reading(self.max_length, facts.get("stride"))
        source, held_out = (
            self._rows(task, split, vocabulary, reading, inputs)
            for split in ("train", "validation")
        )
        objective = Distillation(
            student,
            teacher if self.taught is None else None,
            self.method,
            teacher_shape=teacher.config,
            asks="numbers" if task.form.name == "regression" else "labels",
        )
        facts = {**facts, "max_length": self.max_length}
        return Trainable(
            objective=objective,
            source=source,
            held_out=held_out,
            steps=self.train.batches().steps_for(self.epochs * len(source)),
            settings=self.train,
            save=lambda folder: save_model(folder, student, vocabulary, facts),
        )

    def conflicts(self, stages: Mapping[str, Any], processes: int) -> Iterator[Conflict]:
        """A student this teacher or method is not for, a model too short, batches that cannot be shared out."""
        before = stages[self.teacher].shape(stages)
        given = stages[self.student].shape(stages) if self.student else None
        if before is not None and (given is not None or self.student is None):
            if words := too_long(self.max_length, before.max_length, self.teacher):
                yield ("max_length",), words
            if words := self.why_not(before, given):
                yield ("method",), words
        yield from self.train.conflicts(processes)

    def shape(self, stages: Mapping[str, Any]) -> Any:
        """The config of the network that comes out."""
        before = stages[self.teacher].shape(stages)
        given = stages[self.student].shape(stages) if self.student else None
        return before if self.why_not(before, given) else self.shape_beside(before, given)

    def _student(self, teacher: Any, inputs: Mapping[str, Path], vocabulary: Vocabulary) -> Any:
        if self.student is None:
            if words := self.why_not(teacher.config, None):
                raise ConfigError([f"method: {words}"])
            return self.built(teacher)
        folder = inputs[self.student] / "model"
        found: Any = load_model(folder)[0]
        if load_vocabulary(folder / "tokenizer").digest != vocabulary.digest:
            raise DataError(
                f"{folder}: has another vocabulary than the teacher of {self.teacher!r}"
            )
        if type(found) is type(teacher):
            if found.num_labels == teacher.num_labels:
                return found
            raise DataError(f"{folder}: knows {found.num_labels} labels, not {teacher.num_labels}")
        if not hasattr(found, "encoder") or found.config.type != "encoder":
            words = f"student: stage {self.student!r} makes no encoder; name one that does"
            raise ConfigError([words])
        network = type(teacher)(found.config, found.vocab_size, teacher.num_labels)
        network.encoder.load_state_dict(found.encoder.state_dict())
        return network

    def _rows(
        self,
        task: LabelledTask,
        split: Split,
        vocabulary: Vocabulary,
        reading: Reading,
        inputs: Mapping[str, Path],
    ) -> Source:
        rows = task.source(split, vocabulary, reading)
        if self.taught is None:
            return rows
        folder = inputs[self.taught]
        wanted = facts_of(inputs[self.teacher] / "model", task.folder, reading.max_length)
        if files.read_json(folder / FACTS) != wanted:
            raise DataError(
                f"{folder}: was said by another teacher, of another task or of texts of another max_length; "
                f"teach with model {self.teacher!r}, task {self.task!r} and max_length {self.max_length}"
            )
        return TaughtRows(rows, folder / f"{split}.safetensors")
