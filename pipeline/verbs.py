"""The options of what models are used for: `theseum generate`, `fill`, `score`, `rerank`, `embed`, `predict`.

Declarations alone, so that the command line knows them before anything heavy is imported.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

NewCommand = Callable[[str, str], argparse.ArgumentParser]

INPUTS = """\
MODEL is the folder of a stage in a store (`theseum ls`), or a model folder.
Texts come one a line, or as JSON lines (a file named .jsonl, or --form jsonl)
whose field `text` is read. Results are JSON lines, in the same order: what was
given and what was found. docs/use.md says what each model can do."""


def add_verbs(new: NewCommand) -> None:
    """One command for each verb; `new` makes one of a name and what it is for."""
    generate = _verb(
        new, "generate", "write answers or continuations with a model that writes text"
    )
    _add_decoding(generate)
    fill = _verb(new, "fill", "name the most probable words for each [MASK] in a text")
    fill.add_argument("--top", type=_positive, default=5, metavar="N", help="words a blank (5)")
    fill.add_argument("--mark", default="[MASK]", help="what marks a blank ([MASK])")
    score = _verb(new, "score", "say how probable texts are: their log-probability in nats")
    score.add_argument("--source", metavar="FIELD", help="field of what a text is scored given")
    score.add_argument("--each", action="store_true", help="also every token and its score")
    rerank = _verb(new, "rerank", "put n-best lists in order by a model's scores and their own")
    rerank.add_argument("--source", metavar="FIELD", help="field of what a list is scored given")
    rerank.add_argument(
        "--weight",
        type=_share,
        default=0.5,
        metavar="W",
        help="order by (1 - W) given score + W model's score (0.5)",
    )
    embed = _verb(new, "embed", "turn texts into vectors; --out NAME.npy writes an array")
    embed.add_argument(
        "--pooling",
        choices=("mean", "mean_with_marks", "cls"),
        default="mean",
        help="mean of the tokens' states, of those of marks too, or the state of [CLS] (mean)",
    )
    _verb(new, "predict", "say what a fine-tuned model makes of each text or row")


def _verb(new: NewCommand, name: str, words: str) -> argparse.ArgumentParser:
    made = new(name, words)
    made.epilog = INPUTS
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.set_defaults(verb=name)
    made.add_argument("model", type=Path, metavar="MODEL", help="folder of a stage or model")
    add = made.add_argument_group("input and output").add_argument
    add(
        "--in",
        type=_place,
        dest="given",
        metavar="FILE",
        help="what to read (- or not given: stdin)",
    )
    add("--out", type=_place, metavar="FILE", help="what to write (- or not given: stdout)")
    add(
        "--form",
        choices=("lines", "jsonl"),
        help="of what is read (by the file's name, else lines)",
    )
    add("--field", default="text", metavar="NAME", help="field of the text in JSON lines (text)")
    if name != "embed":
        add("--plain", action="store_true", help="write only the best result of each, one a line")
    add = made.add_argument_group("computing").add_argument
    if name != "predict":
        add(
            "--longer",
            choices=("refuse", "cut"),
            default="refuse",
            help="what becomes of texts that are too long for the model (refuse)",
        )
    add("--device", default="auto", help="cpu, cuda, cuda:1 (the first GPU if there is one)")
    add(
        "--window",
        type=_positive,
        metavar="N",
        help="records read before they are answered, in batches of like length (1024; 1 at a terminal)",
    )
    add("--at-once", type=_positive, default=4096, metavar="N", help="tokens of a batch (4096)")
    return made


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    """Keys of `pipeline.models.decoding`; one that is not given keeps its default there."""
    add = parser.add_argument_group("how text is chosen").add_argument
    add("--how", choices=("greedy", "sampling", "beam"), default="greedy")
    for flag, kind, words in (
        ("--max-new-tokens", int, "tokens of a text at most (64)"),
        ("--no-repeated", int, "no N tokens in a row twice in a text"),
        ("--beams", int, "beam: open texts (4)"),
        ("--num-returned", int, "beam: texts for each input (1)"),
        ("--length-penalty", float, "beam: 0 favours short texts (0.6)"),
        ("--num-samples", int, "sampling: texts for each input (1)"),
        ("--temperature", float, "sampling: divides the logits (1)"),
        ("--top-k", int, "sampling: from the N most probable tokens"),
        ("--top-p", float, "sampling: from the fewest tokens with this probability together"),
        ("--seed", int, "sampling: with the number of a line it names all draws (0)"),
    ):
        metavar = "N" if kind is int else "X"
        add(flag, type=kind, metavar=metavar, default=argparse.SUPPRESS, help=words)


DECODING = (
    "max_new_tokens",
    "no_repeated",
    "beams",
    "num_returned",
    "length_penalty",
    "num_samples",
    "temperature",
    "top_k",
    "top_p",
    "seed",
)


def _place(text: str) -> Path | None:
    return None if text == "-" else Path(text)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}; allowed: 1 or more")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"got {text}; allowed: from 0 to 1")
    return number
