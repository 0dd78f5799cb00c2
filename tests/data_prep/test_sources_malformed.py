"""Malformed input is counted by reason and place, costs nothing around it, and stops nothing."""

import gzip
import io
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import malformed
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
import zstandard

from data_prep.extract import extract
from data_prep.sources import FAULT_REASONS, SKIP_REASONS, Fault, InputSource

SOURCE = pydantic.TypeAdapter(InputSource)
CASES = list(malformed.cases())


def account(path, kind, settings):
    """(texts, reasons) of a file."""
    source = SOURCE.validate_python({"type": kind, "name": "s", "paths": (str(path),), **settings})
    texts, reasons = [], []
    for part in source.ranges(1 << 30):
        for item in source.read(part):
            page = None if isinstance(item, Fault) else extract(item)
            if page is not None and page.is_readable:
                texts.append(" ".join(page.text.split()))
            else:
                reasons.append("undecodable" if page else item.reason)
            assert isinstance(item.record, int)
    return texts, reasons


def test_there_are_many():
    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("kind", sorted({case.type for case in CASES}))
def test_each_is_counted_and_what_is_healthy_around_it_is_read(tmp_path, kind):
    path = tmp_path / "file"
    wrong = []
    for case in CASES:
        if case.type != kind:
            continue
        path.write_bytes(case.data)
        texts, reasons = account(path, kind, case.settings)
        lost = [text for text in case.texts if texts.count(text.strip()) < case.texts.count(text)]
        known = set(reasons) <= {*FAULT_REASONS, *SKIP_REASONS}
        counted = len(reasons) == case.faults if case.faults is not None else reasons
        # Much of a footer decides nothing.
        unharmed = kind == "parquet" and texts == [text.strip() for text in malformed.TEXTS]
        if lost or not known or not (counted or unharmed):
            wrong.append((case.name, reasons, len(texts), lost))
    assert not wrong, wrong


MEGABYTE = 1 << 20
BOMB_RSS_BYTES = 100 * MEGABYTE
RSS_BYTES = 512 * MEGABYTE
BOMB_SECONDS = 2.0


def zeros(pack, size):
    """`size` bytes of zeros, packed as a stream."""
    buffer = io.BytesIO()
    with pack(buffer) as stream:
        for _ in range(size // MEGABYTE):
            stream.write(bytes(MEGABYTE))
    return buffer.getvalue()


def bombs():
    """Name, type and content of files that inflate to a thousand times their size and more."""
    gz = zeros(lambda file: gzip.GzipFile(fileobj=file, mode="wb"), 128 * MEGABYTE)
    zst = zeros(
        lambda file: zstandard.ZstdCompressor().stream_writer(file, closefd=False), 512 * MEGABYTE
    )
    page = malformed.warc("x", length=30 * MEGABYTE) + bytes(30 * MEGABYTE)
    boxed = io.BytesIO()
    with zipfile.ZipFile(boxed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.html", bytes(200 * MEGABYTE))
    table = io.BytesIO()
    pq.write_table(
        pa.table({"text": ["0" * 30 * MEGABYTE] * 8}),
        table,
        use_dictionary=False,
        compression="zstd",
    )
    for kind in ("warc", "jsonl", "text", "html"):
        yield f"{kind} gz", kind, gz
        yield f"{kind} zst", kind, zst
    yield "line gz", "line", gz
    yield "record", "warc", gzip.compress(page)
    yield "zip", "html", boxed.getvalue()
    yield "parquet", "parquet", table.getvalue()


@pytest.mark.slow
def test_a_footer_that_makes_pyarrow_end_the_process_is_three_faults():
    # Found by benchmarks/fuzz_parsers.py: what such a footer says of its columns must not be asked for.
    path = Path(__file__).with_name("damaged_footer.parquet")
    read = (
        "import sys; from data_prep.sources.parquet import ParquetSource as P; "
        "s = P(name='s', paths=(sys.argv[1],)); "
        "print(*[i.reason for r in s.ranges(10**9) for i in s.read(r)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", read, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["damaged_row_group"] * 3


def test_bombs_are_noticed_at_once(tmp_path):
    for name, kind, data in bombs():
        (tmp_path / f"{kind}={name}").write_bytes(data)
    for line in measured(tmp_path):
        name, reasons, seconds, grown = line.split("|")
        assert reasons == "compression_bomb", name
        assert float(seconds) < BOMB_SECONDS, name
        assert int(grown) < BOMB_RSS_BYTES, name


@pytest.mark.slow
def test_lines_of_any_length_take_bounded_memory(tmp_path):
    line = b'{"text": "' + b"x" * 100 * MEGABYTE + b'"}\n'
    values = b'{"text": [' + b"{}," * 3_900_000 + b"{}]}\n"
    (tmp_path / "jsonl=long").write_bytes(malformed.JSON[0] + line + values + malformed.JSON[1])
    (tmp_path / "line=long").write_bytes(b"a b\n" + line + b"c d\n")
    (tmp_path / "paragraph=long").write_bytes(
        b"a b\n\n" + b"x y z x y z x y z x y z x y z\n" * 1_200_000 + b"\nc d\n"
    )
    faults = {"jsonl=long": "too_large,wrong_type", "line=long": "too_large"}
    for line in measured(tmp_path):
        name, reasons, _, grown = line.split("|")
        assert reasons == faults.get(name, "too_large"), name
        assert int(grown) < RSS_BYTES, name


def measured(folder):
    """Reads every file of a folder in a process of its own: name, reasons, seconds, bytes grown."""
    program = "import test_sources_malformed as t; t.read_and_measure()"
    return subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(str(path) for path in sorted(folder.iterdir())),
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


def read_and_measure():
    """The other side of `measured`."""
    rss = peak()
    for path in sys.stdin.read().splitlines():
        kind = path.rpartition("/")[2].partition("=")[0]
        settings = {"documents": kind} if kind in ("line", "paragraph") else {}
        start = time.perf_counter()
        _, reasons = account(path, "text" if settings else kind, settings)
        seconds = time.perf_counter() - start
        name = path.rpartition("/")[2]
        sys.stdout.write(f"{name}|{','.join(reasons)}|{seconds}|{peak() - rss}\n")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
