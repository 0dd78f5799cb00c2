"""How long a corpus of a billion tokens takes to open, what that needs, and how fast its rows are read.

    python benchmarks/token_reader.py [--tokens 1000000000] [--row-length 512]

The quickstart's pages go through the stages `corpus`, `vocab` and `tokens`; their documents, over and over, fill
shards of some 40 million tokens. A fresh process opens them: time and memory (unique set size) are those of opening
and reading one row, without the imports. Then rows are read, as int64 arrays with the lengths of their documents; the
files were written just before, so they are in the page cache.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measure import ROOT, conclude
from pool import PoolWork

from data_prep.corpus import Corpus
from data_prep.documents import parts_of, text_batches
from data_prep.sources import WarcSource
from data_prep.vocab import Vocab
from pipeline.data.shard_file import layout_for, shard_facts, write_shard
from pipeline.data.shards import TokenRows, write_manifest
from pipeline.tokenizer import load_vocabulary

PAGES = ROOT / "data" / "quickstart" / "pages.warc.gz"
VOCAB_SIZE = 6000
SHARD_TOKENS = 40_000_000
RANDOM_ROWS, ROWS_IN_ORDER = 20_000, 200_000
OPEN_SECONDS, OPEN_BYTES, RANDOM_MICROSECONDS, ROWS_A_SECOND = 1.0, 100e6, 50.0, 100_000


def write_tokens(folder: Path, tokens: int, row_length: int) -> Path:
    """A `tokens` folder of about so many tokens."""
    made = {name: folder / name for name in ("corpus", "vocab", "tokens")}
    source = WarcSource(name="manuals", paths=(PAGES.as_posix(),))
    Corpus(inputs=(source,)).run(PoolWork(made["corpus"], {}))
    Vocab(corpus="corpus", size=VOCAB_SIZE).run(PoolWork(made["vocab"], made))
    vocabulary = load_vocabulary(made["vocab"])
    documents = [
        ids
        for part in parts_of(made["corpus"], "train")
        for texts in text_batches(part)
        for ids in vocabulary.encode(texts)
    ]
    size = sum(map(len, documents))
    copies = max(1, min(SHARD_TOKENS, tokens) // size)
    layout = layout_for(vocabulary, row_length, "concatenate")
    first = made["tokens"] / "train" / "shard-00000.arrow"
    repeated = itertools.chain.from_iterable(itertools.repeat(documents, copies))
    write_shard(first, [(0, repeated)], layout)
    facts = [shard_facts(first)]
    while sum(fact["tokens"] for fact in facts) < tokens:
        name = f"train/shard-{len(facts):05d}.arrow"
        shutil.copyfile(first, made["tokens"] / name)
        facts.append(facts[0] | {"file": name})
    shards = {"train": facts, "validation": []}
    sources = {"manuals": 1.0}
    write_manifest(
        made["tokens"], vocabulary=vocabulary, layout=layout, sources=sources, shards=shards
    )
    return made["tokens"]


def read(folder: Path) -> dict[str, Any]:
    """Open and read, in this process, which has done nothing else."""
    process = psutil.Process()
    before = process.memory_full_info().uss
    began = time.perf_counter()
    rows = TokenRows(folder, "train")
    rows.row(0)
    opened = time.perf_counter() - began
    memory = process.memory_full_info().uss - before
    chosen = np.random.default_rng(0).integers(len(rows), size=RANDOM_ROWS).tolist()
    taken = []
    for index in chosen:
        began = time.perf_counter()
        rows.row(index)
        taken.append(time.perf_counter() - began)
    count = min(ROWS_IN_ORDER, len(rows))
    began = time.process_time()
    for index in range(count):
        rows.row(index)
    in_order = time.process_time() - began
    return {
        "rows": len(rows),
        "row_length": rows.row_length,
        "open_seconds": opened,
        "open_bytes": memory,
        "random_row_mean_microseconds": float(np.mean(taken)) * 1e6,
        "random_row_median_microseconds": float(np.median(taken)) * 1e6,
        "random_row_99th_percentile_microseconds": float(np.percentile(taken, 99)) * 1e6,
        "rows_a_second_in_order": count / in_order,
    }


def main() -> int:
    """Write, read in another process, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000_000)
    parser.add_argument("--row-length", type=int, default=512)
    parser.add_argument("--read", type=Path, help="only open and read this folder; prints JSON")
    options = parser.parse_args()
    if options.read is not None:
        print(json.dumps(read(options.read)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = write_tokens(Path(name), options.tokens, options.row_length)
        command = [sys.executable, __file__, "--read", str(folder)]
        facts = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    train = manifest["splits"]["train"]
    facts |= {"tokens": train["tokens"], "shards": len(train["shards"])}
    mean, pace = facts["random_row_mean_microseconds"], facts["rows_a_second_in_order"]
    rows = [
        ("", "measured", "at most"),
        ("opening, seconds", f"{facts['open_seconds']:.3f}", OPEN_SECONDS),
        ("opening, MB", f"{facts['open_bytes'] / 1e6:.1f}", f"{OPEN_BYTES / 1e6:.0f}"),
        ("a random row, mean µs", f"{mean:.1f}", f"{RANDOM_MICROSECONDS:.0f}"),
        ("in order, µs a row", f"{1e6 / pace:.1f}", f"{1e6 / ROWS_A_SECOND:.0f}"),
    ]
    promises = {
        "opens in under a second": facts["open_seconds"] < OPEN_SECONDS,
        "with under 100 MB": facts["open_bytes"] < OPEN_BYTES,
        "a random row in under 50 µs": mean < RANDOM_MICROSECONDS,
        "100,000 rows a second in order": pace >= ROWS_A_SECOND,
    }
    words = (
        f"{facts['tokens']:,} tokens in {facts['rows']:,} rows of {facts['row_length']}, "
        f"{facts['shards']} shards: a random row takes {mean:.1f} µs, and {pace:,.0f} rows a second "
        "are read in order by one core."
    )
    return conclude("token_reader", words, rows, facts, promises)


if __name__ == "__main__":
    raise SystemExit(main())
