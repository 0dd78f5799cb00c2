"""Studies: one stage in the file becomes several, and what reads it follows along.

A `matrix:` gives values to dotted keys; their product makes the variants of a stage. A variant is
known by its choices, so a stage that reads two fanned-out stages is joined on the choices they share
(seed 1 with seed 1), never crossed.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.complaints import listed, nearest, shown
from pipeline.config import laid_over
from pipeline.flow.references import cycle_in, references, replaced

Axis = tuple[str, str]  # stage in the file, dotted key
MOST_VARIANTS = 1000


@dataclass(frozen=True)
class Variant:
    """One stage of the run: its place in the file, the choices that make it, and its config."""

    base: str
    choices: Mapping[Axis, str]
    data: Mapping[str, Any]
    config: Any = None
    changed: frozenset[tuple[str, ...]] = field(default_factory=frozenset)

    @property
    def name(self) -> str:
        """The name in the file, then what tells this variant from the others."""
        return "-".join([self.base, *self.choices.values()])


def own_variants(base: str, data: Mapping[str, Any]) -> tuple[list[Variant], list[tuple[str, str]]]:
    """The variants a stage's own matrix makes; and problems as (dotted key, words)."""
    plain = {key: value for key, value in data.items() if key != "matrix"}
    matrix = data.get("matrix", {})
    if not isinstance(matrix, dict):
        return [], [("matrix", f"got {shown(matrix)}; allowed: key.path: [values]")]
    axes = _flat(matrix)
    problems = [(f"matrix.{key}", words) for key in axes if (words := _wrong(key, axes[key]))]
    if problems:
        return [], problems
    if (number := math.prod(map(len, axes.values()))) > MOST_VARIANTS:
        return [], [("matrix", f"makes {number} stages; allowed: at most {MOST_VARIANTS}")]
    labels = {key: _labels(key, values) for key, values in axes.items()}
    variants = []
    for picks in itertools.product(*(range(len(values)) for values in axes.values())):
        tree: Any = plain
        for key, pick in zip(axes, picks, strict=True):
            nested: Any = axes[key][pick]
            for part in reversed(key.split(".")):
                nested = {part: nested}
            tree = laid_over(tree, nested)
        choices = {(base, key): labels[key][pick] for key, pick in zip(axes, picks, strict=True)}
        changed = frozenset(tuple(key.split(".")) for key in axes)
        variants.append(Variant(base, choices, tree, changed=changed))
    return variants, []


def _flat(matrix: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Dotted keys; the command line writes `matrix.optimizer.lr`, which arrives nested."""
    flat: dict[str, Any] = {}
    for key, value in matrix.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[before + key] = value
    return flat


def _wrong(key: str, values: Any) -> str:
    if key in ("kind", "matrix"):
        return "a matrix cannot change this; write a second stage"
    if not isinstance(values, list) or not values:
        return f"got {shown(values)}; allowed: a list of values"
    texts = [shown(value) for value in values]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    return f"{twice} is given twice" if twice else ""


def _labels(key: str, values: Sequence[Any]) -> list[str]:
    """What to call each value of an axis in a name: `mlm`, `seed1`."""
    short = key.rsplit(".", 1)[-1].replace("_", "-")
    labels = [_label(short, value) for value in values]
    unique = len(set(labels)) == len(labels)
    return labels if unique else [f"{label}-{n}" for n, label in enumerate(labels, start=1)]


def _label(key: str, value: Any) -> str:
    if isinstance(value, dict):
        told = value.get("type", value.get("name"))
        return _label(key, told) if told is not None else key
    if isinstance(value, str):
        text = value.rsplit("/", 1)[-1].removesuffix(".yaml")
        return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.") or key
    if isinstance(value, list):
        return "-".join([key, *(_label("", item) for item in value)])
    if isinstance(value, bool) or value is None:
        return f"{key}-{str(value).lower()}"
    return f"{key}{value}"


@dataclass(frozen=True)
class Problem:
    """A reference that cannot be followed, at a path of keys under its stage in the file."""

    base: str
    keys: tuple[str, ...]
    words: str


def follow(own: Mapping[str, Sequence[Variant]]) -> tuple[dict[str, list[Variant]], list[Problem]]:
    """Fan out along references. `own` has the built variants of each stage in the file."""
    ready: dict[str, list[Variant]] = {}
    problems: list[Problem] = []
    needs = {base: _bases(base, variants, own) for base, variants in own.items()}
    if cycle := cycle_in(needs):
        words = f"reads itself: {' > '.join(cycle)}"
        return {}, [Problem(cycle[0], (), words)]
    while len(ready) < len(own):
        for base in own:
            if base not in ready and all(other in ready for other in needs[base]):
                ready[base] = [v for one in own[base] for v in _fanned(one, ready, own, problems)]
    return ready, problems


def _bases(
    base: str, variants: Sequence[Variant], own: Mapping[str, Sequence[Variant]]
) -> list[str]:
    names = [n for v in variants for r in references(v.config) for n in r.names]
    pairs = [(name, _base(name, own)) for name in dict.fromkeys(names)]
    return [other for name, other in pairs if other and (other != base or name == base)]


def _base(name: str, own: Mapping[str, Any]) -> str | None:
    """The stage in the file that `name`, or the variant called `name`, comes from."""
    if name in own:
        return name
    close = [base for base in own if name.startswith(base + "-")]
    return max(close, key=len) if close else None


def _found(
    name: str, ready: Mapping[str, Sequence[Variant]], own: Mapping[str, Any]
) -> Sequence[Variant]:
    """The variants `name` stands for: all of a stage in the file, or one by its full name."""
    base = _base(name, own)
    variants = ready.get(base, ()) if base else ()
    return variants if base == name else [v for v in variants if v.name == name]


def _fanned(
    one: Variant,
    ready: Mapping[str, Sequence[Variant]],
    own: Mapping[str, Any],
    problems: list[Problem],
) -> list[Variant]:
    """`one` for each combination of the variants it reads through single-valued references."""
    unknown = False
    for reference in references(one.config):
        for name in reference.names:
            if _found(name, ready, own):
                continue
            unknown = True
            if (base := _base(name, own)) is not None and not ready.get(base):
                continue  # that stage has mistakes of its own, which are told already
            names = [v.name for variants in ready.values() for v in variants] + list(own)
            words = f"no stage is called {name!r}{nearest(name, names) or ';'} stages: "
            problems.append(Problem(one.base, reference.keys, words + listed(own, name)))
    if unknown:
        return [one]
    fanned = [replace(one, choices={})]
    for reference in references(one.config):
        if reference.many:
            continue
        for name in reference.names:
            fanned = [
                replace(
                    variant,
                    choices={**variant.choices, **target.choices},
                    data=replaced(variant.data, reference.path, target.name),
                )
                for variant in fanned
                for target in _found(name, ready, own)
                if _agree(variant.choices, target.choices)
            ]
    if not fanned:
        words = "the stages it reads have no variant in common; name the variants it should read"
        problems.append(Problem(one.base, (), words))
        return [one]
    return [_gathered(variant, one, ready, own) for variant in fanned]


def _gathered(
    variant: Variant, one: Variant, ready: Mapping[str, Sequence[Variant]], own: Mapping[str, Any]
) -> Variant:
    """Name every variant that a tuple-valued reference stands for, and add the stage's own choices."""
    for reference in references(one.config):
        if reference.many and reference.names:
            found = [
                target.name
                for name in reference.names
                for target in _found(name, ready, own)
                if _agree(variant.choices, target.choices)
            ]
            data = replaced(variant.data, reference.path, list(dict.fromkeys(found)))
            variant = replace(variant, data=data)
    return replace(variant, choices={**variant.choices, **one.choices})


def _agree(one: Mapping[Axis, str], other: Mapping[Axis, str]) -> bool:
    return all(other[axis] == label for axis, label in one.items() if axis in other)
