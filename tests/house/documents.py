"""Documents as data: the links and shell blocks that a Markdown file holds, and the tree that one draws."""

import ast
import fnmatch
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import rules

FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
END_OF_SENTENCE = re.compile(r"(?<!et al)\. ")
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


def drawn_tree(folders: tuple[str, ...]) -> str:
    """Every Python file of `folders` with the first sentence of its docstring, as a tree."""
    lines: list[str] = []
    for name in folders:
        lines += _drawn(rules.ROOT / name, 0)
    return "\n".join(lines) + "\n"


def _drawn(folder: Path, depth: int) -> Iterator[str]:
    yield _line(f"{folder.name}/", folder / "__init__.py", depth)
    inside = sorted(path for path in folder.iterdir() if visible(path))
    for path in inside:
        if path.suffix == ".py" and path.name != "__init__.py":
            yield _line(path.name, path, depth + 1)
    for path in inside:
        if path.is_dir() and any(path.rglob("*.py")):
            yield from _drawn(path, depth + 1)


def _line(name: str, described: Path, depth: int) -> str:
    words = ast.get_docstring(ast.parse(described.read_text(encoding="utf-8")))
    assert words, f"{described} has no docstring"
    paragraph = " ".join(words.split("\n\n")[0].split())
    return f"{'    ' * depth + name:<38}{END_OF_SENTENCE.split(paragraph)[0].rstrip('.')}"
