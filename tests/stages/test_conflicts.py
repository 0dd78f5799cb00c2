"""What stages say of each other before anything runs, on the quickstart."""

from pathlib import Path

import pytest

from pipeline.config import ConfigError
from pipeline.flow.run_file import read_run_file
from pipeline.stages import CATALOGUE, stage_class

QUICKSTART = Path(__file__).parents[2] / "configs" / "runs" / "quickstart.yaml"
OTHER_TOKENS = "{kind: tokens, corpus: corpus, vocab: vocab, row_length: 64}"
T5 = "{type: encoder_decoder, num_layers: 1, hidden_size: 8, num_heads: 1, head_size: 8, ffn_size: 8}"


def told(*overrides: str) -> list[str]:
    try:
        read_run_file(QUICKSTART, overrides, kinds=CATALOGUE, stage_class=stage_class)
    except ConfigError as error:
        return [line.partition(": ")[2] for line in error.problems]
    return []


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        ((), []),
        (
            ("stages.tokens.row_length=127",),
            [
                (
                    "stages.pretrain.model.max_length: rows of 127 tokens make sequences of 129, "
                    "but model.max_length is 128; raise it, or shorten row_length of stage tokens"
                )
            ],
        ),
        (
            ("stages.finetune.max_length=129", "stages.compress.max_length=130"),
            [
                (
                    "stages.finetune.max_length: got 129; the model of stage 'pretrain' has only "
                    "128 positions"
                ),
                (
                    "stages.compress.max_length: got 130; the model of stage 'finetune' has only "
                    "128 positions"
                ),
            ],
        ),
        (
            ("stages.pretrain.mixture={type: shares, shares: {pages: 1, books: 2}}",),
            ["stages.pretrain.mixture: names source 'books'; allowed: 'manuals'"],
        ),
        (
            ("stages.compress.num_layers=3",),
            [
                (
                    "stages.compress.num_layers: 3: does not share out the 4 layers evenly; use 1 or 2, or give a split"
                )
            ],
        ),
        (
            (
                "stages.again={kind: theseus, model: compress, task: definitions, num_layers: 2}",
                "stages.again.max_length=48",
                "stages.again.train.micro_batch=16",
            ),
            [
                "stages.again.num_layers: 2: does not share out the 2 layers evenly; use 1, or give a split"
            ],
        ),
        (
            (f"stages.other={OTHER_TOKENS}", "stages.evaluate.tokens=other"),
            [
                (
                    "stages.evaluate.tokens: got 'other'; stage 'pretrain' was trained on 'tokens'; "
                    "judge it on the same rows"
                )
            ],
        ),
        (
            (f"stages.pretrain.model={T5}", "stages.pretrain.objective.type=denoising"),
            [
                (
                    "stages.finetune.model: stage 'pretrain' makes no encoder; finetune needs one "
                    "with model.type encoder"
                )
            ],
        ),
        (
            ("stages.pretrain.train.schedule.warmup_steps=250",),
            [
                (
                    "stages.pretrain.train.schedule: warmup_steps 250 is not less than the 250 steps of "
                    "the run, so the peak is never left; use fewer, about 25"
                )
            ],
        ),
        (
            ("launch.processes=3", "stages.finetune.train.batch=96"),
            [
                (
                    "stages.pretrain.train.batch: batch 32 cannot be shared out: 3 process(es) with "
                    "micro_batch 16 need a multiple of 48, for example 48"
                ),
                (
                    "stages.compress.train.batch: batch 64 cannot be shared out: 3 process(es) with "
                    "micro_batch 32 need a multiple of 96, for example 96"
                ),
            ],
        ),
    ],
)
def test_contradictions_are_told_before_anything_runs(
    overrides: tuple[str, ...], lines: list[str]
) -> None:
    assert told(*overrides) == lines


def test_a_report_on_nothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("stages:\n  report: {kind: report}\n")
    with pytest.raises(ConfigError) as caught:
        read_run_file(file, kinds=CATALOGUE, stage_class=stage_class)
    assert str(caught.value) == (
        f"{file}:2: stages.report.of: got []; needs at least one other stage in the run to report on"
    )
