"""Every parser of the corpus engine against damaged input: no crash, no hang, no half-read range.

    python benchmarks/fuzz_parsers.py --minutes 10 [--only jsonl.gz] [--seed 0]

Small healthy files of each format are damaged at random (bytes, lengths, cuts, splices; what is compressed is damaged
before or behind compression) and read, whole and by ranges, which must give the same. Each parser runs for the given
minutes in a process of its own with a limit on memory; an exception, a signal, more than HANG_SECONDS for one input or
ranges that differ from the whole end that process, are written down with the seed, and a new one goes on behind it.
Writes `benchmarks/results/fuzz_parsers.txt` and `.json`, and fails when anything was found.
"""

import argparse
import faulthandler
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pydantic
from measure import RESULTS, ROOT, conclude, of_the_tests

from data_prep.extract import extract
from data_prep.sources import FAULT_REASONS, SKIP_REASONS, Fault, FileRange, InputSource, Page

malformed = of_the_tests("malformed")
SOURCE = pydantic.TypeAdapter(InputSource)
HANG_SECONDS = 20
MEMORY_BYTES = 4 << 30
MAX_FINDINGS = 20
PARSERS = (
    "warc", "warc.gz", "warc.zst", "jsonl", "jsonl.gz", "jsonl.zst", "line", "paragraph",
    "text.gz", "zip", "parquet", "datasets", "page", "page.quality",
)  # fmt: skip


def healthy(parser: str) -> bytes:
    """A small file that the parser reads without a fault."""
    kind = parser.partition(".")[0]
    if kind == "warc":
        html = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
        chunked = malformed.warc(
            "x", http=html + b"Transfer-Encoding: chunked\r\n", body=b"6\r\n<html>\r\n0\r\n\r\n"
        )
        return b"\0".join((*map(malformed.warc, malformed.TEXTS), chunked))
    if kind == "zip":
        pages = {f"{n}.html": b"<p>" + text.encode() for n, text in enumerate(malformed.TEXTS)}
        return malformed.zipped(pages)
    if kind == "parquet":
        return malformed.table()
    if kind == "datasets":
        sink = pa.BufferOutputStream()
        table = pa.table({"text": list(malformed.TEXTS), "url": ["a", "b", "c"]})
        with pa.ipc.new_stream(sink, table.schema) as stream:
            for batch in table.to_batches(max_chunksize=1):
                stream.write_batch(batch)
        return sink.getvalue().to_pybytes()
    if kind == "page":
        return (
            b"<!doctype html><html><head><meta charset=utf-8><title>T &amp; t</title></head><body><nav><a href=/>x</a>"
            b"</nav><main><h1>H</h1><p>Some text, and some <b>more</b>.<ul><li>one<li>two</ul><table><tr><td>a<td>b"
            b"</table><script>var a = '<p>';</script><!-- c --><pre>x\n y</pre></main><footer>end</footer></html>"
        )
    return (
        b"".join(malformed.JSON)
        if kind == "jsonl"
        else b"one two\nthree\n\nfour five\n\n\nsix\n" * 5
    )


def damaged(data: bytes, draw: random.Random) -> bytes:
    """`data` with up to eight changes."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        place = draw.randrange(len(changed) + 1)
        size = draw.choice((1, 1, 2, 4, 9, 60, 500))
        other = draw.randrange(len(changed) + 1)
        piece = {
            "random": draw.randbytes(size),
            "extreme": draw.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"\r\n", b"<", b"9")) * size,
            "copied": bytes(changed[other : other + size]),
            "cut": b"",
        }
        what = draw.choice((*piece, "end"))
        if what == "end":
            del changed[max(place, len(changed) // 4) :]
        else:
            gone = draw.choice((0, len(piece[what]))) if what != "cut" else size
            changed[place : place + gone] = piece[what]
    return bytes(changed)


def made(parser: str, seed: int) -> bytes:
    """Input number `seed` of a parser."""
    draw = random.Random(f"{parser} {seed}")
    whole = healthy(parser)
    pack = malformed.PACKERS.get(parser.partition(".")[2])
    if parser.startswith("warc"):
        parts = whole.split(b"\0")
        if pack is None or draw.random() < 0.5:
            parts = [damaged(one, draw) if draw.random() < 0.4 else one for one in parts]
        packed = [pack(one) if pack else one for one in parts]
        return b"".join(packed) if pack is None else damaged_some(b"".join(packed), draw)
    if pack is not None:
        inside = damaged(whole, draw) if draw.random() < 0.5 else whole
        return damaged_some(pack(inside), draw)
    return damaged(whole, draw)


def damaged_some(data: bytes, draw: random.Random) -> bytes:
    """`data`, two times of three damaged."""
    return damaged(data, draw) if draw.random() < 0.67 else data


def check(parser: str, path: Path, data: bytes) -> list[str]:
    """Read one input every way; returns the reasons of what was not read."""
    if parser.startswith("page"):
        mode: Any = "quality" if parser == "page.quality" else "main"
        for charset in (None, "utf-8", "shift_jis"):
            extract(Page("u", "", 0, data, charset, is_html=True), mode)
        extract(Page("u", "", 0, data, None, is_html=True), "all")
        return []
    path.write_bytes(data)
    kind = parser.partition(".")[0]
    settings: dict[str, Any] = {"type": kind, "name": "s", "paths": [str(path)]}
    if kind in ("line", "paragraph", "text"):
        settings |= {"type": "text", "documents": kind if kind != "text" else "file"}
    if kind == "zip":
        settings["type"] = "html"
    if kind == "datasets":
        settings = {"type": kind, "name": "s", "folder": str(path.parent)}
    source = SOURCE.validate_python(settings)
    whole = list(source.read(FileRange(str(path), 0, None, len(data))))
    for target in (1 + len(data) // 2, 1 + len(data) // 5):
        ranges = places_of(source, path, target)
        parts = [item for part in ranges for item in source.read(part)]
        assert parts == whole, f"ranges of {target} bytes differ"
    reasons = [item.reason for item in whole if isinstance(item, Fault)]
    assert set(reasons) <= {*FAULT_REASONS, *SKIP_REASONS}, reasons
    for item in whole:
        if isinstance(item, Page):
            extract(item)
            f"{item.url}{item.timestamp}{item.member}".encode()
    return reasons


def places_of(source: Any, path: Path, target: int) -> list[FileRange]:
    """The ranges of one file; of a data set whose folder is none, those of its batches."""
    if source.type != "datasets":
        return list(source.ranges(target))
    return [
        FileRange(str(path), 0, 1, 0),
        FileRange(str(path), 1, 2, 0),
        FileRange(str(path), 2, None, 0),
    ]


def work(parser: str, first: int, seconds: float) -> None:
    """The process of one parser: inputs from number `first` on; says how far it came."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    end, seed, reasons = time.monotonic() + seconds, first, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        # A healthy input first: what is imported on the way shall not count as a hang.
        check(parser, Path(folder) / "input", healthy(parser))
        while time.monotonic() < end:
            print(json.dumps({"seed": seed}), flush=True)
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            reasons.update(check(parser, Path(folder) / "input", made(parser, seed)) or ["none"])
            faulthandler.cancel_dump_traceback_later()
            seed += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seed": seed, "reasons": reasons, "peak_bytes": peak}), flush=True)


def kept_results(again: Sequence[str]) -> dict[str, Any]:
    """What earlier runs found of the parsers that do not run `again`."""
    path = RESULTS / "fuzz_parsers.json"
    earlier = (
        json.loads(path.read_text(encoding="utf-8"))["facts"]["parsers"] if path.exists() else {}
    )
    return {name: figures for name, figures in earlier.items() if name not in again}


def watched(parser: str, first: int, seconds: float) -> dict[str, Any]:
    """Figures and findings of one parser."""
    end, seed, findings = time.monotonic() + seconds, first, []
    figures: dict[str, Any] = {"inputs": 0, "reasons": Counter(), "peak_bytes": 0}
    while time.monotonic() < end and len(findings) < MAX_FINDINGS:
        left = end - time.monotonic()
        command = [sys.executable, __file__, "--child", parser, str(seed), str(left)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        last = json.loads(done.stdout.splitlines()[-1])
        figures["inputs"] += last["seed"] - seed
        figures["reasons"].update(last.get("reasons", {}))
        figures["peak_bytes"] = max(figures["peak_bytes"], last.get("peak_bytes", 0))
        seed = last["seed"]
        if done.returncode:
            how = signal.Signals(-done.returncode).name if done.returncode < 0 else "error"
            findings.append({"seed": seed, "how": how, "said": done.stderr.splitlines()[-6:]})
            seed += 1
    figures["reasons"] = dict(sorted(figures["reasons"].items()))
    return figures | {"findings": findings}


def main() -> int:
    """Run every parser, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for each parser")
    parser.add_argument("--only", choices=PARSERS, nargs="+", default=PARSERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=1, help="parsers side by side")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.child:
        work(said.child[0], int(said.child[1]), float(said.child[2]))
        return 0
    result = kept_results(said.only)
    with ThreadPoolExecutor(said.at_once) as pool:
        runs = {
            name: pool.submit(watched, name, said.seed, said.minutes * 60) for name in said.only
        }
        for name, run in runs.items():
            result[name] = run.result() | {"minutes": said.minutes}
            figures = result[name]
            print(f"{name:13} {figures['inputs']:>9,} inputs, {len(figures['findings'])} findings")
    rows = [("parser", "minutes", "inputs", "with a fault", "peak MB", "findings")]
    for name in filter(result.get, PARSERS):
        figures = result[name]
        faulty = figures["inputs"] - figures["reasons"].get("none", 0)
        peak, found = figures["peak_bytes"] // 10**6, len(figures["findings"])
        rows.append((name, figures["minutes"], figures["inputs"], faulty, peak, found))
    words = f"Damaged inputs, from seed {said.seed} on; several parsers shared the cores."
    facts = {"parsers": result}
    found = any(figures["findings"] for figures in result.values())
    promises = {
        "no crash, no hang, no exception, and ranges that read what the whole reads": not found
    }
    return conclude("fuzz_parsers", words, rows, facts, promises)


if __name__ == "__main__":
    raise SystemExit(main())
