"""Every file keeps the rules of `rules`, and every rule catches what it is there for."""

import ast
import collections
import typing
from pathlib import Path

import pytest
import rules

from pipeline.flow.stage import Artifact, Claim
from pipeline.stages import CATALOGUE, stage_class

MODULES = rules.modules()
# Silenced checkers, in all. A new one takes the place of an old one, or raises this number on purpose.
MOST_SUPPRESSIONS = 8

PLANTED = {
    rules.long_file: ("pipeline/a.py", "x = 1\n" * 401),
    rules.long_function: ("pipeline/a.py", "def f():\n" + "    x = 1\n" * 60),
    rules.junk_name: ("pipeline/data/io_utils.py", ""),
    rules.no_module_docstring: ("pipeline/a.py", "import os\n"),
    rules.code_in_init: ("pipeline/data/__init__.py", '"""A."""\ndef f(): ...\n'),
    rules.reads_environment: ("pipeline/a.py", "import os\nos.environ.get('A')\n"),
    rules.unsafe_call: ("pipeline/a.py", "subprocess.run('ls', shell=True)\n"),
    rules.broad_except: ("pipeline/a.py", "try:\n    f()\nexcept (OSError, Exception):\n    g()\n"),
    rules.suppression_without_reason: ("pipeline/a.py", "f(x)  # noqa: ARG001\n"),
    rules.unfinished: ("pipeline/a.py", '"""TO' + 'DO: say more."""\n'),
    rules.loose_randomness: ("pipeline/a.py", "rng = np.random.default_rng(0)\n"),
    rules.test_without_assertion: ("tests/test_a.py", "def test_a():\n    f()\n"),
    rules.mock: ("tests/test_a.py", "from unittest import mock\n"),
    rules.undescribed_field: ("pipeline/a.py", "@config\nclass A:\n    '''A.'''\n    knob: int\n"),
}
ALSO_PLANTED = [
    (rules.unsafe_call, "pipeline/a.py", "from pickle import loads\n"),
    (rules.unsafe_call, "pipeline/a.py", "import os, pickle\n"),
    (rules.unsafe_call, "tests/test_a.py", "torch.load(path)\n"),
    (rules.unsafe_call, "pipeline/a.py", "np.load(path, allow_pickle=True)\n"),
    (rules.broad_except, "pipeline/a.py", "try:\n    f()\nexcept:\n    g()\n"),
    (rules.reads_environment, "data_prep/a.py", "from os import environ\nenviron['A']\n"),
    (rules.suppression_without_reason, "pipeline/a.py", "f(x)  # type: ignore\n"),
    (rules.unfinished, "tests/test_a.py", "x = 1  # FIX" + "ME\n"),
    (rules.loose_randomness, "pipeline/a.py", "import random\n"),
    (rules.loose_randomness, "pipeline/a.py", "torch.manual_seed(seed)\n"),
]
INNOCENT = '''"""A quiet module."""

import numpy as np

@config
class A:
    """Counts to `limit`."""

    kind: Literal["a"] = "a"
    limit: int
    pace: int = 1  # steps a second

def draw(rng: np.random.Generator):
    torch.manual_seed(key_of(1, "init") % 8)
    try:
        return network.eval()
    except Exception as error:
        note(error)
        raise

def spare(x):  # noqa: ARG001 - called like the others
    return x
'''


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps(rule):
    faults = [
        f"{module.place}:{line}: {words}" for module in MODULES for line, words in rule(module)
    ]
    assert not faults, f"{rule.__doc__}\n" + "\n".join(faults)


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_a_planted_fault_is_caught_by(rule):
    more = [(place, text) for other, place, text in ALSO_PLANTED if other is rule]
    for place, text in [PLANTED[rule], *more]:
        assert list(rule(rules.Module(place, text))), (place, text)
    assert not list(rule(rules.Module("pipeline/quiet.py", INNOCENT)))


def test_the_allowed_doors_are_used():
    # A door that nobody goes through any more is closed.
    without = [
        module.place
        for module in MODULES
        if module.place in rules.ENVIRONMENT_DOORS
        and not any(rules.dotted(node) == "os.environ" for node in module.nodes)
    ]
    there = {module.place for module in MODULES}
    assert without == []
    assert there >= rules.ENVIRONMENT_DOORS | rules.REGISTRIES


def test_few_checkers_are_silenced():
    silenced = [
        f"{m.place}:{line}: {text}" for m in MODULES for line, text in rules.suppressions(m)
    ]
    assert len(silenced) <= MOST_SUPPRESSIONS, "\n".join(silenced)


def test_test_files_have_names_of_their_own():
    # They are not in packages, so two of one name would hide each other.
    names = collections.Counter(
        Path(module.place).name for module in MODULES if module.place.startswith("tests/")
    )
    assert [name for name, count in names.items() if count > 1 and name != "conftest.py"] == []
    assert "__init__.py" not in names


def test_every_package_has_tests():
    # tests/ mirrors launch, data_prep and the packages inside pipeline.
    tested = {Path(module.place).parts[1] for module in MODULES if module.is_test}
    parts = [Path(m.place).parts for m in MODULES if m.in_package and m.place.count("/") > 1]
    packages = {part[1] if part[0] == "pipeline" else part[0] for part in parts}
    assert {"data_prep", "launch"} | packages <= tested


@pytest.mark.parametrize("kind", CATALOGUE)
def test_a_kind_is_a_whole_stage(kind):
    cls = stage_class(kind)
    assert cls.makes in typing.get_args(Artifact)
    assert cls.claims in typing.get_args(Claim)
    assert isinstance(cls.version, int)
    assert cls.version >= 1
    assert cls.__dataclass_fields__["kind"].default == kind
    assert typing.get_type_hints(cls)["kind"] == typing.Literal[kind]
    assert cls.__doc__.endswith((".", ".\n    "))
    assert callable(cls.sources)
    assert callable(cls.run)
    assert callable(getattr(cls, "trainable", None)) == (cls.claims == "job")


def test_the_catalogue_is_all_there_is():
    # A stage is any config class that has a kind; each is in the catalogue, once.
    found = []
    for module in MODULES:
        for node in module.nodes if module.in_package else ():
            if isinstance(node, ast.ClassDef) and "config" in map(
                rules.dotted, node.decorator_list
            ):
                said = {f.target.id for f in node.body if isinstance(f, ast.AnnAssign)}
                if "kind" in said:
                    dots = module.place.removesuffix(".py").replace("/", ".")
                    found.append(f"{dots}:{node.name}")
    assert sorted(found) == sorted(CATALOGUE.values())
