"""Files that are not what they should be: several hundred, each with what can still be read of it.

Every case is a file, the type of its source, the texts that must be found in it whatever else is
wrong, and the number of things that are wrong (or None: one at least).
"""

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

TEXTS = ("one " * 40, "two " * 40, "three " * 40)
DEEP = 10_000
JSON = [json.dumps({"text": text}).encode() + b"\n" for text in TEXTS]
PACKERS = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor(write_checksum=True).compress}


@dataclass(frozen=True)
class Case:
    """A malformed file."""

    name: str
    type: str
    data: bytes
    texts: tuple[str, ...] = ()
    faults: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def warc(text: str, *, http: bytes = b"", length: int | None = None, body: bytes = b"") -> bytes:
    """One record of a page that says `text`."""
    http = http or b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
    block = http + b"\r\n" + (body or b"<html><p>" + text.encode())
    size = len(block) if length is None else length
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/{text[:3]}\r\n"
    return f"{head}Content-Length: {size}\r\n\r\n".encode() + block + b"\r\n\r\n"


def cases() -> Iterator[Case]:
    """All of them."""
    for make in (_cut_archives, _cut_lines, _records, _members, _responses, _encodings, _json):
        yield from make()
    for make in (_tables, _streams, _zips, _cut_others):
        yield from make()


def _cut_archives() -> Iterator[Case]:
    for name, pack in {"plain": bytes, **PACKERS}.items():
        parts = [pack(warc(text)) for text in TEXTS]
        data, ends = b"".join(parts), [sum(map(len, parts[: n + 1])) for n in range(3)]
        blank = 4 if name == "plain" else 0
        for percent in range(1, 100):
            cut = len(data) * percent // 100
            if not any(end - blank <= cut <= end for end in ends):
                whole = sum(end <= cut for end in ends)
                yield Case(f"warc {name} cut at {percent} %", "warc", data[:cut], TEXTS[:whole], 1)


def _cut_lines() -> Iterator[Case]:
    for name, pack in PACKERS.items():
        data = pack(b"".join(JSON))
        parts = [pack(line) for line in JSON]
        for percent in range(1, 100, 2):
            cut = data[: max(4, len(data) * percent // 100)]
            yield Case(f"jsonl {name} cut at {percent} %", "jsonl", cut, (), 1)
        half = len(parts[2]) // 2
        yield Case(f"{name} cut member", "jsonl", b"".join(parts)[:-half], TEXTS[:2], 1)
        yield Case(f"{name} garbage behind", "jsonl", b"".join(parts) + b"garbage", TEXTS, 1)
        yield Case(f"{name} text cut", "text", data[: len(data) // 2], (), 1)


def _records() -> Iterator[Case]:
    """What is wrong with the middle one of three records costs that one only."""
    first, middle, last = map(warc, TEXTS)
    around = (TEXTS[0], TEXTS[2])
    size = b"Content-Length: "
    wrong = {
        "no length": middle.replace(size, b"Content-Langth: "),
        "negative length": middle.replace(size, b"Content-Length: -"),
        "length in words": middle.replace(size, b"Content-Length: many "),
        "length of 10^30": middle.replace(size, b"Content-Length: 1" + b"0" * 30),
        "unicode digits": middle.replace(size, "Content-Length: ٣".encode()),
        "too long by 9": warc(TEXTS[1], length=len(middle) - 84 + 9 + len("two")),
        "too long by a lot": warc(TEXTS[1], length=10**6),
        "absurdly long": warc(TEXTS[1], length=10**15),
        "too short": warc(TEXTS[1], length=60),
        "zero": warc(TEXTS[1], length=0),
        "garbage": b"garbage\r\n" * 9,
        "zeros": bytes(999),
        "head without end": b"WARC/1.0\r\n" + b"X: y\r\n" * 20_000,
        "line without end": b"WARC/1.0\r\nX: " + b"y" * 100_000,
        "another version": middle.replace(b"WARC/1.0", b"WARC/9.0"),
        "no carriage": middle.replace(b"WARC/1.0\r\n", b"WARC/1.0"),
    }
    for name, record in wrong.items():
        yield Case(f"plain: {name}", "warc", first + record + last, around)
        for kind, pack in PACKERS.items():
            packed = pack(first) + pack(record) + pack(last)
            yield Case(f"{kind}: {name}", "warc", packed, around)
    yield Case("shared member", "warc", gzip.compress(first + b"garbage" + last), (), 1)


def _members() -> Iterator[Case]:
    """Damaged members: headers, checksums, sizes, every fifteenth byte."""
    for kind, pack in PACKERS.items():
        first, middle, last = (pack(warc(text)) for text in TEXTS)
        for place in range(0, len(middle), 15):
            damaged = bytearray(middle)
            damaged[place] ^= 0x55
            yield Case(
                f"{kind} byte {place}", "warc", first + damaged + last, (TEXTS[0], TEXTS[2]), 1
            )
        lines = [pack(line) for line in JSON]
        damaged = lines[1][:-3] + bytes(b ^ 0xFF for b in lines[1][-3:])
        yield Case(f"{kind} checksum", "jsonl", lines[0] + damaged + lines[2], TEXTS[:1], 1)
    yield Case("gz header only", "warc", b"\x1f\x8b\x08", (), 1)
    yield Case("gz wrong size", "jsonl", gzip.compress(JSON[0])[:-4] + bytes(4), (), 1)
    yield Case("gz reserved flags", "jsonl", b"\x1f\x8b\x08\xff" + bytes(30), (), 1)
    yield Case("zst header only", "jsonl", b"\x28\xb5\x2f\xfd", (), 1)
    yield Case("zst large dictionary", "warc", b"\x5d\x2a\x4d\x18\xff\xff\xff\x7f", (), 1)
    yield Case("bzip2", "jsonl", b"BZh91AY&SY", (), 1)
    yield Case("xz", "warc", b"\xfd7zXZ\x00\x00", (), 1)
    for kind in ("warc", "jsonl", "text", "html", "parquet"):
        yield Case(f"empty {kind}", kind, b"", (), 1)


def _responses() -> Iterator[Case]:
    html = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    good = warc(TEXTS[0])
    wrong = {
        "no status": warc("x", http=b"HTTP/1.1\r\n"),
        "status in words": warc("x", http=b"HTTP/1.1 fine\r\n"),
        "not http": warc("x", http=b"dns lookup\r\n"),
        "status 404": warc("x", http=b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n"),
        "no head": warc("x", body=b"x", http=b"\x00\xff"),
        "an image": warc("x", http=b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"),
        "no type": warc("x", http=b"HTTP/1.1 200 OK\r\n", body=b"\x00\x01"),
        "cut gzip": warc(
            "x", http=html + b"Content-Encoding: gzip\r\n", body=gzip.compress(b"x" * 99)[:-9]
        ),
        "bad deflate": warc("x", http=html + b"Content-Encoding: deflate\r\n", body=b"\xff" * 30),
        "bad brotli": warc("x", http=html + b"Content-Encoding: br\r\n", body=b"\xff" * 30),
        "unknown encoding": warc("x", http=html + b"Content-Encoding: rot13\r\n"),
        "bad chunk": warc("x", http=html + b"Transfer-Encoding: chunked\r\n", body=b"zz\r\nx\r\n"),
        "negative chunk": warc(
            "x", http=html + b"Transfer-Encoding: chunked\r\n", body=b"-5\r\nabc\r\n"
        ),
        "1000 encodings": warc("x", http=html + b"Content-Encoding: " + b"gzip," * 1000 + b"\r\n"),
    }
    for name, record in wrong.items():
        yield Case(f"response: {name}", "warc", good + record + good, (TEXTS[0],) * 2, 1)


def _encodings() -> Iterator[Case]:
    """Bytes that are no text in any sense, or not in the sense they should be."""
    raw = {
        "binary": bytes(range(128, 256)) * 9,
        "overlong": b"\xc0\xaf\xe0\x80\xaf" * 40,
        "surrogates": b"\xed\xa0\x80" * 40,
        "above unicode": b"\xf7\xbf\xbf\xbf" * 40,
        "NUL": b"a\x00b" * 40,
        "only NUL": bytes(100),
        "UTF-16 without mark": "words and words ".encode("utf-16-le") * 9,
        "UTF-32": "words".encode("utf-32") * 9,
    }
    for name, data in raw.items():
        yield Case(f"text: {name}", "text", data, (), 1)
        yield Case(f"conversion: {name}", "warc", _conversion(data) + warc(TEXTS[0]), TEXTS[:1], 1)
        line = b'{"text": "' + data.replace(b"\n", b" ").replace(b'"', b" ") + b'"}\n'
        yield Case(f"jsonl: {name}", "jsonl", JSON[0] + line + JSON[2], (TEXTS[0], TEXTS[2]))
        lines = {"documents": "line"}
        yield Case(f"line: {name}", "text", b"good\n" + data + b"\ngood", ("good",), None, lines)
    for mark in ("utf-16-le", "utf-16-be"):
        data = ("\ufeff" + '{"text": "a"}\n').encode(mark)
        yield Case(f"jsonl in {mark}", "jsonl", data, (), 1)


def _conversion(block: bytes) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {len(block)}\r\n\r\n"
    return head.encode() + block + b"\r\n\r\n"


def _json() -> Iterator[Case]:
    wrong = {
        "deep lists": b"[" * DEEP + b"]" * DEEP,
        "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "deep field": b'{"text": "x", "a": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        "not closed": b'{"text": "x"',
        "not a string": b'{"text": 3}',
        "null": b'{"text": null}',
        "list": b'{"text": ["x"]}',
        "true": b'{"text": true}',
        "no field": b'{"texts": "x"}',
        "no object": b'["text", "x"]',
        "number": b"3",
        "word": b"text",
        "long number": b'{"text": ' + b"9" * 10_000 + b"}",
        "two values": b'{"text": "x"} {"text": "y"}',
        "comma": b'{"text": "x",}',
        "single quotes": b"{'text': 'x'}",
        "raw tab": b'{"text": "a\tb"}',
        "lone surrogate": b'{"text": "' + b"\\ud800" * 40 + b'"}',
        "escaped NUL": b'{"text": "' + b"\\u0000" * 40 + b'"}',
        "bad escape": b'{"text": "\\x41"}',
        "address of a wrong type": b'{"text": "x", "url": {}}',
        "mark inside": b"\xef\xbb\xbf" + b'{"text": "x"}',
        "commas": b"," * 99,
    }
    for name, line in wrong.items():
        data = JSON[0] + line + b"\n" + JSON[2]
        yield Case(f"json: {name}", "jsonl", data, (TEXTS[0], TEXTS[2]), 1)


def table(**settings: Any) -> bytes:
    buffer = io.BytesIO()
    made = pa.table({"text": list(TEXTS)})
    pq.write_table(made, buffer, row_group_size=1, write_page_checksum=True, **settings)
    return buffer.getvalue()


def _tables() -> Iterator[Case]:
    whole = table(use_dictionary=False)
    yield Case("parquet: no footer", "parquet", whole[:-8], (), 1)
    yield Case("parquet: no magic", "parquet", whole[:-4] + b"NOPE", (), 1)
    yield Case("parquet: footer size", "parquet", whole[:-8] + b"\xff\xff\xff\x7fPAR1", (), 1)
    yield Case("parquet: magic only", "parquet", b"PAR1PAR1", (), 1)
    yield Case("parquet: garbage", "parquet", b"garbage" * 99, (), 1)
    facts = pq.read_metadata(io.BytesIO(whole)).row_group(1).column(0)
    end = facts.data_page_offset + facts.total_compressed_size
    page = whole[: end - 5] + b"\xff\xff" + whole[end - 3 :]
    yield Case("parquet: page", "parquet", page, (TEXTS[0], TEXTS[2]), 1)
    yield Case("parquet: other column", "parquet", whole, (), 3, {"text_field": "nothing"})
    size = struct.unpack("<I", whole[-8:-4])[0]
    for place in range(len(whole) - 8 - size, len(whole) - 8, 97):
        footer = whole[:place] + b"\xff" * 40 + whole[place + 40 :]
        yield Case(f"parquet: footer at {place}", "parquet", footer)
    numbers = io.BytesIO()
    pq.write_table(pa.table({"text": [1, 2]}), numbers)
    yield Case("parquet: numbers", "parquet", numbers.getvalue(), (), 2)


def _streams() -> Iterator[Case]:
    """Archives within archives and types that are not what the name says."""
    yield Case("html as warc", "warc", b"<html><p>no archive", (), 1)
    yield Case("warc as jsonl", "jsonl", warc("x"), ())
    yield Case("jsonl as parquet", "parquet", b"".join(JSON), (), 1)
    yield Case("zip as jsonl", "jsonl", zipped({"a": b"x"}), (), 1)
    yield Case("gzip in gzip", "jsonl", gzip.compress(gzip.compress(JSON[0])))
    yield Case("gzip of nothing", "warc", gzip.compress(b""), (), 1)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _zips() -> Iterator[Case]:
    good = {"a.html": b"<p>" + TEXTS[0].encode()}
    for name in ("../x.html", "/etc/x.html", "a/../../x.html", "C:\\x.html", "..\\x.html"):
        yield Case(f"zip: {name}", "html", zipped({**good, name: b"<p>x"}), TEXTS[:1], 1)
    two = zipped({**good, "b.html": b"<p>" + TEXTS[1].encode()})
    yield Case("zip: no directory", "html", two[: len(two) // 2], (), 1)
    yield Case("zip: end only", "html", b"PK\x05\x06" + bytes(18), (), 1)
    yield Case("zip: no pages", "html", zipped({"a.png": b"x"}), (), 1)
    yield Case("zip: empty page", "html", zipped({**good, "b.html": b""}), TEXTS[:1], 1)
    yield Case("zip: bzip2", "html", zipped({"b.html": b"<p>x" * 9}, zipfile.ZIP_BZIP2), (), 1)
    yield Case("zip: bomb", "html", zipped({**good, "b.html": bytes(30 << 20)}), TEXTS[:1], 1)
    crc = struct.pack("<I", zlib.crc32(b"<p>" + TEXTS[1].encode()))
    yield Case("zip: checksum", "html", two.replace(crc, b"\1\2\3\4"), TEXTS[:1], 1)
    place = two.rindex(b"PK\x01\x02")
    encrypted = two[: place + 8] + b"\x01" + two[place + 9 :]
    yield Case("zip: encrypted", "html", encrypted, TEXTS[:1], 1)
    shared = two[: place + 42] + bytes(4) + two[place + 46 :]
    yield Case("zip: shared bytes", "html", shared, (), None)
    directory = two[:-10] + b"\xff\xff\xff\x7f" + two[-6:]
    yield Case("zip: huge directory", "html", directory, (), 1)


def _cut_others() -> Iterator[Case]:
    whole, archive = table(), zipped({"a.html": b"<p>" + TEXTS[0].encode()})
    for percent in range(1, 100, 3):
        cut = whole[: len(whole) * percent // 100]
        yield Case(f"parquet cut at {percent} %", "parquet", cut, (), 1)
        if percent > 20:
            cut = archive[: len(archive) * percent // 100]
            yield Case(f"zip cut at {percent} %", "html", cut, (), 1)
