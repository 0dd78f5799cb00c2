"""Every output document can be found again in the file and at the record that it names."""

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fastwarc.warc import ArchiveIterator
from workers import Workers

from data_prep.corpus import Corpus
from pipeline.config import build_from

PAGES = Path(__file__).parents[2] / "data/quickstart/pages.warc.gz"
LINES = "Alpha {n} begins the story here. Beta {n} goes on a little. Gamma {n} brings it to an end."


def documents_of(folder, source, unit_bytes=1 << 12):
    stage = build_from(Corpus, {"inputs": [{"name": "s", **source}], "unit_bytes": unit_bytes})
    stage.run(Workers(folder))
    parts = sorted(folder.glob("*/part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_a_page_of_an_archive_is_at_its_byte(tmp_path):
    cut = tmp_path / "pages.warc.gz"
    cut.write_bytes(PAGES.read_bytes()[:600_000])
    rows = documents_of(tmp_path / "out", {"type": "warc", "paths": [str(cut)]}, 1 << 18)
    assert len(rows) > 30
    for row in rows:
        with Path(row["file"]).open("rb") as file:
            file.seek(row["record"])
            record = next(iter(ArchiveIterator(file)))
            assert record.headers["WARC-Target-URI"].strip("<>") == row["url"]
            body = record.reader.read().decode("utf-8", "replace")
        assert row["text"].split("\n")[0].split()[0] in body


def test_a_row_of_a_table_and_a_line_of_a_file_are_at_their_number(tmp_path):
    texts = [LINES.format(n=n) for n in range(40)]
    plain, packed, table = (tmp_path / name for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"))
    lines = [
        json.dumps({"text": text, "url": f"https://a.example/{n}"}) for n, text in enumerate(texts)
    ]
    plain.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with gzip.open(packed, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    urls = [f"https://a.example/{n}" for n in range(40)]
    pq.write_table(pa.table({"text": texts, "url": urls}), table, row_group_size=7)
    for row in documents_of(tmp_path / "plain", {"type": "jsonl", "paths": [str(plain)]}):
        with Path(row["file"]).open("rb") as file:
            file.seek(row["record"])
            assert json.loads(file.readline())["text"] == row["text"]
    found = documents_of(tmp_path / "packed", {"type": "jsonl", "paths": [str(packed)]})
    assert sorted(row["text"] for row in found) == sorted(texts)
    for row in documents_of(tmp_path / "table", {"type": "parquet", "paths": [str(table)]}):
        assert texts[row["record"]] == row["text"]


def test_a_file_inside_an_archive_is_named(tmp_path):
    archive = tmp_path / "site.zip"
    pages = {
        f"d/{n}.html": f"<html><body><p>{LINES.format(n=n)}</p></body></html>" for n in range(9)
    }
    with zipfile.ZipFile(archive, "w") as file:
        for name, page in pages.items():
            file.writestr(name, page)
    rows = documents_of(tmp_path / "out", {"type": "html", "paths": [str(archive)]})
    assert len(rows) == 9
    for row in rows:
        path, _, member = row["file"].partition("!")
        with zipfile.ZipFile(path) as file:
            assert row["text"] in file.read(member).decode()
