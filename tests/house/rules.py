"""What a source file of this repository must not do: each rule is a function from a module to its faults.

A fault is a line number and a few words. The rules see what ruff and import-linter cannot; `test_shape` holds
every file to all of them, and shows for each one a line that it catches.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "launch", "data_prep")
FOLDERS = (*PACKAGES, "tests", "benchmarks", "data", "slurm")

FILE_LINES = 400
FUNCTION_LINES = 60
JUNK_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "shared"}
# The union of a plug's configs and the look-up by it are one place: a new plug is one file and one line there.
REGISTRIES = {
    "pipeline/evaluate/forms/__init__.py",
    "pipeline/models/mixers/__init__.py",
    "pipeline/stages/__init__.py",
}
ENVIRONMENT_DOORS = {
    "launch/local.py",  # what ranks inherit
    "pipeline/flow/runner.py",  # what Ray's workers inherit
    "pipeline/flow/schedule.py",  # the threads a job may use
    "pipeline/track/mlflow.py",  # MLflow's retries have no other switch
    "pipeline/train/__main__.py",  # rank and rendezvous, from whichever launcher
    "pipeline/train/engine_deepspeed.py",  # DeepSpeed's accelerator has no other switch
}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "os.system", "os.popen"}
UNSAFE_KEYWORDS = {"shell", "allow_pickle"}
MARKS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|mypy:|ruff:)")
REASONED = re.compile(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[a-z-]+\])(  #)? (- )?\w[^#]{5,}")

Fault = tuple[int, str]


@dataclass(frozen=True)
class Module:
    """One Python file: its place in the repository (posix) and its text."""

    place: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def comments(self) -> list[Fault]:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [(t.start[0], t.string) for t in tokens if t.type == tokenize.COMMENT]

    @property
    def in_package(self) -> bool:
        return self.place.split("/")[0] in PACKAGES

    @property
    def is_test(self) -> bool:
        return Path(self.place).name.startswith("test_")


def modules() -> list[Module]:
    """Every Python file of the repository."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return [
        Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in paths
    ]


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or an attribute, else nothing."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return (node for node in module.nodes if isinstance(node, kinds))


def long_file(module: Module) -> Iterator[Fault]:
    """Files fit in a head: up to 400 lines."""
    count = len(module.text.splitlines())
    if count > FILE_LINES:
        yield count, f"{count} lines; at most {FILE_LINES}"


def long_function(module: Module) -> Iterator[Fault]:
    """Functions fit on a screen: up to 60 lines, signature and docstring included."""
    for function in functions(module):
        count = (function.end_lineno or function.lineno) - function.lineno + 1
        if count > FUNCTION_LINES:
            yield function.lineno, f"{function.name} has {count} lines; at most {FUNCTION_LINES}"


def junk_name(module: Module) -> Iterator[Fault]:
    """A module is named by the one thing it is about."""
    for part in Path(module.place).with_suffix("").parts:
        if JUNK_NAMES & set(part.split("_")):
            yield 1, f"{part!r} does not say what is inside"


def no_module_docstring(module: Module) -> Iterator[Fault]:
    """Every file says what it is for."""
    if not ast.get_docstring(module.tree):
        yield 1, "has no module docstring"


def code_in_init(module: Module) -> Iterator[Fault]:
    """An `__init__` holds a docstring, imports and unions; two registries also look up by theirs."""
    if not module.place.endswith("__init__.py") or module.place in REGISTRIES:
        return
    for node in module.tree.body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not docstring and not isinstance(node, ast.Import | ast.ImportFrom | ast.Assign):
            yield node.lineno, "an __init__ holds a docstring, imports and unions"


def reads_environment(module: Module) -> Iterator[Fault]:
    """What a program does depends on its config; the environment is touched at few doors."""
    if not module.in_package or module.place in ENVIRONMENT_DOORS:
        return
    for node in module.nodes:
        if dotted(node) in ("os.environ", "os.getenv", "os.putenv", "environ", "getenv"):
            yield node.lineno, "touches the environment"


def unsafe_call(module: Module) -> Iterator[Fault]:
    """Nothing read from a file is executed, and no text becomes a shell command."""
    for node in module.nodes:
        if module.in_package and isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names if isinstance(node, ast.Import)]
            roots = {name.split(".")[0] for name in [*names, getattr(node, "module", None) or ""]}
            if roots & UNPICKLERS:
                yield node.lineno, f"imports {', '.join(roots & UNPICKLERS)}"
        if isinstance(node, ast.Call):
            if dotted(node.func) in UNSAFE_CALLS:
                yield node.lineno, f"calls {dotted(node.func)}"
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in UNSAFE_KEYWORDS and not off:
                    yield node.lineno, f"uses {keyword.arg}="


def broad_except(module: Module) -> Iterator[Fault]:
    """An except names what it expects, unless it only notes the error and raises it again."""
    for node in module.nodes:
        if isinstance(node, ast.ExceptHandler):
            last = node.body[-1]
            if isinstance(last, ast.Raise) and last.exc is None:
                continue
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(t is None or dotted(t) in ("Exception", "BaseException") for t in caught):
                yield node.lineno, "catches everything"


def suppressions(module: Module) -> list[Fault]:
    """Comments that silence a checker."""
    return [(line, text) for line, text in module.comments if SUPPRESSION.search(text)]


def suppression_without_reason(module: Module) -> Iterator[Fault]:
    """A checker is silenced for one named rule and one stated reason."""
    for line, text in suppressions(module):
        if not REASONED.match(text):
            yield line, f"{text!r} needs the form `# noqa: RULE - reason`"


def unfinished(module: Module) -> Iterator[Fault]:
    """Nothing waits to be done."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    prose = [(1, ast.get_docstring(n) or "") for n in module.nodes if isinstance(n, documented)]
    for line, text in [*module.comments, *prose]:
        if MARKS.search(text):
            yield line, "is unfinished"


def loose_randomness(module: Module) -> Iterator[Fault]:
    """Every draw is keyed: `rng_of` makes the generators, `key_of` the seeds."""
    if not module.in_package or module.place == "pipeline/runtime.py":
        return
    for node in module.nodes:
        name = dotted(node)
        if isinstance(node, ast.Import) and any(
            a.name in ("random", "secrets") for a in node.names
        ):
            yield node.lineno, "imports a generator that is not keyed"
        if name.startswith(("np.random.", "numpy.random.")) and not name.endswith(".Generator"):
            yield node.lineno, f"{name} is not keyed; use pipeline.runtime.rng_of"
        if isinstance(node, ast.Call) and dotted(node.func).endswith(
            ("manual_seed", "manual_seed_all")
        ):
            if not any(dotted(n) == "key_of" for a in node.args for n in ast.walk(a)):
                yield node.lineno, "a seed that key_of did not make"


def test_without_assertion(module: Module) -> Iterator[Fault]:
    """A test can fail: it asserts, or expects an error."""
    if not module.is_test:
        return
    for function in functions(module):
        inside = list(ast.walk(function))
        called = [dotted(n.func).rpartition(".")[2] for n in inside if isinstance(n, ast.Call)]
        told = any(name in ("raises", "warns") or name.startswith("assert_") for name in called)
        if function.name.startswith("test_") and not told:
            if not any(isinstance(node, ast.Assert) for node in inside):
                yield function.lineno, f"{function.name} asserts nothing"


def mock(module: Module) -> Iterator[Fault]:
    """Tests run the real thing."""
    for node in module.nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if any("mock" in name.split(".") for name in names):
                yield node.lineno, "imports mock"


def undescribed_field(module: Module) -> Iterator[Fault]:
    """A key of a run file that its name alone does not explain is described where it is declared."""
    for node in module.nodes if module.in_package else ():
        if isinstance(node, ast.ClassDef) and "config" in map(dotted, node.decorator_list):
            lines = module.text.splitlines()
            words = set(re.findall(r"\w+", ast.get_docstring(node) or ""))
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    commented = "  # " in lines[(field.end_lineno or field.lineno) - 1]
                    constant = "ClassVar" in ast.unparse(field.annotation)
                    if not commented and not constant and field.target.id not in OBVIOUS | words:
                        yield field.lineno, f"{node.name}.{field.target.id} is described nowhere"


# Keys whose name says all: references to stages, nested configs, and words every reader of a run file knows.
OBVIOUS = {
    "corpus", "cpus", "dropout", "enabled", "engine", "hidden_size", "kind", "launch", "lr", "mixer",
    "model", "name", "num_heads", "num_layers", "objective", "optimizer", "paths", "ray", "rules", "schedule",
    "seed", "steps", "store", "task", "test", "tokens", "tracking", "train", "type", "uri",
    "validation", "vocab", "weight_decay",
}  # fmt: skip

RULES: tuple[Callable[[Module], Iterator[Fault]], ...] = (
    long_file,
    long_function,
    junk_name,
    no_module_docstring,
    code_in_init,
    reads_environment,
    unsafe_call,
    broad_except,
    suppression_without_reason,
    unfinished,
    loose_randomness,
    test_without_assertion,
    mock,
    undescribed_field,
)
