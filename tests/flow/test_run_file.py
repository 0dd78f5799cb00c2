"""Run files: fan-out, names, and everything that can be wrong with one."""

from pathlib import Path

import pytest
import toys

from pipeline.config import ConfigError
from pipeline.flow.run_file import RunFile, read_run_file

PAGES = "stages:\n  pages: {kind: write, text: a}\n"


def read(folder: Path, text: str, *overrides: str) -> RunFile:
    file = folder / "study.yaml"
    file.write_text(text)
    return read_run_file(file, overrides, kinds=toys.TOYS, stage_class=toys.TOYS.__getitem__)


def told(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, *overrides)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def test_a_run_is_named_after_its_file(tmp_path: Path) -> None:
    run = read(tmp_path, PAGES)
    assert (run.name, run.head.store, run.head.launch.processes) == ("study", Path("store"), 1)
    assert read(tmp_path, "name: other\n" + PAGES).name == "other"


def test_stages_come_after_what_they_need(tmp_path: Path) -> None:
    text = "stages:\n  t: {kind: count, corpus: p}\n  p: {kind: write, text: a}\n"
    run = read(tmp_path, text)
    assert list(run.stages) == ["p", "t"]
    assert run.stages["t"].needs == ("p",)


def test_references_inside_variants_are_edges(tmp_path: Path) -> None:
    text = (
        "stages:\n  a: {kind: write, text: a}\n  b: {kind: write, text: b}\n"
        "  t: {kind: count, corpus: a, how: {type: words, dictionary: b}}\n"
    )
    assert read(tmp_path, text).stages["t"].needs == ("a", "b")


def test_a_matrix_names_its_variants(tmp_path: Path) -> None:
    text = PAGES + (
        "  t:\n    kind: count\n    corpus: pages\n"
        "    matrix: {seed: [1, 2], how: [{type: letters}, {type: words, dictionary: pages}]}\n"
    )
    run = read(tmp_path, text)
    names = ["t-seed1-letters", "t-seed1-words", "t-seed2-letters", "t-seed2-words"]
    assert list(run.stages) == ["pages", *names]
    assert [run.stages[name].config.seed for name in names] == [1, 1, 2, 2]
    assert run.stages["t-seed2-words"].config.how == toys.Words(dictionary="pages")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ("seconds: [0.1, 1e-4]", ["t-seconds0.1", "t-seconds0.0001"]),
        ("units: [1, 3], seed: [0]", ["t-units1-seed0", "t-units3-seed0"]),
        ("corpus: [pages, more]", ["t-pages", "t-more"]),
        (
            "how: [{type: letters, least: 1}, {type: letters, least: 2}]",
            ["t-letters-1", "t-letters-2"],
        ),
    ],
)
def test_labels(tmp_path: Path, values: str, names: list[str]) -> None:
    text = PAGES + (
        "  more: {kind: write, text: b}\n"
        f"  t: {{kind: count, corpus: pages, matrix: {{{values}}}}}\n"
    )
    assert [name for name in read(tmp_path, text).stages if name.startswith("t")] == names


def test_what_reads_a_matrix_follows_along(tmp_path: Path) -> None:
    text = PAGES + (
        "  t: {kind: count, corpus: pages, matrix: {seed: [1, 2]}}\n"
        "  one: {kind: compare, first: t}\n"
        "  all: {kind: compare, others: [t]}\n"
        "  both: {kind: compare, first: t, others: [t]}\n"
        "  named: {kind: compare, first: t-seed2}\n"
    )
    stages = read(tmp_path, text).stages
    assert stages["one-seed1"].config.first == "t-seed1"
    assert stages["one-seed2"].config.first == "t-seed2"
    assert stages["all"].config.others == ("t-seed1", "t-seed2")
    assert stages["both-seed2"].config.others == ("t-seed2",)
    assert stages["named-seed2"].config.first == "t-seed2"
    assert len(stages) == 1 + 2 + 2 + 1 + 2 + 1


def test_shared_choices_are_joined_not_crossed(tmp_path: Path) -> None:
    """Through two levels: the words come from the same variant as the text."""
    text = (
        "stages:\n"
        "  pages: {kind: write, text: a, matrix: {text: [x, y]}}\n"
        "  t: {kind: count, corpus: pages, how: {type: words, dictionary: pages}}\n"
        "  c: {kind: compare, first: t}\n"
    )
    stages = read(tmp_path, text).stages
    assert list(stages) == ["pages-x", "pages-y", "t-x", "t-y", "c-x", "c-y"]
    assert stages["t-y"].needs == ("pages-y",)


def test_what_reads_all_reads_all_others(tmp_path: Path) -> None:
    text = "stages:\n  sum: {kind: overview}\n  too: {kind: overview}\n" + PAGES.removeprefix(
        "stages:\n"
    )
    stages = read(tmp_path, text + "  t: {kind: count, corpus: pages}\n").stages
    assert stages["sum"].needs == stages["too"].needs == ("pages", "t")
    assert list(stages) == ["pages", "t", "sum", "too"]


def test_overrides_reach_stages_and_their_matrix(tmp_path: Path) -> None:
    how = "how: {type: letters}, matrix: {how.least: [1]}"
    text = PAGES + f"  t: {{kind: count, corpus: pages, {how}}}\n"
    run = read(
        tmp_path, text, "stages.t.units=9", "stages.t.matrix.how.least=[5, 6]", "store=elsewhere"
    )
    assert [run.stages[name].config.units for name in ("t-least5", "t-least6")] == [9, 9]
    assert run.head.store == Path("elsewhere")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("name: x", ["study.yaml:1: stages: missing: this key is needed"]),
        ("stages: {}", ["study.yaml:1: stages: needs at least one stage"]),
        ("stages:", ["study.yaml:1: stages: got null; allowed: keys and values"]),
        (
            "stages:\n  a: {kind: wirte, text: a}",
            [
                (
                    'study.yaml:2: stages.a.kind: got "wirte"; allowed: write, count, broken, deadly, compare, '
                    "overview; did you mean 'write'?"
                )
            ],
        ),
        (
            "stages:\n  a: {text: a}\n  b: 3\n  c d: {kind: write, text: a}",
            [
                (
                    "study.yaml:2: stages.a: needs the key 'kind'; allowed: write, count, broken, deadly, "
                    "compare, overview"
                ),
                "study.yaml:3: stages.b: got 3; allowed: keys and values",
                (
                    "study.yaml:4: stages.c d: 'c d' cannot be a name; allowed: a letter, then up to 79 "
                    "letters, digits, '-', '_' or '.'"
                ),
            ],
        ),
        (
            PAGES + "  t: {kind: count, corpus: page, seeed: 1}",
            [
                (
                    "study.yaml:3: stages.t.seeed: unknown key; did you mean 'seed'? allowed: kind, "
                    "corpus, units, seconds, seed, how"
                )
            ],
        ),
        (
            PAGES + "  t: {kind: count, corpus: page}",
            [
                (
                    "study.yaml:3: stages.t.corpus: no stage is called 'page'; did you mean 'pages'? "
                    "stages: pages, t"
                )
            ],
        ),
        (
            PAGES + "  t: {kind: count, corpus: pages}\n  c: {kind: compare, others: [t, pages]}",
            [
                (
                    "study.yaml:4: stages.c.others: stage 'pages' makes corpus; needs one that makes "
                    "tokens: t"
                )
            ],
        ),
        (
            "stages:\n  t: {kind: count, corpus: c}\n  c: {kind: compare}",
            [
                (
                    "study.yaml:2: stages.t.corpus: stage 'c' makes results; needs one that makes "
                    "corpus: there is none"
                )
            ],
        ),
        (
            "stages:\n  a: {kind: count, corpus: b}\n  b: {kind: compare, others: [a]}",
            ["study.yaml:2: stages.a: reads itself: a > b > a"],
        ),
        (
            "stages:\n  t: {kind: count, corpus: t}",
            ["study.yaml:2: stages.t: reads itself: t > t"],
        ),
        (
            "stages:\n  p: {kind: write, text: a}\n  p: {kind: write, text: b}",
            ["study.yaml:3: stages.p: given twice; a name may be used once"],
        ),
        (
            PAGES + "  t:\n    kind: count\n    corpus: pages\n    matrix:\n      sed: [1, 2]",
            [
                (
                    "study.yaml:7: stages.t.sed: unknown key; did you mean 'seed'? allowed: kind, "
                    "corpus, units, seconds, seed, how"
                )
            ],
        ),
        (
            PAGES
            + "  t: {kind: count, corpus: pages, sede: 1}\n"
            + "  c: {kind: compare, first: t, others: [t]}\n  o: {kind: overview, stages: [c]}",
            [
                (
                    "study.yaml:3: stages.t.sede: unknown key; did you mean 'seed'? allowed: kind, "
                    "corpus, units, seconds, seed, how"
                )
            ],
        ),
        (
            PAGES + "  t: {kind: count, corpus: ''}",
            ["study.yaml:3: stages.t.corpus: no stage is called ''; stages: pages, t"],
        ),
        (
            PAGES
            + "  t: {kind: count, corpus: pages, units: 0}\n"
            + "  m: {kind: count, corpus: pages, matrix: {units: [1, 0]}}",
            [
                "study.yaml:3: stages.t.units: got 0; with one process there must be one",
                "study.yaml:4: stages.m.units: got 0; with one process there must be one",
            ],
        ),
        (
            PAGES
            + f"  t: {{kind: count, corpus: pages, matrix: {{seed: {list(range(40))}, "
            + f"units: {list(range(1, 41))}}}}}",
            ["study.yaml:3: stages.t.matrix: makes 1600 stages; allowed: at most 1000"],
        ),
        (
            PAGES + "  t: {kind: count, corpus: pages, matrix: {seed: 3, units: [], how: [1, 1]}}",
            [
                "study.yaml:3: stages.t.matrix.seed: got 3; allowed: a list of values",
                "study.yaml:3: stages.t.matrix.units: got []; allowed: a list of values",
                "study.yaml:3: stages.t.matrix.how: 1 is given twice",
            ],
        ),
        (
            PAGES + "  t: {kind: count, corpus: pages, matrix: {kind: [write, count]}}",
            [
                (
                    "study.yaml:3: stages.t.matrix.kind: a matrix cannot change this; write a second "
                    "stage"
                )
            ],
        ),
        (
            PAGES
            + "  t: {kind: count, corpus: pages, matrix: {seed: [1]}}\n"
            + "  t-seed1: {kind: count, corpus: pages}",
            ["study.yaml:4: stages.t-seed1: is one of two stages that would be called 't-seed1'"],
        ),
        (
            PAGES
            + "  t: {kind: count, corpus: pages, matrix: {seed: [1, 2]}}\n"
            + "  c: {kind: compare, first: t-seed3}",
            [
                (
                    "study.yaml:4: stages.c.first: no stage is called 't-seed3'; did you mean "
                    "'t-seed2'? stages: pages, t, c"
                )
            ],
        ),
        (
            "stoer: x\nray: {adress: a}\nlaunch: {processes: 0}\n" + PAGES + "  b: {kind: x}",
            [
                (
                    "study.yaml:2: ray.adress: unknown key; did you mean 'address'? allowed: address, "
                    "cpus"
                ),
                "study.yaml:3: launch.processes: got 0; allowed: a number of at least 1",
                (
                    "study.yaml:1: stoer: unknown key; did you mean 'store'? allowed: stages, name, "
                    "store, ray, launch, tracking"
                ),
                (
                    'study.yaml:6: stages.b.kind: got "x"; allowed: write, count, broken, deadly, compare, '
                    "overview"
                ),
            ],
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, lines: list[str]) -> None:
    assert told(tmp_path, text) == lines


def test_a_conflict_is_placed_where_the_matrix_gave_the_value(tmp_path: Path) -> None:
    text = PAGES + "  t:\n    kind: count\n    corpus: pages\n    matrix:\n      units: [1, 0]\n"
    assert told(tmp_path, text) == [
        "study.yaml:7: stages.t.units: got 0; with one process there must be one"
    ]
    assert len(read(tmp_path, text, "launch.processes=2").stages) == 3


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "stages.pagse.text=b",
            "command line: stages.pagse.text: no such stage; did you mean 'pages'? stages: pages",
        ),
        (
            "stages.pages.text=3",
            (
                "command line: stages.pages.text: got 3; allowed: text (in quotes if "
                "it looks like a number)"
            ),
        ),
        (
            "pages.text=b",
            (
                "command line: pages: unknown key; allowed: stages, name, store, ray, launch, tracking; "
                "a key of a stage is written stages.NAME.key=value"
            ),
        ),
    ],
)
def test_mistakes_on_the_command_line(tmp_path: Path, override: str, line: str) -> None:
    assert told(tmp_path, PAGES, override) == [line]
