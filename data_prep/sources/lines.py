"""Lines of a file, plain or compressed, each at its place, none longer than a limit.

Places are byte offsets; in a compressed file, of what it holds once inflated. A line belongs to the
range it begins in. Compressed files cannot be entered in the middle, so they are one range.
"""

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

from data_prep.sources import places
from data_prep.sources.members import codec_of, inflated
from data_prep.sources.page import Fault, FileRange, Unreadable

BLOCK_BYTES = 256 << 10
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
MAGIC_BYTES = 8
Line = tuple[int, bytes]  # place of its first byte; the line without its end


def line_ranges(path: str, target_bytes: int) -> list[FileRange]:
    """Byte ranges of a plain file; the whole of a compressed one."""
    size = places.size_of(path)
    splits = False
    if size > target_bytes:
        with places.opened(path) as file, contextlib.suppress(Unreadable):
            splits = codec_of(file) is None
    return places.cut(path, size if splits else 1, size, target_bytes)


def lines_of(path: str, first: int, end: int | None, most: int) -> Iterator[Line | Fault]:
    """Lines that begin in `first` <= byte < `end`; Faults for those above `most` bytes, and for
    the place where a damaged file ends.
    """
    size = places.size_of(path)
    if size == 0:
        yield Fault("empty_file", 0, "0 bytes")
        return
    reached = 0
    with places.opened(path) as file:
        try:
            blocks = _blocks(file, size, max(0, first - 1))
            for item in _cut(blocks, max(0, first - 1), most):
                start = item.record if isinstance(item, Fault) else item[0]
                if end is not None and start >= end:
                    return
                if start >= first:
                    yield item
                reached = start + (0 if isinstance(item, Fault) else len(item[1]))
        except Unreadable as why:
            yield why.at(reached)


def _blocks(file: BinaryIO, size: int, start: int) -> Iterator[bytes]:
    codec = codec_of(file)
    if codec is not None:
        assert start == 0, "a compressed file is one range"
        yield from inflated(file, codec, size)
        return
    file.seek(0)
    if file.read(2) in UTF_16_MARKS:
        raise Unreadable("unsupported_format", "UTF-16; lines are read from UTF-8 files only")
    file.seek(start)
    while block := file.read(BLOCK_BYTES):
        yield block


def _cut(blocks: Iterator[bytes], start: int, most: int) -> Iterator[Line | Fault]:
    """Lines of a stream that begins at place `start`; what is left behind the last end is one."""
    begun: list[bytes] = []
    length = 0
    for block in blocks:
        pieces = block.split(b"\n")
        for piece in pieces[:-1]:
            yield _whole(begun, piece, start, length + len(piece), most)
            start += length + len(piece) + 1
            begun, length = [], 0
        length += len(pieces[-1])
        begun = [*begun, pieces[-1]] if length <= most else []
    if length:
        yield _whole(begun, b"", start, length, most)


def _whole(begun: list[bytes], last: bytes, start: int, length: int, most: int) -> Line | Fault:
    if length > most:
        return Fault("too_large", start, f"a line of {length} bytes; at most {most} are read")
    line = b"".join((*begun, last)).removesuffix(b"\r")
    return start, line if start else line.removeprefix(BYTE_ORDER_MARK)
