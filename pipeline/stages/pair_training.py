"""What fine-tuning on pairs of texts has in common: the pretrained network, rows of tasks, and answers scored.

`finetune_text` and `finetune_cloze` differ in the networks they take and in how these see a pair.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pipeline import files
from pipeline.config import ConfigError, DataError, config
from pipeline.data.example import Source
from pipeline.data.mixture import MixedOrder, MixtureConfig, strangers
from pipeline.data.shards import TokenRows
from pipeline.evaluate.answers import Network, answers_of
from pipeline.flow.stage import Conflict, Reads, Work
from pipeline.models.artifact import language_network, load_model, save_model
from pipeline.objectives.objective import Objective
from pipeline.tokenizer import Vocabulary, load_vocabulary
from pipeline.train.run import AtLeastOne, Trainable, TrainSettings

METRICS_FILE = "metrics.json"


@config
class PairTraining:
    """Train `model` on the pairs of `tasks` for `epochs` passes over their rows, and score what it answers.

    `mixture` says how often each task is read; without it every pair is read once in an epoch. `dropout`
    is the model's own unless given. Then up to `answered_rows` validation pairs of each task are answered
    greedily, and compared with the targets: by whether they are the same letter by letter, and by the task's metrics.
    """

    OBJECTIVE: ClassVar[str]

    model: Annotated[str, Reads("language_model")]
    tasks: Annotated[str, Reads("text_pairs")]
    epochs: Annotated[float, Field(gt=0)] = 3.0
    mixture: MixtureConfig | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    answered_rows: AtLeastOne = 500
    train: TrainSettings = Field(default_factory=TrainSettings)

    def lengths(self) -> tuple[int, int]:
        """Most tokens of inputs and of targets."""
        raise NotImplementedError

    def unfit(self, shape: Any) -> str:
        """Why a model of this shape cannot be trained on pairs of these lengths, "" if it can."""
        raise NotImplementedError

    def objective(self, network: Any) -> Objective:
        """What trains the network."""
        raise NotImplementedError

    def seen(self, rows: TokenRows, vocabulary: Vocabulary) -> Source:
        """The pairs as the objective has them."""
        raise NotImplementedError

    def sources(self) -> Sequence[Path]:
        """Nothing from outside the store."""
        return ()

    def answered(self, work: Work) -> Mapping[str, Any]:
        """Answer with what was trained, and say what came out."""
        folder = work.inputs[self.tasks]
        network, _ = load_model(work.out / "model")
        assert isinstance(network, Network)
        answers = answers_of(
            network,
            TokenRows(folder, "validation"),
            count=self.answered_rows,
            lengths=self.lengths(),
            metrics=metrics_in(folder),
        )
        files.write_json(work.out / "answers.json", answers)
        scores = {name: found["exact_match"] for name, found in answers.items()}
        return {"steps": self._steps(TokenRows(folder, "train")), **scores}

    def trainable(self, inputs: Mapping[str, Path]) -> Trainable:
        """Network, data and objective, the same on every rank."""
        folder = inputs[self.model] / "model"
        network = self._network(folder)
        vocabulary = load_vocabulary(folder / "tokenizer")
        rows, unseen = (TokenRows(inputs[self.tasks], split) for split in ("train", "validation"))
        if rows.vocabulary().digest != vocabulary.digest:
            raise DataError(
                f"{rows.folder}: made with another vocabulary than the model of {folder}"
            )
        order = None
        if self.mixture is not None:
            order = MixedOrder(self.mixture, rows.sources(), seed=self.train.seed)
        facts = {"objective": {"type": self.OBJECTIVE}, "row_length": rows.row_length}
        return Trainable(
            objective=self.objective(network),
            source=self.seen(rows, vocabulary),
            held_out=self.seen(unseen, vocabulary),
            steps=self._steps(rows),
            settings=self.train,
            save=lambda folder: save_model(folder, network, vocabulary, facts),
            order=order,
        )

    def conflicts(self, stages: Mapping[str, Any], processes: int) -> Iterator[Conflict]:
        """A model that does not fit, unknown tasks, batches that cannot be shared out."""
        if words := self.unfit(self.shape(stages)):
            yield ("model",), words
        if self.mixture is not None and (
            words := strangers(self.mixture, list(stages[self.tasks].tasks))
        ):
            yield ("mixture",), words
        yield from self.train.conflicts(processes)

    def shape(self, stages: Mapping[str, Any]) -> Any:
        """The config of the network that comes out, dropout aside."""
        return stages[self.model].shape(stages)

    def _network(self, folder: Path) -> Any:
        """The pretrained network, with this stage's dropout; ConfigError if it cannot do what is asked."""
        pretrained, _ = load_model(folder)
        if words := self.unfit(pretrained.config):
            raise ConfigError([f"model: {words}"])
        if self.dropout is None:
            return pretrained
        shape = dataclasses.replace(pretrained.config, dropout=self.dropout)
        network = language_network(shape, pretrained.vocab_size)
        network.load_state_dict(pretrained.state_dict())
        return network

    def _steps(self, rows: TokenRows) -> int:
        return self.train.batches().steps_for(self.epochs * len(rows))


def metrics_in(folder: Path) -> Mapping[str, Sequence[str]]:
    """The metrics of each task in a folder of pairs, {} where nothing is said of them."""
    path = folder / METRICS_FILE
    return files.read_json(path) if path.exists() else {}
