"""Zip archives: their members by name, each read up to a limit and checked.

Nothing is ever unpacked to the disk. Names that point outside, members that overlap, are encrypted
or swell beyond reason are faults.
"""

import itertools
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import BinaryIO

from data_prep.sources.members import BOMB_BYTES, BOMB_RATIO
from data_prep.sources.page import MAX_PAGE_BYTES, Unreadable, checked_size

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
END_MAGIC = b"PK\x05\x06"
END_BYTES = 22
MAX_COMMENT_BYTES = 65_535
MAX_DIRECTORY_BYTES = 32 << 20
ENCRYPTED = 1
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
    OverflowError,
)


def is_zip(file: BinaryIO) -> bool:
    """Whether a file begins as a zip archive does."""
    file.seek(0)
    return file.read(4) in ZIP_MAGICS


def opened_zip(file: BinaryIO, size: int) -> zipfile.ZipFile:
    """The archive in a file; Unreadable when its directory is broken or absurdly large."""
    start = max(0, size - END_BYTES - MAX_COMMENT_BYTES)
    file.seek(start)
    tail = file.read()
    place = tail.rfind(END_MAGIC)
    directory = int.from_bytes(tail[place + 12 : place + 16], "little") if place >= 0 else 0
    if directory > MAX_DIRECTORY_BYTES:
        raise Unreadable("too_large", f"a zip directory of {directory} bytes")
    try:
        return zipfile.ZipFile(file)
    except BROKEN as error:
        raise Unreadable("damaged_file", f"zip: {error}") from None


def members_of(archive: zipfile.ZipFile, suffixes: Sequence[str]) -> list[zipfile.ZipInfo]:
    """Members whose names end in `suffixes`, in the order of their places."""
    infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    wanted = [info for info in infos if PurePosixPath(info.filename).suffix.lower() in suffixes]
    return sorted(wanted, key=lambda info: (info.header_offset, info.filename))


def overlapping(infos: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Header offsets of members that share bytes with the one behind them; `infos` in order."""
    return {
        info.header_offset
        for info, following in itertools.pairwise(infos)
        if info.header_offset + info.compress_size >= following.header_offset
    }


def content_of_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member, whole and with the right checksum; Unreadable if it cannot be had."""
    _check_name(info.filename)
    if info.header_offset < 0:
        raise Unreadable("damaged_file", "zip: a member before the beginning of the file")
    if info.flag_bits & ENCRYPTED:
        raise Unreadable("encrypted", "a member that needs a password")
    if info.compress_type not in METHODS:
        raise Unreadable("unsupported_format", f"zip method {info.compress_type}")
    if info.file_size > max(BOMB_BYTES, BOMB_RATIO * info.compress_size):
        note = f"{info.compress_size} bytes inflate to {info.file_size}"
        raise Unreadable("compression_bomb", note)
    checked_size(info.file_size)
    try:
        with archive.open(info) as member:
            content = member.read(MAX_PAGE_BYTES + 1)
    except BROKEN as error:
        raise Unreadable("damaged_file", f"zip: {error}") from None
    if len(content) != info.file_size:
        raise Unreadable("damaged_file", f"zip: {len(content)} of {info.file_size} bytes")
    return content


def _check_name(name: str) -> None:
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    rooted = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor
    if rooted or ".." in parts:
        raise Unreadable("unsafe_name", f"a member named {name[:80]!r}")
