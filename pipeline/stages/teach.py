"""The `teach` stage: what a classifier says of every row of a task, kept for the students it is to have."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pipeline import files
from pipeline.compress.taught import FACTS, facts_of, write_taught
from pipeline.config import config
from pipeline.evaluate.forms import Reading
from pipeline.evaluate.task import Split, load_task
from pipeline.flow.stage import Artifact, Claim, Conflict, Reads, Work
from pipeline.stages.finetune import MaxLength, check_length, loaded_classifier, too_long
from pipeline.tokenizer import load_vocabulary
from pipeline.train.run import AtLeastOne

SPLITS: tuple[Split, ...] = ("train", "validation")


@config
class Teach:
    """Compute once what `model` says of the rows of `task`: logits, and states of the first token.

    Rows are computed `batch` at a time; texts longer than `max_length` tokens lose their end.
    """

    makes: ClassVar[Artifact] = "taught"
    claims: ClassVar[Claim] = "cpu"
    version: ClassVar[int] = 1

    kind: Literal["teach"] = "teach"
    model: Annotated[str, Reads("classifier")]
    task: Annotated[str, Reads("task")]
    max_length: MaxLength = 128
    batch: AtLeastOne = 32

    def sources(self) -> Sequence[Path]:
        """Nothing from outside the store."""
        return ()

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write a file for each split that students learn from."""
        folder = work.inputs[self.model]
        network, facts = loaded_classifier(folder)
        check_length(self.max_length, network.config.max_length, self.model)
        task = load_task(work.inputs[self.task])
        vocabulary = load_vocabulary(folder / "model" / "tokenizer")
        reading = Reading(self.max_length, facts.get("stride"))
        rows = {}
        for split in SPLITS:
            source = task.source(split, vocabulary, reading)
            rows[split] = len(source)
            path = work.out / f"{split}.safetensors"
            for done in write_taught(path, network, source, batch=self.batch):
                work.progress(done, len(source), f"{split} rows")
        said = facts_of(folder / "model", task.folder, self.max_length)
        files.write_json(work.out / FACTS, said)
        return {f"{split}_rows": count for split, count in rows.items()}

    def conflicts(self, stages: Mapping[str, Any], _processes: int) -> Iterator[Conflict]:
        """A model too short."""
        shape = stages[self.model].shape(stages)
        if shape is not None and (words := too_long(self.max_length, shape.max_length, self.model)):
            yield ("max_length",), words
