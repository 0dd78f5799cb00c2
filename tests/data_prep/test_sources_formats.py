"""Formats other than archives: every document once, whatever the cuts."""

import datetime
import gzip
import itertools
import json
import zipfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
import zstandard

from data_prep.sources import Fault, InputSource, Page
from pipeline.config import DataError

SOURCE = pydantic.TypeAdapter(InputSource)
ROWS = [
    {"text": f"Text {n} – ü" + "x" * n**3, "url": f"http://a/{n}", "timestamp": "2020-01-02"}
    for n in range(12)
]
DATE = "2020-01-02T00:00:00Z"


def source(kind, **settings):
    return SOURCE.validate_python({"type": kind, "name": "s", **settings})


def items_of(config, target_bytes=1 << 30):
    ranges = config.ranges(target_bytes)
    assert ranges == sorted(ranges, key=lambda part: (part.path, part.first))
    return [item for part in ranges for item in config.read(part)]


def texts(items):
    return [item.body.decode() for item in items if isinstance(item, Page)]


def faults(items):
    return [item.reason for item in items if isinstance(item, Fault)]


def test_text_files(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"two")
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "c.txt").write_bytes(b"")
    (tmp_path / "d.txt").write_bytes(gzip.compress(b"fo") + gzip.compress(b"ur"))
    paths = (f"{tmp_path}/*.txt", f"{tmp_path}/a.*")
    items = items_of(source("text", paths=paths))
    assert texts(items) == ["one", "two", "four"]
    assert items[0].url == f"s/{tmp_path}/a.txt"
    assert faults(items) == ["empty_file"]


@pytest.mark.parametrize("documents", ["line", "paragraph"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_and_paragraphs_whatever_the_cuts(tmp_path, documents, end):
    blocks = [f"p{n} one{end}p{n} two{end}" + f"p{n} three{end}" * (n % 4) for n in range(9)]
    data = (end + end * 2).join(blocks) + f" {end}  {end}last"
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbf" + data.encode())
    if documents == "line":
        expected = [line for line in data.split(end) if line.strip()]
    else:
        expected = [block.strip().replace(end, "\n") for block in blocks] + ["last"]
    config = source("text", paths=(f"{tmp_path}/t",), documents=documents)
    whole = items_of(config)
    assert [text.strip() for text in texts(whole)] == expected
    for target in range(1, len(data), 3):
        assert items_of(config, target) == whole, target
    for pack in (gzip.compress, zstandard.ZstdCompressor().compress):
        (tmp_path / "t").write_bytes(pack(b"\xef\xbb\xbf" + data.encode()))
        assert items_of(config, 10) == whole


def test_a_long_paragraph_is_found_from_its_beginning_only(tmp_path):
    # Longer than what is looked back over, and without any line end.
    data = b"a b\n\n" + b"c" * 200_000 + b"\nd\n\ne f\n"
    (tmp_path / "t").write_bytes(data)
    config = source("text", paths=(f"{tmp_path}/t",), documents="paragraph")
    whole = items_of(config)
    assert [len(item.body) for item in whole] == [3, 200_002, 3]
    assert all(items_of(config, target) == whole for target in (9_000, 70_000, 99_999))


def test_json_lines_whatever_the_cuts(tmp_path):
    data = "".join(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n" for n, row in enumerate(ROWS))
    (tmp_path / "t").write_text(data)
    config = source("jsonl", paths=(f"{tmp_path}/t",))
    whole = items_of(config)
    assert texts(whole) == [row["text"] for row in ROWS]
    assert [item.url for item in whole] == [row["url"] for row in ROWS]
    assert {item.timestamp for item in whole} == {DATE}
    for item, row in zip(whole, ROWS, strict=True):
        assert json.loads(data.encode()[item.record :].splitlines()[0]) == row
    for target in range(1, len(data), 101):
        assert items_of(config, target) == whole, target
    for pack in (gzip.compress, zstandard.ZstdCompressor().compress):
        (tmp_path / "t").write_bytes(pack(data.encode()))
        assert items_of(config, 10) == whole


def test_fields_of_json_lines(tmp_path):
    rows = [
        {"meta": {"at": 86_400}, "page": "<p>ü", "id": "u"},
        {"meta": {}, "page": "x", "id": "u"},
        {"meta": 1, "page": "x", "id": 3},
        {"page": ["x"], "id": "u", "meta": {"at": None}},
        {"page": "\ud800 alone \udcff", "id": "\ud800", "meta": {"at": 1e300}},
    ]
    (tmp_path / "t").write_text("\n".join(map(json.dumps, [*rows, [], None])) + '\n{"page')
    config = source(
        "jsonl",
        paths=(f"{tmp_path}/t",),
        html_field="page",
        url_field="id",
        timestamp_field="meta.at",
    )
    items = items_of(config)
    assert items[0] == Page("u", "1970-01-02T00:00:00Z", 0, "<p>ü".encode(), "utf-8", is_html=True)
    assert faults(items) == [
        "missing_field",
        "wrong_type",
        "wrong_type",
        "bad_json",
        "bad_json",
        "bad_json",
    ]
    assert (items[4].url, items[4].timestamp) == ("?", "")


def test_a_row_without_address_has_that_of_its_place(tmp_path):
    (tmp_path / "t").write_text('{"text": "a"}\n{"text": "b"}\n')
    items = items_of(source("jsonl", paths=(f"{tmp_path}/t",)))
    assert [item.url for item in items] == [f"s/{tmp_path}/t#{n}" for n in (0, 14)]


@pytest.mark.parametrize("version", ["1.0", "2.6"])
def test_parquet_whatever_the_cuts(tmp_path, version):
    moment = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
    rows = [{**row, "timestamp": moment, "other": 1} for row in ROWS]
    for name in ("a", "b"):
        pq.write_table(
            pa.Table.from_pylist(rows), tmp_path / name, row_group_size=5, version=version
        )
    config = source("parquet", paths=(f"{tmp_path}/[ab]",))
    whole = items_of(config)
    assert texts(whole) == [row["text"] for row in ROWS] * 2
    assert [item.record for item in whole] == [*range(12)] * 2
    assert {item.timestamp for item in whole} == {DATE}
    assert len(config.ranges(1)) == 6
    assert items_of(config, 1) == items_of(config, 700) == whole


def test_parquet_columns_of_other_types(tmp_path):
    kinds = {
        "large": pa.array(["a", None], pa.large_string()),
        "category": pa.array(["a", "b"]).dictionary_encode(),
        "bytes": pa.array([b"a", b"\xff"]),
        "number": pa.array([1, 2]),
        "broken": pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"]).buffers()),
    }
    pq.write_table(pa.table(kinds), tmp_path / "t")
    read = {
        name: items_of(source("parquet", paths=(f"{tmp_path}/t",), text_field=name))
        for name in [*kinds, "none"]
    }
    assert texts(read["large"]) == ["a"]
    assert faults(read["large"]) == ["wrong_type"]
    assert texts(read["category"]) == ["a", "b"]
    assert [item.body for item in read["bytes"]] == [item.body for item in read["broken"]]
    assert faults(read["number"]) == ["wrong_type"] * 2
    assert faults(read["none"]) == ["missing_field"]


def test_a_saved_data_set_whatever_the_cuts(tmp_path):
    made = datasets.Dataset.from_list([{**row, "n": n} for n, row in enumerate(ROWS)])
    made.select(range(11, -1, -1)).save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict(train=made, test=made.select([3])).save_to_disk(tmp_path / "all")
    config = source("datasets", folder=str(tmp_path / "one"))
    whole = items_of(config)
    assert texts(whole) == [row["text"] for row in reversed(ROWS)]
    assert items_of(config, 1) == whole
    assert texts(items_of(source("datasets", folder=f"{tmp_path}/all", split="test"))) == [
        ROWS[3]["text"]
    ]
    with pytest.raises(DataError, match=r"no split 'dev', only train, test"):
        source("datasets", folder=f"{tmp_path}/all", split="dev").files()
    with pytest.raises(DataError, match=r"no folder that `save_to_disk` wrote"):
        source("datasets", folder=f"{tmp_path}").files()


def test_a_data_set_by_name_is_streamed_by_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    for number in range(3):
        part = ROWS[number * 4 : number * 4 + 4]
        (tmp_path / "data" / f"{number}.jsonl").write_text("\n".join(map(json.dumps, part)))
    config = source("datasets", dataset=f"{tmp_path}/data", revision="abc")
    ranges = config.ranges(1)
    assert [(part.first, part.end) for part in ranges] == [(0, 1), (1, 2), (2, 3)]
    assert texts([item for part in ranges for item in config.read(part)]) == [
        row["text"] for row in ROWS
    ]
    assert config.files() == []


CANONICAL = b"""<html><head><link href='https://b.example/x?a=1&amp;b=2' rel=Canonical>
<meta property="article:published_time" content="2020-01-02T00:00:00+00:00"></head>"""


def test_trees_and_zips_of_pages(tmp_path):
    (tmp_path / "t/deep").mkdir(parents=True)
    (tmp_path / "t/a.HTML").write_bytes(CANONICAL)
    (tmp_path / "t/deep/b.htm").write_bytes(b"<p>b")
    (tmp_path / "t/deep/c.css").write_bytes(b"c")
    with zipfile.ZipFile(tmp_path / "t/z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("1.html", "x/2.xhtml", "3.png", "4.htm"):
            archive.writestr(name, f"<p>{name}" * 9)
    config = source("html", paths=(f"{tmp_path}/t",))
    whole = items_of(config)
    assert [item.url.removeprefix(f"s/{tmp_path}/t/") for item in whole] == [
        "a.HTML",
        "deep/b.htm",
        "z.zip!1.html",
        "z.zip!x/2.xhtml",
        "z.zip!4.htm",
    ]
    assert [item.member for item in whole] == ["", "", "1.html", "x/2.xhtml", "4.htm"]
    assert [item.timestamp for item in whole] == [DATE, "", "", "", ""]
    assert all(items_of(config, target) == whole for target in (1, 50, 300))
    named = source("html", paths=(f"{tmp_path}/t/*.HTML",), url="canonical")
    assert items_of(named)[0].url == "https://b.example/x?a=1&b=2"
    based = source("html", paths=(f"{tmp_path}/t/z.zip",), base_url="https://d/")
    assert items_of(based)[1].url == "https://d/x/2.xhtml"


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("jsonl", {"paths": ("a",), "text_field": "a", "html_field": "b"}, "both given"),
        ("text", {"paths": ("a",), "charset": "klingon"}, "'klingon' is no character set"),
        ("text", {"paths": ("a",), "charset": "rot13"}, "'rot13' is no character set"),
        ("datasets", {"dataset": "a/b"}, "needs its revision"),
        ("datasets", {"dataset": "a", "folder": "b"}, "either folder"),
        ("datasets", {"folder": "b", "revision": "c"}, "belong to a dataset of the hub"),
        ("warc", {"paths": ("a",), "weight": 0}, "greater than 0"),
        ("warc", {"paths": ()}, "at least 1 item"),
    ],
)
def test_what_contradicts_itself_is_refused(kind, settings, words):
    with pytest.raises(pydantic.ValidationError, match=words):
        source(kind, **settings)


def test_what_is_left_in_a_range_is_read_whatever_lies_before(tmp_path):
    # One damaged row group or batch costs that one only.
    pq.write_table(
        pa.Table.from_pylist(ROWS),
        tmp_path / "t",
        row_group_size=4,
        use_dictionary=False,
        write_page_checksum=True,
    )
    facts = pq.read_metadata(tmp_path / "t").row_group(1).column(0)
    data = bytearray((tmp_path / "t").read_bytes())
    data[facts.data_page_offset + facts.total_compressed_size - 20] ^= 0xFF
    (tmp_path / "t").write_bytes(data)
    config = source("parquet", paths=(f"{tmp_path}/t",))
    whole = items_of(config)
    assert texts(whole) == [row["text"] for row in [*ROWS[:4], *ROWS[8:]]]
    assert [item.record for item in whole if isinstance(item, Fault)] == [4]
    assert items_of(config, 1) == whole
    assert (tmp_path / "t").stat().st_size == sum(part.bytes for part in config.ranges(1))
    assert all(a.end == b.first for a, b in itertools.pairwise(config.ranges(1)))
