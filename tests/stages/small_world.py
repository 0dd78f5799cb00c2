"""A world small enough for tests: a vocabulary, a learnable task, a language model, tokens."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import sentencepiece
import torch

from data_prep.text_pairs import TextPairs
from pipeline import files
from pipeline.config import build_from
from pipeline.data.loader import Loader
from pipeline.data.shard_file import layout_for, shard_facts, write_shard
from pipeline.data.shards import write_manifest
from pipeline.models.artifact import save_model
from pipeline.models.encoder import EncoderConfig
from pipeline.models.heads import MaskedLanguageModel
from pipeline.stages.finetune import Finetune
from pipeline.stages.theseus import Theseus
from pipeline.tokenizer import SPECIAL_PIECES, Vocabulary
from pipeline.train.engine import on_device, total_loss
from pipeline.train.engine_torch import TorchEngine

WORDS = ("red", "blue", "green", "cat", "dog", "cow", "runs", "sleeps", "eats", "the", "a", "one")
LABELS = ("cat", "cow", "dog")
SHAPE = EncoderConfig(
    num_layers=4, hidden_size=16, num_heads=2, ffn_size=32, max_length=32, dropout=0.0
)
ROW_LENGTH = 16
TRAIN = {"batch": 16, "micro_batch": 8, "engine": {"type": "torch"}, "evaluate_rows": 6}


@dataclass
class FakeWork:
    """A Work without a planner: stages run in this process."""

    out: Path
    inputs: dict[str, Path]
    reported: list[tuple[int, int, str]] = field(default_factory=list)

    def progress(self, done, total, unit, **figures):
        self.reported.append((done, total, unit))


def sentences(count, seed):
    """Sentences of four words, the third of which is the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(LABELS), size=count)
    texts = [
        f"{rng.choice(WORDS[9:])} {rng.choice(WORDS[:3])} {LABELS[n]} {rng.choice(WORDS[6:9])}"
        for n in labels
    ]
    return texts, labels.tolist()


def make_vocabulary():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(200, 0)[0]),
        model_writer=out,
        vocab_size=60,
        hard_vocab_limit=False,
        bos_id=-1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        pad_piece=SPECIAL_PIECES[0],
        control_symbols=list(SPECIAL_PIECES[3:]),
        minloglevel=2,
    )
    return Vocabulary(out.getvalue(), 10)


def write_task(folder, rows=64):
    for seed, split in enumerate(("train", "validation", "test"), start=1):
        texts, labels = sentences(rows, seed)
        lines = [{"text": t, "label": n} for t, n in zip(texts, labels, strict=True)]
        files.write_json_lines(folder / f"{split}.jsonl", lines)
    files.write_json(folder / "task.json", {"labels": list(LABELS), "metric": "accuracy"})


def write_tokens(folder, vocabulary):
    shards, layout = {}, layout_for(vocabulary, ROW_LENGTH)
    for seed, split in enumerate(("train", "validation"), start=1):
        path = folder / split / "shard-00000.arrow"
        documents = vocabulary.encode(sentences(80, seed)[0])
        write_shard(path, [(0, documents)], layout)
        shards[split] = [shard_facts(path)]
    write_manifest(
        folder, vocabulary=vocabulary, layout=layout, sources={"world": 1.0}, shards=shards
    )


def write_language_model(folder, vocabulary):
    torch.manual_seed(1)
    facts = {"objective": {"type": "mlm"}, "row_length": ROW_LENGTH}
    save_model(folder / "model", MaskedLanguageModel(SHAPE, vocabulary.size), vocabulary, facts)
    files.write_json(folder / "record.json", {"config": {"train": {**TRAIN, "seed": 3}}})
    means = {"held_out/mlm": 4.5, "held_out/accuracy": 0.01}
    entries = [
        {"seq": 0, "time": 0.0, "type": "metrics", "step": 0, "values": means},
        {"seq": 1, "time": 1.0, "type": "metrics", "step": 1, "values": {"held_out/mlm": 3.0}},
    ]
    files.write_json_lines(folder / "journal.jsonl", entries)


def make_world(folder):
    """Input folders by stage name."""
    inputs = {name: folder / name for name in ("task", "tokens", "pretrain")}
    vocabulary = make_vocabulary()
    write_task(inputs["task"])
    write_tokens(inputs["tokens"], vocabulary)
    write_language_model(inputs["pretrain"], vocabulary)
    return inputs


def finetune_of(**changes):
    values = {"kind": "finetune", "model": "pretrain", "task": "task", "max_length": 16}
    return build_from(Finetune, {**values, "train": TRAIN, **changes}, "test")


def train(trainable, steps, term="cross_entropy"):
    """Losses of the first `steps` updates."""
    settings = trainable.settings
    engine = TorchEngine(trainable.objective, settings, rank=0, device=torch.device("cpu"))
    loader = Loader(
        trainable.source, seed=0, batch=settings.batch, micro_batch=settings.micro_batch
    )
    losses = []
    for step in range(steps):
        micro_batches = loader.micro_batches(step)
        counts = {}
        for batch in micro_batches:
            for name, count in trainable.objective.counts(batch).items():
                counts[name] = counts.get(name, 0) + count
        trainable.objective.at_step(step)
        result = engine.step(micro_batches, counts, 5e-3, step)
        losses.append(result.figures(engine.objective)[term])
    return losses


def theseus_of(**changes):
    values = {"kind": "theseus", "model": "finetune", "task": "task", "max_length": 16}
    return build_from(Theseus, {**values, "num_layers": 2, "train": TRAIN, **changes}, "test")


def write_pairs(folder, inputs, tasks):
    """A folder of pairs, made of the sentences of the task with their labels by name."""
    rows = {split: f"{inputs['task']}/{split}.jsonl" for split in ("train", "validation")}
    words = {str(number): label for number, label in enumerate(LABELS)}
    tasks = {name: {**rows, "words": words, **task} for name, task in tasks.items()}
    values = {"kind": "text_pairs", "vocab": "vocab", "tasks": tasks, "row_length": 48}
    work = FakeWork(folder / "pairs", {"vocab": inputs["tokens"] / "tokenizer"})
    build_from(TextPairs, values).run(work)
    return folder / "pairs"


class InThisProcess(FakeWork):
    """A work whose training jobs are a few steps of a plain optimizer."""

    def train(self, stage):
        trainable = stage.trainable(self.inputs)
        objective = trainable.objective.train()
        loader = Loader(trainable.source, seed=0, batch=16, micro_batch=16, order=trainable.order)
        optimizer = torch.optim.AdamW(objective.parameters(), lr=0.01)
        for step in range(trainable.steps):
            [batch] = loader.micro_batches(step)
            sums = objective(on_device(batch, torch.device("cpu")))
            optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / trainable.steps)
            optimizer.zero_grad()
            total_loss(sums, objective.weights, objective.counts(batch)).backward()
            optimizer.step()
        loader.close()
        trainable.save(self.out / "model")
