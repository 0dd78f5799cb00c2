"""Documents as data: the links, the shell blocks and the tree that a Markdown file holds."""

import fnmatch
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import rules

FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
TREE_LINE = re.compile(r"^( *)([\w.-]+/?)(?: {2,}| *$)(.*)$")
SHELLS = {"sh", "bash", "shell", "console", "zsh"}


def _ignored() -> list[str]:
    lines = (rules.ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return [line.strip("/") for line in lines if line and not line.startswith("#")]


IGNORED = _ignored()


def visible(path: Path) -> bool:
    """Whether a path belongs to the repository: not hidden, not built."""
    parts = path.relative_to(rules.ROOT).parts
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and not any(fnmatch.fnmatch(part, p) for part in parts for p in IGNORED)


def documents() -> list[Path]:
    """Every Markdown file of the repository."""
    return sorted(path for path in rules.ROOT.rglob("*.md") if visible(path))


def blocks(text: str, languages: set[str]) -> Iterator[str]:
    """The fenced blocks in one of `languages`."""
    for language, body in FENCE.findall(text):
        if language in languages:
            yield body


def commands(block: str) -> Iterator[str]:
    """The commands of a shell block, continued lines joined, comments and prompts left out."""
    for line in block.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            if words := shlex.split(part, comments=True):
                yield shlex.join(words)


def broken_links(document: Path, text: str) -> Iterator[str]:
    """Links inside the repository that lead nowhere, and places in backticks that are not there."""
    prose = FENCE.sub("", text)
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        path = (document.parent / place).resolve() if place else document
        if place and not path.exists():
            yield target
        elif anchor and path.suffix == ".md":
            found = text if path == document else path.read_text(encoding="utf-8")
            if anchor not in {slug(heading) for heading in HEADING.findall(FENCE.sub("", found))}:
                yield target
    folders = {path.name for path in rules.ROOT.iterdir() if path.is_dir() and visible(path)}
    for code in CODE.findall(prose):
        if re.fullmatch(r"[\w./-]+", code) and "/" in code and code.split("/")[0] in folders:
            if not (rules.ROOT / code).exists():
                yield code


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@dataclass
class Entry:
    """A line of a tree: its clause, and what is shown inside it (None: nothing is shown)."""

    clause: str
    inside: dict[str, "Entry"] = field(default_factory=dict)


def tree(block: str) -> dict[str, Entry]:
    """A tree as it is written: a name a line (folders end in `/`), two spaces or more, a clause.

    What stands deeper is inside. A line that is not of this form is an AssertionError.
    """
    root: dict[str, Entry] = {}
    above: list[tuple[int, dict[str, Entry]]] = [(-1, root)]
    for line in filter(None, map(str.rstrip, block.splitlines())):
        match = TREE_LINE.match(line)
        assert match, f"not a line of a tree: {line!r}"
        depth, name, clause = len(match[1]), match[2], match[3]
        while above[-1][0] >= depth:
            above.pop()
        entry = Entry(clause)
        assert name not in above[-1][1], f"{name} stands twice"
        above[-1][1][name] = entry
        above.append((depth, entry.inside))
    return root


def entries(folder: Path) -> set[str]:
    """What a tree says of a folder: its files and, with a `/`, its folders; no `__init__.py`."""
    found = {path for path in folder.iterdir() if visible(path) and path.name != "__init__.py"}
    folders = {
        p for p in found if p.is_dir() and any(visible(q) for q in p.rglob("*") if q.is_file())
    }
    return {f"{p.name}/" for p in folders} | {p.name for p in found if p.is_file()}


def differences(
    shown: dict[str, Entry], there: set[str], folder: Path, *, whole: tuple[str, ...] = ()
) -> Iterator[str]:
    """Where a tree and the disk differ: what is missing, gone or has no clause.

    A folder that shows anything shows everything in it; those named in `whole` do, all the way down.
    """
    place = folder.relative_to(rules.ROOT)
    yield from (f"{place / name}: not in the tree" for name in sorted(there - set(shown)))
    for name, entry in shown.items():
        if name not in there:
            yield f"{place / name}: not on disk"
        elif not entry.clause:
            yield f"{place / name}: needs a clause"
        elif name.endswith("/") and (entry.inside or name in whole):
            inside = entries(folder / name)
            deeper = tuple(inside) if name in whole else ()
            yield from differences(entry.inside, inside, folder / name, whole=deeper)
