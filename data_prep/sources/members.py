"""Compressed files: gzip and zstd members, inflated a little at a time and never without limit.

A member that ends too early, fails its checksum or swells beyond reason raises Unreadable. What
is inflated at once is bounded by feeding few compressed bytes: deflate makes at most 1032 bytes of
one, zstd at most 128 KiB of four.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import zstandard

from data_prep.sources.page import Unreadable

GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE_MAGIC = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
DICTIONARY_MAGIC = b"\x5d\x2a\x4d\x18"
OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}
GZIP_STEP_BYTES = 16 << 10
ZSTD_STEP_BYTES = 1 << 10
MAX_WINDOW_BYTES = 1 << 27
MAX_DICTIONARY_BYTES = 16 << 20
PROBE_BYTES = 256 << 10
BOMB_BYTES = 4 << 20
BOMB_RATIO = 250


class Codec(Protocol):
    """A kind of compression: how its members begin, and how many bytes may be fed at once."""

    mark: re.Pattern[bytes]
    step_bytes: int

    def begin(self) -> Any:
        """A decompressor of one member: `decompress(data)`, `eof` and `unused_data`."""
        ...


class Gzip:
    """Gzip members."""

    mark = re.compile(re.escape(GZIP_MAGIC))
    step_bytes = GZIP_STEP_BYTES

    def begin(self) -> Any:
        return zlib.decompressobj(zlib.MAX_WBITS | 16)


class Zstd:
    """Zstandard frames, with the dictionary that opens some archives."""

    mark = re.compile(re.escape(ZSTD_MAGIC) + rb"|" + SKIPPABLE_MAGIC.pattern)
    step_bytes = ZSTD_STEP_BYTES

    def __init__(self, dictionary: bytes = b"") -> None:
        known = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
        self.decompressor = zstandard.ZstdDecompressor(known, max_window_size=MAX_WINDOW_BYTES)

    def begin(self) -> Any:
        return self.decompressor.decompressobj()


def codec_of(file: BinaryIO) -> Codec | None:
    """How a file is compressed, None if it is not; Unreadable for what is not supported."""
    file.seek(0)
    beginning = file.read(8)
    if beginning.startswith(GZIP_MAGIC):
        return Gzip()
    if beginning.startswith(DICTIONARY_MAGIC):
        return Zstd(_dictionary(file, int.from_bytes(beginning[4:], "little")))
    if beginning.startswith(ZSTD_MAGIC) or SKIPPABLE_MAGIC.match(beginning):
        return Zstd()
    for magic, name in OTHERS.items():
        if beginning.startswith(magic):
            raise Unreadable("unsupported_format", f"{name}; decompress it, or use gzip or zstd")
    return None


def _dictionary(file: BinaryIO, size: int) -> bytes:
    """The dictionary in the first frame of an archive, itself compressed or not."""
    if size > MAX_DICTIONARY_BYTES:
        raise Unreadable("damaged_file", f"a zstd dictionary of {size} bytes")
    held = file.read(size)
    if not held.startswith(ZSTD_MAGIC):
        return held
    try:
        return zstandard.ZstdDecompressor().decompress(held, MAX_DICTIONARY_BYTES)
    except zstandard.ZstdError as error:
        raise Unreadable("damaged_file", f"its zstd dictionary: {error}") from None


class Member:
    """One member of a compressed file, inflated step by step; `end` is where it ended."""

    def __init__(self, file: BinaryIO, start: int, codec: Codec) -> None:
        self.file, self.start, self.codec = file, start, codec
        self.decompressor = codec.begin()
        self.position = start
        self.inflated = 0
        self.end: int | None = None

    def blocks(self) -> Iterator[bytes]:
        """What it holds; Unreadable when it is damaged, cut short or a bomb."""
        while self.end is None:
            if block := self._step():
                yield block

    def _step(self) -> bytes:
        self.file.seek(self.position)
        data = self.file.read(self.codec.step_bytes)
        if not data:
            raise Unreadable("truncated_record", "the file ends inside a compressed member")
        self.position += len(data)
        try:
            block: bytes = self.decompressor.decompress(data)
        except (zlib.error, zstandard.ZstdError) as error:
            raise Unreadable(
                "damaged_stretch", f"the compressed member is damaged: {error}"
            ) from None
        if self.decompressor.eof:
            self.position -= len(self.decompressor.unused_data)
            self.end = self.position
        self.inflated += len(block)
        taken = self.position - self.start
        if self.inflated > max(BOMB_BYTES, BOMB_RATIO * taken):
            note = f"{taken} bytes inflate to more than {self.inflated}"
            raise Unreadable("compression_bomb", note)
        return block


def beginning_of(file: BinaryIO, start: int, codec: Codec, most: int) -> bytes:
    """Up to `most` bytes of the member at `start`; nothing when there is none."""
    member, begun = Member(file, start, codec), b""
    try:
        for block in member.blocks():
            begun += block
            if len(begun) >= most or member.position - start > PROBE_BYTES:
                break
    except Unreadable:
        return begun[:most]
    return begun[:most]


def inflated(file: BinaryIO, codec: Codec, size: int) -> Iterator[bytes]:
    """All members of a file, one behind the other; Unreadable at the first that is damaged."""
    start = 0
    while start < size:
        file.seek(start)
        if start and not codec.mark.match(file.read(len(ZSTD_MAGIC))):
            raise Unreadable("damaged_stretch", f"no compressed member begins at byte {start}")
        member = Member(file, start, codec)
        yield from member.blocks()
        assert member.end is not None
        start = member.end


def content_of(file: BinaryIO, size: int, most: int) -> bytes:
    """A whole file, inflated if it is compressed; Unreadable above `most` bytes."""
    codec = codec_of(file)
    if codec is None:
        if size > most:
            raise Unreadable("too_large", f"{size} bytes; at most {most} are read")
        file.seek(0)
        return file.read()
    content = bytearray()
    for block in inflated(file, codec, size):
        content += block
        if len(content) > most:
            raise Unreadable("too_large", f"more than {most} bytes once inflated")
    return bytes(content)
