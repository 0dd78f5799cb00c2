"""The `finetune` stage: a pretrained encoder, trained with a new head on a task."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from pipeline import files
from pipeline.complaints import nearest
from pipeline.config import ConfigError, DataError, config
from pipeline.evaluate.forms import Aims, Reading
from pipeline.evaluate.forms.form import Form
from pipeline.evaluate.task import LabelledTask, load_task
from pipeline.flow.stage import Artifact, Claim, Conflict, Reads, Work
from pipeline.models.artifact import Classifier, load_model, save_model
from pipeline.models.encoder import EncoderConfig
from pipeline.models.heads import (
    MaskedLanguageModel,
    ReplacedTokenDetector,
    SequenceClassifier,
    TokenClassifier,
)
from pipeline.runtime import key_of
from pipeline.tokenizer import load_vocabulary
from pipeline.train.run import AtLeastOne, Trainable, TrainSettings

Epochs = Annotated[float, Field(gt=0)]
MaxLength = Annotated[int, Field(ge=8)]
# A classifier of another task is one too, such as a successor of Theseus on MNLI: its head is left behind.
Pretrained = MaskedLanguageModel | ReplacedTokenDetector | SequenceClassifier | TokenClassifier
ClassWeights = Literal["balanced"] | Mapping[str, Annotated[float, Field(gt=0)]]


@config
class Finetune:
    """Train the encoder of `model` under a new head for `epochs` passes over the task's train split.

    Texts longer than `max_length` tokens lose their end, or are read in windows that begin every `stride`
    tokens; contexts of questions and labelled words are always read in windows, half as far apart as
    they are long unless `stride` is given. `dropout` is the model's own unless given. `class_weights`
    balanced has all labels count alike, however rare they are; labels may also be given weights of their own. What
    is meant is the loss of training: held-out figures are plain.
    """

    makes: ClassVar[Artifact] = "classifier"
    claims: ClassVar[Claim] = "job"
    version: ClassVar[int] = 2

    kind: Literal["finetune"] = "finetune"
    model: Annotated[str, Reads("language_model", "classifier")]
    task: Annotated[str, Reads("task")]
    epochs: Epochs = 3.0
    max_length: MaxLength = 128
    stride: AtLeastOne | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    class_weights: ClassWeights | None = None
    train: TrainSettings = Field(default_factory=TrainSettings)

    def sources(self) -> Sequence[Path]:
        """Nothing from outside the store."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Train, and say what came out."""
        work.train(self)
        rows = len(load_task(work.inputs[self.task]).rows("train"))
        return {"steps": files.read_json(work.out / "done.json")["steps"], "rows": rows}

    def trainable(self, inputs: Mapping[str, Path]) -> Trainable:
        """Network, data and objective, the same on every rank."""
        folder = inputs[self.model] / "model"
        pretrained, _ = load_model(folder)
        if not isinstance(pretrained, Pretrained):
            raise ConfigError([f"model: {self._no_encoder()}"])
        check_length(self.max_length, pretrained.config.max_length, self.model)
        task = load_task(inputs[self.task])
        if self.stride is not None and not task.form.windows:
            words = f"stride: tasks of form {task.form.name} are not read in windows; leave it out"
            raise ConfigError([words])
        vocabulary = load_vocabulary(folder / "tokenizer")
        torch.manual_seed(key_of(self.train.seed, "init") % (1 << 63))
        network = classifier_of(pretrained, len(task.labels), dropout=self.dropout, form=task.form)
        reading = Reading(self.max_length, self.stride)
        source = task.source("train", vocabulary, reading)
        facts = {
            "form": task.form.name,
            "labels": list(task.labels),
            "metric": task.metric,
            "max_length": self.max_length,
            "stride": self.stride,
        }
        return Trainable(
            objective=task.form.objective(network, Aims(task.metric, self._weights(task))),
            source=source,
            held_out=task.source("validation", vocabulary, reading),
            steps=self.train.batches().steps_for(self.epochs * len(source)),
            settings=self.train,
            save=lambda folder: save_model(folder, network, vocabulary, facts),
        )

    def conflicts(self, stages: Mapping[str, Any], processes: int) -> Iterator[Conflict]:
        """A model that is no encoder or too short, batches that cannot be shared out."""
        shape = self.shape(stages)
        if not isinstance(shape, EncoderConfig):
            yield ("model",), self._no_encoder()
        elif words := too_long(self.max_length, shape.max_length, self.model):
            yield ("max_length",), words
        yield from self.train.conflicts(processes)

    def shape(self, stages: Mapping[str, Any]) -> Any:
        """The config of the network that comes out, dropout aside."""
        return stages[self.model].shape(stages)

    def _weights(self, task: LabelledTask) -> np.ndarray | None:
        """The weight of each label in the loss; ConfigError where the task has no such labels."""
        if self.class_weights is None:
            return None
        if not task.labels:
            words = f"class_weights: tasks of form {task.form.name} have no labels; leave it out"
            raise ConfigError([words])
        given = {} if self.class_weights == "balanced" else self.class_weights
        for name in given:
            if name not in task.labels:
                known = f"{', '.join(task.labels)}{nearest(name, task.labels)}"
                raise ConfigError([f"class_weights: got label {name!r}; allowed: {known}"])
        return label_weights(task, given)

    def _no_encoder(self) -> str:
        return f"stage {self.model!r} makes no encoder; finetune needs one with model.type encoder"


def label_weights(task: LabelledTask, given: Mapping[str, float]) -> np.ndarray:
    """Weights of the labels whose mean over the labels of the train split is 1. [labels], float64.

    In proportion to those `given`, of which absent ones are 1; with none given, to how rare a label is.
    """
    rows = task.rows("train")
    used = [label for row in rows for label in row.get("labels", [row.get("label")])]
    counts = np.bincount(used, minlength=len(task.labels))
    if not given:
        return np.asarray(counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)))
    weights = np.array([given.get(name, 1.0) for name in task.labels])
    return np.asarray(weights * counts.sum() / (weights @ counts))


def classifier_of(
    pretrained: Pretrained,
    num_labels: int,
    *,
    dropout: float | None = None,
    form: Form | None = None,
) -> Classifier:
    """The encoder of `pretrained` under a head from torch's generator, for classification or another `form`."""
    shape = pretrained.config
    if dropout is not None:
        shape = dataclasses.replace(shape, dropout=dropout)
    kind: type[Classifier] = SequenceClassifier if form is None else form.network
    outputs = num_labels if form is None else form.outputs([""] * num_labels)
    network = kind(shape, pretrained.vocab_size, outputs)
    network.encoder.load_state_dict(pretrained.encoder.state_dict())
    return network


def check_length(max_length: int, longest: int, stage: str) -> None:
    """Refuse texts that are longer than the positions the model of `stage` has."""
    if words := too_long(max_length, longest, stage):
        raise ConfigError([f"max_length: {words}"])


def too_long(max_length: int, longest: int, stage: str) -> str:
    """Why texts of `max_length` tokens do not fit into the model of `stage`, "" if they do."""
    if max_length <= longest:
        return ""
    return f"got {max_length}; the model of stage {stage!r} has only {longest} positions"


def loaded_classifier(folder: Path) -> tuple[Classifier, dict[str, Any]]:
    """The classifier in a stage's output folder, and its facts; DataError if there is none."""
    network, facts = load_model(folder / "model")
    if not isinstance(network, Classifier):
        raise DataError(f"{folder}: holds a language model, needs a classifier")
    return network, facts
