"""The `text_pairs` stage: labelled files of several tasks as pairs of texts, encoded once into token shards.

Every task is text to text (Raffel et al. 2020, section 2.4): templates say what is read and what is to be written. The
folder is one of token shards whose sources are the tasks, so mixtures, order and checks are those of all tokens.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from data_prep.labelled_files import LabelledFile, records, value_of
from data_prep.text_templates import TEMPLATES, TextTemplate
from pipeline import files
from pipeline.complaints import nearest, shown
from pipeline.config import DataError, config
from pipeline.data.shard_file import layout_for, shard_facts, write_shard
from pipeline.data.shards import write_manifest
from pipeline.flow.stage import Artifact, Claim, Reads, Work
from pipeline.tokenizer import Vocabulary, load_vocabulary

SPLITS: tuple[Literal["train", "validation"], ...] = ("train", "validation")
FIELD = re.compile(r"\{([^{}]+)\}")
PAIRS_AT_ONCE = 1000
METRICS_FILE = "metrics.json"
TextMetric = Literal[
    "accuracy",
    "macro_f1",
    "matthews",
    "pearson",
    "spearman",
    "squad_exact",
    "squad_f1",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "bleu",
]
MOST_TASKS = 1 << 16  # numbers of sources that a shard can hold


@config
class TextTask:
    """One task: a file for each split, and templates of `inputs` and `targets`, in which `{field}` is its value.

    `words` are what values of fields are written as in the targets, such as `{"0": negative}`.
    Numbers in the targets are rounded to multiples of `step`, as T5 does with similarities and 0.2.
    What is written is judged by `metrics`, beside whether it is the target letter by letter. `like` names a
    known task (`text_templates`), which has all of these; what is given here goes before.
    `weight` is a factor of the number of rows where mixtures go by size.
    """

    train: LabelledFile
    validation: LabelledFile
    like: str | None = None
    inputs: str | None = None
    targets: str | None = None
    words: Mapping[str, str] | None = None
    step: Annotated[float, Field(gt=0)] | None = None
    metrics: tuple[TextMetric, ...] | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0

    def __post_init__(self) -> None:
        if self.like is not None and self.like not in TEMPLATES:
            raise ValueError(
                f"like: got {shown(self.like)}; allowed: {', '.join(TEMPLATES)}"
                f"{nearest(self.like, TEMPLATES)}"
            )
        if self.like is None and self.inputs is None:
            raise ValueError(
                "inputs: say what is read of a row, such as {text}; or name a task like"
            )
        for name in ("inputs", "targets"):
            if not FIELD.search(getattr(self.template, name)):
                raise ValueError(
                    f"{name}: got {shown(getattr(self, name))}, the same text for every row; "
                    "name a field of the files in it, such as {text}"
                )

    @property
    def template(self) -> TextTemplate:
        """Everything about how rows are written, from here and from the task this one is like."""
        base = TEMPLATES[self.like] if self.like else TextTemplate("", metrics=())
        names = ("inputs", "targets", "words", "step", "metrics")
        given = {name: getattr(self, name) for name in names}
        return dataclasses.replace(
            base, **{name: value for name, value in given.items() if value is not None}
        )

    def pair(self, record: Mapping[str, Any], place: str) -> tuple[str, str]:
        """Inputs and targets of one record; DataError where a field is missing or a side is blank."""
        template = self.template
        values = {
            name: value_of(record, name, place)
            for name in FIELD.findall(template.inputs + template.targets)
        }
        inputs = FIELD.sub(lambda found: str(values[found[1]]), template.inputs)
        targets = FIELD.sub(
            lambda found: self._written(template, values[found[1]], place), template.targets
        )
        for side in (inputs, targets):
            if not side.strip():
                raise DataError(
                    f"{place}: inputs {shown(inputs)} and targets {shown(targets)}; both need text"
                )
        return inputs, targets

    def _written(self, template: TextTemplate, value: Any, place: str) -> str:
        """A value as the targets have it.

        >>> task = TextTask(train="a.csv", validation="b.csv", inputs="{s}", step=0.2)
        >>> task._written(task.template, 2.71, "")
        '2.8'
        """
        if str(value) in template.words:
            return template.words[str(value)]
        if template.step is None:
            return str(value)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise DataError(
                f"{place}: {shown(value)} is no number, and step rounds numbers"
            ) from None
        step = Decimal(str(template.step)).normalize()
        return str(round(number / float(step)) * step)


@config
class TextPairs:
    """Encode the pairs of all `tasks` with the vocabulary of `vocab`.

    A pair that has more than `row_length` tokens loses the end of its inputs; one whose targets alone
    do not fit is an error.
    """

    makes: ClassVar[Artifact] = "text_pairs"
    claims: ClassVar[Claim] = "cpu"
    version: ClassVar[int] = 1

    kind: Literal["text_pairs"] = "text_pairs"
    vocab: Annotated[str, Reads("vocab")]
    tasks: Annotated[Mapping[str, TextTask], Field(min_length=1, max_length=MOST_TASKS)]
    row_length: Annotated[int, Field(ge=8, le=1 << 20)] = 512

    def sources(self) -> Sequence[Path]:
        """The files of all tasks."""
        return [path for task in self.tasks.values() for path in (task.train, task.validation)]

    def run(self, work: Work) -> Mapping[str, Any]:
        """Write a shard for each split, the manifest and a copy of the vocabulary."""
        vocabulary = load_vocabulary(work.inputs[self.vocab])
        layout = layout_for(vocabulary, self.row_length, "pairs")
        cut: Counter[str] = Counter()
        shards: dict[str, list[dict[str, Any]]] = {}
        for done, split in enumerate(SPLITS):
            work.progress(done, len(SPLITS), "splits")
            path = work.out / split / "shard-00000.arrow"
            sides = [
                (number, self._sides(name, split, vocabulary, cut))
                for number, name in enumerate(self.tasks)
            ]
            write_shard(path, sides, layout)
            shards[split] = [shard_facts(path)]
        manifest = write_manifest(
            work.out,
            vocabulary=vocabulary,
            layout=layout,
            sources={name: task.weight for name, task in self.tasks.items()},
            shards=shards,
        )
        metrics = {name: task.template.metrics for name, task in self.tasks.items()}
        files.write_json(work.out / METRICS_FILE, metrics)
        splits = {split: manifest["splits"][split]["sources"] for split in SPLITS}
        return splits | {"cut": dict(cut)}

    def _sides(
        self,
        name: str,
        split: Literal["train", "validation"],
        vocabulary: Vocabulary,
        cut: Counter[str],
    ) -> Iterator[np.ndarray]:
        """Ids of inputs, targets, inputs, targets ... of one task; counts in `cut` what lost its end."""
        task = self.tasks[name]
        path: Path = getattr(task, split)
        texts: list[str] = []
        empty = True
        for line, record in records(path):
            empty = False
            texts += task.pair(record, f"{path}:{line}")
            if len(texts) == 2 * PAIRS_AT_ONCE:
                yield from self._fitted(texts, vocabulary, name, cut)
                texts = []
        if empty:
            raise DataError(f"{path}: holds no rows; task {name!r} needs some in every split")
        yield from self._fitted(texts, vocabulary, name, cut)

    def _fitted(
        self, texts: Sequence[str], vocabulary: Vocabulary, name: str, cut: Counter[str]
    ) -> Iterator[np.ndarray]:
        encoded = vocabulary.encode(texts)
        for place in range(0, len(encoded), 2):
            inputs, targets = encoded[place : place + 2]
            room = self.row_length - len(targets)
            if room < 1:
                raise DataError(
                    f"task {name!r}: targets of {len(targets)} tokens leave no room for inputs in rows "
                    f"of {self.row_length}; raise row_length: {shown(texts[place + 1])}"
                )
            cut[name] += len(inputs) > room
            yield inputs[:room]
            yield targets
