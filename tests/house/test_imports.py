"""What starts often starts light: no torch in data workers, launchers, planning and the command line."""

import subprocess
import sys

import rules

LIGHT = (
    "data_prep",
    "launch",
    "pipeline/data",
    "pipeline/flow",
    "pipeline/cli.py",
    "pipeline/stages/__init__.py",
)
HEAVY = ("torch", "deepspeed", "transformers", "mlflow")
SHOW = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"


def loaded_by(*names: str) -> set[str]:
    """Modules that a fresh interpreter holds after importing `names`."""
    command = [sys.executable, "-c", SHOW, *names]
    done = subprocess.run(command, cwd=rules.ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_light_modules_load_nothing_heavy():
    # import-linter sees our own imports; this also sees what libraries pull in.
    places = [m.place for m in rules.modules() if m.place.startswith(LIGHT)]
    names = [
        place.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for place in places
    ]
    loaded = loaded_by(*names)
    assert loaded >= set(names)
    assert not loaded & set(HEAVY)


def test_the_command_line_alone_loads_next_to_nothing():
    assert not loaded_by("pipeline.cli") & {*HEAVY, "numpy", "pydantic", "ray", "yaml"}
