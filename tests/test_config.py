"""Everything a new user gets wrong in a config, and what they are told."""

import pickle
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from pipeline.complaints import listed
from pipeline.config import (
    ConfigError,
    as_dict,
    build,
    build_from,
    config,
    laid_over,
    read_document,
)


@config
class Masked:
    type: Literal["mlm"] = "mlm"
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.15


@config
class Detected:
    type: Literal["rtd"] = "rtd"
    weight: float = 50.0

    def __post_init__(self) -> None:
        if self.weight == 13:
            raise ValueError("weight 13 is not allowed; allowed: any other")


Variants = Annotated[Masked | Detected, Field(discriminator="type")]


@config
class Model:
    layers: Annotated[int, Field(ge=1)] = 2
    names: tuple[str, ...] = ()
    betas: tuple[float, float] = (0.9, 0.99)
    model: int = 0


@config
class Top:
    steps: int
    lr: float = 1e-4
    tied: bool = True
    objective: Annotated[Masked | Detected, Field(discriminator="type")] = Field(
        default_factory=Masked
    )
    model: Model = Field(default_factory=Model)
    precision: Literal["bf16", "float32"] = "bf16"
    path: Path | None = None
    extra: dict[str, int] = Field(default_factory=dict)
    sources: Annotated[tuple[Variants, ...], Field(min_length=1)] = (Masked(),)


@config
class Choice:
    type: Literal["needy"] = "needy"
    must: int


def read(folder: Path, text: str, *overrides: str) -> Any:
    """Build a Top of a file's text."""
    file = folder / "run.yaml"
    file.write_text(text)
    return build(Top, read_document(file, overrides))


def told(folder: Path, text: str, *overrides: str) -> str:
    """What the user is told, paths relative to the folder."""
    with pytest.raises(ConfigError) as caught:
        read(folder, text, *overrides)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("3", 3.0),
        ("-0.0", 0.0),
    ],
)
def test_numbers_are_numbers(tmp_path: Path, written: str, value: float) -> None:
    assert read(tmp_path, f"steps: 1\nlr: {written}").lr == value
    assert read(tmp_path, "steps: 1", f"lr={written}").lr == value


@pytest.mark.parametrize(("written", "value"), [("010", 10), ("08", 8), ("+7", 7), ("-3", -3)])
def test_whole_numbers_are_decimal(tmp_path: Path, written: str, value: int) -> None:
    assert read(tmp_path, f"steps: {written}").steps == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1", "run.yaml:1: steps: missing: this key is needed"),
        ("steps: 1.0", "run.yaml:1: steps: got 1.0; allowed: a whole number"),
        ("steps: '1'", 'run.yaml:1: steps: got "1"; allowed: a whole number'),
        ("steps: 1_000", 'run.yaml:1: steps: got "1_000"; allowed: a whole number'),
        ("steps: true", "run.yaml:1: steps: got true; allowed: a whole number"),
        ("steps: 1\ntied: yes", 'run.yaml:2: tied: got "yes"; allowed: true or false'),
        ("steps: 1\nlr: nan", 'run.yaml:2: lr: got "nan"; allowed: a number'),
        ("steps: 1\nlr: 1e400", "run.yaml:2: lr: got Infinity; allowed: a finite number"),
        ("steps: 1\nlr:", "run.yaml:2: lr: got null; allowed: a number"),
        (
            "stepz: 1\nsteps: 1",
            (
                "run.yaml:1: stepz: unknown key; did you mean 'steps'? "
                "allowed: steps, lr, tied, objective, model, precision, path, extra, sources"
            ),
        ),
        (
            "steps: 1\nmodel:\n  layers: 0\n  nmes: [a]",
            (
                "run.yaml:3: model.layers: got 0; allowed: a number of at least 1\n"
                "run.yaml:4: model.nmes: unknown key; did you mean 'names'? "
                "allowed: layers, names, betas, model"
            ),
        ),
        ("steps: 1\nmodel: {names: a}", 'run.yaml:2: model.names: got "a"; allowed: a list'),
        (
            "steps: 1\nmodel: {names: [a, 1]}",
            "run.yaml:2: model.names.1: got 1; allowed: text (in quotes if it looks like a number)",
        ),
        (
            "steps: 1\nmodel: {betas: [1, 2, 3]}",
            "run.yaml:2: model.betas: got [1, 2, 3]; allowed: at most this many items: 2",
        ),
        (
            "steps: 1\nmodel: {model: x}",
            'run.yaml:2: model.model: got "x"; allowed: a whole number',
        ),
        ("steps: 1\nmodel: 3", "run.yaml:2: model: got 3; allowed: keys and values"),
        (
            "steps: 1\nprecision: float23",
            (
                'run.yaml:2: precision: got "float23"; allowed: bf16, float32; did you mean '
                "'float32'?"
            ),
        ),
        (
            "steps: 1\nobjective: {type: mlmm}",
            "run.yaml:2: objective.type: got \"mlmm\"; allowed: mlm, rtd; did you mean 'mlm'?",
        ),
        (
            "steps: 1\nobjective: {rate: 0.1}",
            "run.yaml:2: objective: needs the key 'type' to say which variant it is",
        ),
        (
            "steps: 1\nobjective:\n  type: mlm\n  rate: 2",
            "run.yaml:4: objective.rate: got 2; allowed: a number below 1.0",
        ),
        (
            "steps: 1\nobjective: {type: mlm, weight: 2}",
            "run.yaml:2: objective.weight: unknown key; allowed: type, rate",
        ),
        (
            "steps: 1\nobjective: {type: rtd, weight: 13}",
            "run.yaml:2: objective: weight 13 is not allowed; allowed: any other",
        ),
        ("steps: 1\nextra: {a: b}", 'run.yaml:2: extra.a: got "b"; allowed: a whole number'),
        ("steps: 1\nsteps: 2", "run.yaml:2: steps: given twice; a name may be used once"),
        ("- 1", "run.yaml: needs keys and values, holds [1]"),
        ("", "run.yaml:1: steps: missing: this key is needed"),
        (
            "steps: [",
            "run.yaml:1: not valid YAML: expected the node content, but found '<stream end>'",
        ),
        ("steps: *x", "run.yaml:1: not valid YAML: found undefined alias 'x'"),
        ("extra: &x [*x]", "run.yaml:1: extra.0: an alias may not hold itself"),
        (
            "steps: !!python/object:os.system x",
            "run.yaml:1: steps: got \"x\"; tag 'python/object:os.system' is not for this value",
        ),
        (
            "steps: !!binary aGVsbG8=",
            "run.yaml:1: steps: got \"aGVsbG8=\"; tag 'binary' is not for this value",
        ),
        (
            f"steps: {'9' * 5000}",
            "run.yaml:1: steps: a whole number of 5000 characters; that is too many",
        ),
        (
            "steps:\n\t1",
            (
                "run.yaml:2: not valid YAML: found character '\\t' that cannot start any token; "
                "indent with spaces, not tabs"
            ),
        ),
        (
            "steps: 1\nsources: [{type: mlm, rate: 3}]",
            "run.yaml:2: sources.0.rate: got 3; allowed: a number below 1.0",
        ),
        (
            "steps: 1\nsources: []",
            "run.yaml:2: sources: got []; allowed: at least this many items: 1",
        ),
        (
            "steps: 1\nobjective: mlmm",
            (
                'run.yaml:2: objective: got "mlmm"; allowed: keys and values, '
                "for example {type: mlm}"
            ),
        ),
        (
            "steps: 1\nobjective: a/rtd.yaml",
            (
                'run.yaml:2: objective: got "a/rtd.yaml"; allowed: keys and values, '
                "for example {extends: a/rtd.yaml}"
            ),
        ),
        ("? [a, b]\n: 1", "run.yaml:1: (top): a key must be a plain word"),
        ("<<: {lr: 2}", "run.yaml:1: merge keys (<<) are not read; use extends: FILE"),
        (
            "steps: 1\n---\nsteps: 2",
            (
                "run.yaml:2: not valid YAML: but found another document; "
                "expected a single document in the stream"
            ),
        ),
        ("steps: 1\nextends: ''", 'run.yaml:2: extends: got ""; allowed: a file name'),
        (
            "steps: 1\nmodel:\n  extends: rum.yaml",
            "run.yaml:3: model.extends: rum.yaml: no such file; did you mean 'run.yaml'?",
        ),
        ("steps: 1\nextends: [a]", 'run.yaml:2: extends: got ["a"]; allowed: a file name'),
        ("extends: run.yaml", "run.yaml: extends itself, through run.yaml"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, message: str) -> None:
    assert told(tmp_path, text) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "command line: 'steps': needs the form key.path=value"),
        ("=3", "command line: '=3': needs the form key.path=value"),
        ("model..layers=3", "command line: 'model..layers=3': needs the form key.path=value"),
        ("steps=", "command line: steps: got null; allowed: a whole number"),
        ("steps.x=3", 'command line: steps: got {"x": 3}; allowed: a whole number'),
        ("model.names.0=b", 'command line: model.names: got {"0": "b"}; allowed: a list'),
        (
            "model.names=[",
            "command line: not valid YAML: expected the node content, but found '<stream end>'",
        ),
        (
            "objective=rtd",
            (
                'command line: objective: got "rtd"; allowed: keys and values, '
                "for example {type: rtd}"
            ),
        ),
    ],
)
def test_mistakes_on_the_command_line(tmp_path: Path, override: str, message: str) -> None:
    said = told(tmp_path, "steps: 1\nmodel: {names: [z]}", override)
    assert (
        said.replace("run.yaml:1", "command line").replace("run.yaml:2", "command line") == message
    )


def test_two_overrides_in_each_others_way(tmp_path: Path) -> None:
    said = told(tmp_path, "steps: 1", "model.layers=3", "model.layers.x=3")
    assert said == "command line: model.layers.x: a part of it was given a value already"


def test_layers(tmp_path: Path) -> None:
    """defaults < parent < file < command line."""
    (tmp_path / "base.yaml").write_text("layers: 3\nnames: [base]\nmodel: 1\n")
    text = "steps: 1\nmodel: {extends: base, names: [file], model: 2}"
    made = read(tmp_path, text, "model.model=3")
    assert made.model == Model(layers=3, names=("file",), model=3)


def test_a_mistake_in_a_parent_is_placed_in_the_parent(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("layers: 3\nlayerz: 3\n")
    said = told(tmp_path, "steps: 1\nmodel: {extends: base.yaml}")
    assert said.startswith("base.yaml:2: model.layerz: unknown key; did you mean 'layers'?")


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    words = "run.yaml:1: extends: bad.yaml: not UTF-8 text (byte 0 is 0xff); save it as UTF-8"
    assert told(tmp_path, "extends: bad") == words
    assert "no such file; did you mean" in told(tmp_path, "extends: rum.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        read_document(tmp_path / "nothing" / "here.yaml")


@pytest.mark.parametrize("path", ["", "."])
def test_a_folder_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^\.: a folder, where a YAML file is needed$"):
        read_document(Path(path))


def test_a_key_of_another_variant_is_not_said_to_be_missing_where_it_stands(
    tmp_path: Path,
) -> None:
    text = "extends: base.yaml\nsteps: 1\nneedy: {type: needy}\n"
    (tmp_path / "base.yaml").write_text("needy:\n  type: other\n  must: 1\n")
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        build(Choice, read_document(file), ("needy",))
    assert str(caught.value).replace(f"{tmp_path}/", "") == (
        "run.yaml:3: needy.must: missing: this key is needed; "
        "the one at base.yaml:3 belongs to another variant"
    )


def test_long_lists_name_the_nearest() -> None:
    names = [f"{letter}_name_of_some_length" for letter in "abcdefgh"]
    assert listed(names[:3]) == ", ".join(names[:3])
    cut = listed(names, "h_name")
    assert cut.startswith("h_name_of_some_length, ")
    assert cut.endswith(" and 3 more")
    assert len(cut) < 140


def test_another_variant_replaces_the_whole(tmp_path: Path) -> None:
    """In any order on the command line."""
    text = "steps: 1\nobjective: {type: mlm, rate: 0.3}"
    assert read(tmp_path, text, "objective.rate=0.2").objective == Masked(rate=0.2)
    assert read(tmp_path, text, "objective.type=rtd").objective == Detected()
    for overrides in (
        ("objective.type=rtd", "objective.weight=7"),
        ("objective.weight=7", "objective.type=rtd"),
        ("objective={type: rtd, weight: 7}",),
    ):
        assert read(tmp_path, text, *overrides).objective == Detected(weight=7)


def test_extends_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("layers: 3\n")
    assert read(tmp_path, "steps: 1", "model={extends: base.yaml}").model.layers == 3


def test_configs_are_values() -> None:
    one, other = build_from(Top, {"steps": 1}), build_from(Top, {"steps": 1})
    assert one == other
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.steps = 2  # type: ignore[misc]  # what is tested


def test_errors_cross_processes() -> None:
    again = pickle.loads(pickle.dumps(ConfigError(["a: b", "c: d"])))
    assert again.problems == ("a: b", "c: d")
    assert again.exit_code == 2


trees = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


@given(trees, trees)
def test_laying_over_keeps_both_and_prefers_the_upper(base: Any, over: Any) -> None:
    merged = laid_over(base, over)
    assert laid_over(merged, over) == merged
    if isinstance(base, dict) and isinstance(over, dict):
        assert set(merged) == set(base) | set(over)


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_a_config_survives_json(steps: int, lr: float, tied: bool) -> None:
    made = Top(steps=steps, lr=lr, tied=tied, path=Path("a/b"), objective=Detected(weight=2.0))
    assert build_from(Top, as_dict(made)) == made
