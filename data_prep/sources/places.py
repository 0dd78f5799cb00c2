"""Where files are: local paths, globs and `fsspec` addresses, found, opened and cut in one place.

A local path is opened as a file; whatever has `://` in it goes through `fsspec`, which knows
`s3://`, `gs://`, `https://`, `hf://` and others once their package is installed.
"""

import contextlib
import glob
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import fsspec

from data_prep.sources.page import FileRange, Source
from pipeline import files
from pipeline.config import DataError
from pipeline.flow.stage import Remote

BUFFER_BYTES = 128 << 10
# What stores say about the version of a file; size and path alone would miss a change of content.
VERSION_KEYS = re.compile(
    r"(?i)e-?tag|content-md5|md5hash|checksum|digest|mtime|(last-?_?)?modified|created|version.?id"
    r"|generation|blob_id|oid|sha256"
)


def is_remote(path: str) -> bool:
    """Whether `path` is an address rather than a local path."""
    return "://" in path


def matches(name: str, patterns: Sequence[str], folder_suffixes: Sequence[str] = ()) -> list[str]:
    """Files that `patterns` of source `name` stand for, each once, in order.

    A folder stands for the files below it that end in `folder_suffixes`, if there are any such.
    Raises DataError with a line for every pattern that stands for nothing.
    """
    found: set[str] = set()
    problems: list[str] = []
    for pattern in patterns:
        local = pattern.removeprefix("file://")
        try:
            found.update((_remote if is_remote(local) else _local)(local, folder_suffixes))
        except DataError as error:
            problems.append(f"source {name!r}: {error}")
    if problems:
        raise DataError("\n".join(problems))
    return sorted(found)


def _local(pattern: str, suffixes: Sequence[str]) -> list[str]:
    matched = [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - may be absolute
    inside = [
        file.as_posix()
        for folder in matched
        if suffixes and folder.is_dir()
        for file in folder.rglob("*")
        if file.suffix.lower() in suffixes and file.is_file()
    ]
    single = [path.as_posix() for path in matched if path.is_file()]
    if single or inside:
        return single + inside
    if matched and suffixes:
        raise DataError(f"folder {pattern!r} holds no file that ends in {', '.join(suffixes)}")
    if matched:
        example = (matched[0] / "*").as_posix()
        raise DataError(f"{pattern!r} is a folder; name its files, for example {example!r}")
    here = f"(looked from {Path.cwd()})"
    raise DataError(f"no file matches {pattern!r} {here}; correct the path or make the file")


def _remote(pattern: str, suffixes: Sequence[str]) -> list[str]:
    with _told(pattern):
        system, path = fsspec.core.url_to_fs(pattern)
        wildcard = any(mark in path for mark in "*?[")
        found = system.glob(path) if wildcard else [path] * system.exists(path)
        folders = [one for one in found if system.isdir(one)]
        single = [one for one in found if one not in folders]
        inside = [
            file
            for folder in folders
            for file in (system.find(folder) if suffixes else ())
            if Path(file).suffix.lower() in suffixes
        ]
        addresses = [str(system.unstrip_protocol(one)) for one in single + inside]
    if not addresses:
        raise DataError(f"nothing matches {pattern!r}; correct the address")
    return addresses


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    """Errors of a store in words: an unknown kind, a missing package, no network, no right."""
    try:
        yield
    except (OSError, ImportError, ValueError) as error:
        raise DataError(f"{address}: cannot be reached: {error}") from None


def opened(path: str) -> BinaryIO:
    """The file at a path or address, for reading; it can seek."""
    if not is_remote(path):
        return Path(path).open("rb", buffering=BUFFER_BYTES)
    with _told(path):
        system, inside = fsspec.core.url_to_fs(path)
        return system.open(inside, "rb")


def size_of(path: str) -> int:
    """Bytes of the file at a path or address."""
    if not is_remote(path):
        return Path(path).stat().st_size
    with _told(path):
        system, inside = fsspec.core.url_to_fs(path)
        size = system.size(inside)
    if size is None:
        raise DataError(f"{path}: its store does not say how large it is; copy it here first")
    return int(size)


def byte_ranges(path: str, target_bytes: int) -> list[FileRange]:
    """Cuts of a file at equal distances, about `target_bytes` each."""
    size = size_of(path)
    return cut(path, size, size, target_bytes)


def cut(path: str, places: int, size: int, target_bytes: int) -> list[FileRange]:
    """Cuts of `places` places that take `size` bytes together, about `target_bytes` each."""
    number = max(1, min(places, round(size / target_bytes)))
    bounds = [places * part // number for part in range(number + 1)]
    sizes = [size * part // number for part in range(number + 1)]
    return [
        FileRange(path, first, end if end < places else None, sizes[part + 1] - sizes[part])
        for part, (first, end) in enumerate(itertools.pairwise(bounds))
    ]


def all_files(sources: Sequence[Source]) -> list[Path | Remote]:
    """Every file of every source once, in order; DataError names every pattern without one."""
    return [_remote_file(name) if is_remote(name) else Path(name) for name in _names(sources)]


def _names(sources: Sequence[Source]) -> list[str]:
    names: set[str] = set()
    problems: list[str] = []
    for source in sources:
        try:
            names.update(source.files())
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return sorted(names)


def _remote_file(address: str) -> Remote:
    """A remote file with what its store says about its content, which is not read for that."""
    with _told(address):
        system, inside = fsspec.core.url_to_fs(address)
        facts = system.info(inside)
    version = {key: str(fact) for key, fact in facts.items() if VERSION_KEYS.fullmatch(key)}
    return Remote(address, files.digest_of({"size": str(facts.get("size")), **version}))


def all_ranges(sources: Sequence[Source], target_bytes: int) -> list[tuple[int, FileRange]]:
    """(index of the source, part of a file) for everything there is to read, in a fixed order."""
    _names(sources)
    return [
        (index, part)
        for index, source in enumerate(sources)
        for part in source.ranges(target_bytes)
    ]
