"""Answers of a text-to-text model: what it writes for the inputs of pairs, compared with their targets."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.data.mixture import SourceRows
from pipeline.data.order import rows_at
from pipeline.data.shards import TokenRows
from pipeline.evaluate.metrics import measure
from pipeline.models.decoder import LanguageModel
from pipeline.models.decoding import Greedy, Marks
from pipeline.models.encoder_decoder import EncoderDecoder
from pipeline.models.generation import generate
from pipeline.models.heads import MaskedLanguageModel
from pipeline.objectives.pairs import PairExamples
from pipeline.tokenizer import Vocabulary

BATCH = 32
EXAMPLES = 5  # answers of each task that are shown
NUMBERS, LABELS = ("pearson", "spearman"), ("accuracy", "macro_f1", "matthews")
Network = EncoderDecoder | LanguageModel | MaskedLanguageModel  # the last is UniLM


def answers_of(
    network: Network,
    rows: TokenRows,
    *,
    count: int,
    lengths: tuple[int, int],
    metrics: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, dict[str, Any]]:
    """For each task: `rows` answered, `exact_match` with its 95 % interval, and some `examples`.

    `scores` has further `metrics`, by task, with their intervals. Up to `count` pairs of
    each task are chosen by a key, so a longer list begins with the shorter.
    """
    vocabulary = rows.vocabulary()
    network.eval()
    found = {}
    for task in rows.sources():
        numbers = _chosen(task, count)
        pairs = [_texts(network, rows, number, lengths) for number in numbers]
        written = _answers(network, [inputs for inputs, _ in pairs], vocabulary, lengths[1])
        targets = [target for _, target in pairs]
        exact = measure("exact_match", targets, written)
        scores = {
            name: measure(name, *_compared(name, targets, written))
            for name in (metrics or {}).get(task.name, ())
        }
        shown = zip(pairs[:EXAMPLES], written, strict=False)
        found[task.name] = {
            "rows": len(pairs),
            "exact_match": exact.value,
            "low": exact.low,
            "high": exact.high,
            "scores": {name: dataclasses.asdict(score) for name, score in scores.items()},
            "examples": [
                {"inputs": vocabulary.decode(inputs), "target": target, "answer": answer}
                for (inputs, target), answer in shown
            ],
        }
    return found


def _compared(
    name: str, targets: Sequence[str], written: Sequence[str]
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Targets and answers as a metric has them: texts, several right texts, numbers, or labels by number.

    An answer that is no number counts as 0, and one that is no label is wrong whatever the right one is.
    """
    if name.startswith("squad"):
        return [[target] for target in targets], written
    if name in NUMBERS:
        return [_number(target) for target in targets], [_number(answer) for answer in written]
    if name in LABELS:
        labels = {target: number for number, target in enumerate(sorted(set(targets)))}
        return [labels[t] for t in targets], [labels.get(a, len(labels)) for a in written]
    return targets, written


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def _chosen(task: SourceRows, count: int) -> list[int]:
    total = task.num_rows
    _, own = rows_at(np.arange(min(count, total)), num_rows=total, seed=0)
    return [int(number) for number in task.at(own)]


def _texts(
    network: Network, rows: TokenRows, number: int, lengths: tuple[int, int]
) -> tuple[list[int], str]:
    """What the network reads of a pair, marks included, and the text it should write."""
    row, vocabulary = rows.row(number), rows.vocabulary()
    side = int(row.lengths[0])
    if isinstance(network, MaskedLanguageModel):
        read = [vocabulary.cls, *row.ids[:side][: lengths[0]].tolist(), vocabulary.sep]
        return read, vocabulary.decode(row.ids[side:].tolist())
    example = PairExamples(vocabulary, lengths).example(row.ids[:side], row.ids[side:])
    read = example["input_ids"][example["input_segments"] > 0].tolist()
    return read, vocabulary.decode(row.ids[side:].tolist())


def _answers(
    network: Network,
    prompts: list[list[int]],
    vocabulary: Vocabulary,
    most: int,
) -> list[str]:
    end = vocabulary.sep if isinstance(network, MaskedLanguageModel) else vocabulary.eos
    marks = Marks(start=vocabulary.pad, end=end, mask=vocabulary.mask)
    how = Greedy(max_new_tokens=most)
    texts: list[str] = []
    for first in range(0, len(prompts), BATCH):
        found = generate(network, prompts[first : first + BATCH], how, marks)
        texts += [vocabulary.decode(best.tokens) for best, *_ in found]
    return texts
