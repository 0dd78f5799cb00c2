"""Reading archives: nothing that is missing or damaged may pass unnoticed."""

import gzip
import io
import itertools
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_prep.sources import Fault, Page, WarcSource, read_archive
from data_prep.sources.records import LOOK_BACK_BYTES

HTML = [("Content-Type", "text/html; charset=utf-8")]
DATE = "2024-02-03T04:05:06Z"


def record(
    body, *, url="http://a.example/", status="200 OK", headers=HTML, kind="response", gz=True
):
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=gz)
    http = StatusAndHeaders(status, headers, protocol="HTTP/1.1") if kind == "response" else None
    writer.write_record(
        writer.create_warc_record(
            url,
            kind,
            payload=io.BytesIO(body),
            http_headers=http,
            warc_content_type="" if http else "text/plain",
            warc_headers_dict={"WARC-Date": DATE, "WARC-Record-ID": "<urn:uuid:1>"},
        )
    )
    return buffer.getvalue()


def read(tmp_path, data, name="a.warc.gz"):
    path = tmp_path / name
    path.write_bytes(data)
    return list(read_archive(path))


def bodies(items):
    return [item.body for item in items if isinstance(item, Page)]


def faults(items):
    return [item.reason for item in items if isinstance(item, Fault)]


def three(gz=True):
    return [
        record(b"<html>%d</html>" % n * 5, url=f"http://a.example/{n}", gz=gz) for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("gz", [True, False])
def test_pages_come_with_address_date_and_offset(tmp_path, gz):
    records = [record(b"x", kind="warcinfo", gz=gz), *three(gz)]
    pages = read(tmp_path, b"".join(records))
    assert [page.url for page in pages] == [f"http://a.example/{n}" for n in (1, 2, 3)]
    assert [page.record for page in pages] == [
        sum(map(len, records[:n])) for n in range(1, len(records))
    ]
    assert {(page.timestamp, page.charset, page.is_html) for page in pages} == {
        (DATE, "utf-8", True)
    }


@pytest.mark.parametrize("gz", [True, False])
def test_a_file_cut_at_any_byte_is_noticed(tmp_path, gz):
    records = three(gz)
    data, whole = b"".join(records), bodies(read(tmp_path, b"".join(three(gz))))
    ends = [sum(map(len, records[:n])) for n in range(4)]
    for cut in range(1, len(data)):
        items = read(tmp_path, data[:cut])
        complete = sum(end <= cut for end in ends[1:])
        assert bodies(items)[:complete] == whole[:complete], cut
        if gz and cut not in ends:
            assert len(faults(items)) == 1, cut
            assert faults(items)[0] in ("truncated_record", "damaged_stretch")
        elif cut not in ends:
            # A cut in the blank lines behind a plain record takes nothing away.
            blank = any(end - len(b"\r\n\r\n") <= cut < end for end in ends[1:])
            assert len(bodies(items)) == complete + blank, cut
            assert len(faults(items)) == (0 if blank else 1), cut


@pytest.mark.parametrize("gz", [True, False])
def test_a_flipped_byte_costs_at_most_its_record_and_is_noticed(tmp_path, gz):
    records = three(gz)
    whole = bodies(read(tmp_path, b"".join(records)))
    for place in range(0, len(records[1]), 1 if gz else 7):
        damaged = bytearray(records[1])
        damaged[place] ^= 0x55
        items = read(tmp_path, records[0] + bytes(damaged) + records[2])
        assert bodies(items)[0] == whole[0]
        if gz:
            assert bodies(items)[-1] == whole[2], place
            assert bodies(items) == whole or faults(items) == ["damaged_stretch"], place


def test_garbage_between_records_is_one_damaged_stretch(tmp_path):
    for gz in (True, False):
        records = three(gz)
        items = read(tmp_path, b"garbage\r\n".join(records))
        assert len(bodies(items)) == 3
        assert faults(items) == ["damaged_stretch"] * 2


def test_records_that_share_one_gzip_member_are_read_and_a_cut_is_noticed(tmp_path):
    data = gzip.compress(b"".join(three(gz=False)))
    assert len(bodies(read(tmp_path, data))) == 3
    for cut in range(20, len(data)):
        assert len(faults(read(tmp_path, data[:cut]))) == 1, cut


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "404 Not Found"}, "http_status"),
        ({"headers": [("Content-Type", "image/png")]}, "not_html"),
        ({"headers": []}, "not_html"),
        (
            {"headers": [*HTML, ("Content-Encoding", "gzip")], "body": gzip.compress(b"x")[:-3]},
            "undecodable",
        ),
        ({"headers": [*HTML, ("Content-Encoding", "rot13")]}, "undecodable"),
        ({"headers": [*HTML, ("Transfer-Encoding", "chunked")], "body": b"zz\r\nx"}, "undecodable"),
        ({"body": bytes(33 << 20)}, "compression_bomb"),
        ({"body": bytes(33 << 20), "gz": False}, "too_large"),
        (
            {
                "headers": [*HTML, ("Content-Encoding", "gzip")],
                "body": gzip.compress(bytes(33 << 20)),
            },
            "too_large",
        ),
    ],
)
def test_what_is_no_page_is_counted_by_reason(tmp_path, changes, reason):
    good = record(b"<html>good", gz=changes.get("gz", True))
    items = read(tmp_path, record(**{"body": b"plain", **changes}) + good)
    assert faults(items) == [reason]
    assert bodies(items) == [b"<html>good"]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (("Content-Encoding", "gzip"), gzip.compress(b"<html>x")),
        (("Content-Encoding", "gzip"), b"<html>x"),
        (("Content-Encoding", "deflate"), zlib.compress(b"<html>x")),
        (("Transfer-Encoding", "chunked"), b"7\r\n<html>x\r\n0\r\n\r\n"),
    ],
)
def test_encoded_bodies_are_decoded(tmp_path, encoding, body):
    assert bodies(read(tmp_path, record(body, headers=[*HTML, encoding]))) == [b"<html>x"]


def test_extracted_text_of_a_crawl_is_read_as_text(tmp_path):
    (page,) = read(tmp_path, record("naïve".encode(), kind="conversion"))
    assert (page.body, page.charset, page.is_html) == ("naïve".encode(), "utf-8", False)


def test_angle_brackets_of_wget_and_odd_dates(tmp_path):
    plain = record(b"<html>x", url="<http://b.example/p>", gz=False)
    assert read(tmp_path, plain)[0].url == "http://b.example/p"
    assert (
        read(tmp_path, plain.replace(DATE.encode(), b"2024-02-03T05:05:06.5+01:00"))[0].timestamp
        == DATE
    )
    assert read(tmp_path, plain.replace(DATE.encode(), b"yesterday"))[0].timestamp == ""


def test_a_file_without_records_is_noticed(tmp_path):
    assert faults(read(tmp_path, b"")) == ["empty_file"]
    assert faults(read(tmp_path, b"no archive at all\r\n" * 9)) == ["damaged_stretch"]


def zstd(parts, dictionary=None):
    known = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return [zstandard.ZstdCompressor(dict_data=known).compress(part) for part in parts]


def skippable(dictionary):
    return b"\x5d\x2a\x4d\x18" + len(dictionary).to_bytes(4, "little") + dictionary


def seven(kind):
    """Seven records of different sizes, stored one after the other."""
    made = [
        record(b"<html>" + b"%d " % n * n**4, url=f"http://a.example/{n}", gz=kind == "gz")
        for n in range(1, 8)
    ]
    return zstd(made) if kind == "zst" else made


@pytest.mark.parametrize("kind", ["gz", "plain", "zst"])
def test_ranges_of_any_size_read_what_the_whole_file_reads(tmp_path, kind):
    parts = seven(kind)
    parts[2:2] = [b"garbage\r\n"]
    parts[5] = parts[5][:-9] + b"\xff" + parts[5][-8:]
    data = b"".join(parts)
    whole = read(tmp_path, data)
    # Nothing but a checksum can tell a changed letter in the middle of a page.
    assert (len(bodies(whole)), len(faults(whole))) == ((7, 1) if kind == "plain" else (6, 2))
    source = WarcSource(name="w", paths=(f"{tmp_path}/a.warc.gz",))
    for target in (19, 120, 500, 700, 1100, len(data) // 2):
        ranges = source.ranges(target)
        assert (ranges[0].first, ranges[-1].end) == (0, None)
        assert all(a.end == b.first for a, b in itertools.pairwise(ranges))
        assert sum(part.bytes for part in ranges) == len(data)
        assert [item for part in ranges for item in source.read(part)] == whole, target


@pytest.mark.parametrize("kind", ["gz", "plain"])
def test_an_archive_inside_a_page_is_not_taken_for_records(tmp_path, kind):
    # Bytes that cannot be compressed stand in a gzip member as they are.
    inner = b"".join(seven(kind)) + np.random.default_rng(0).bytes(50_000)
    outer = record(b"<html>" + inner, url="http://a.example/outer", gz=kind == "gz")
    data = outer + record(b"<html>after", gz=kind == "gz")
    assert len(data) < LOOK_BACK_BYTES
    assert len(bodies(read(tmp_path, data))) == 2
    source = WarcSource(name="w", paths=(f"{tmp_path}/a.warc.gz",))
    for target in (500, 5_000, 20_000):
        items = [item for part in source.ranges(target) for item in source.read(part)]
        assert [item.url for item in items] == ["http://a.example/outer", "http://a.example/"]


def test_zstd_archives_with_and_without_a_dictionary(tmp_path):
    parts = seven("plain")
    whole = bodies(read(tmp_path, b"".join(parts)))
    dictionary = b"".join(parts)[:2000]
    for data in (
        b"".join(zstd(parts)),
        b"".join([skippable(dictionary), *zstd(parts, dictionary)]),
        b"".join([skippable(*zstd([dictionary])), *zstd(parts, dictionary)]),
    ):
        assert bodies(read(tmp_path, data)) == whole
        for cut in range(len(data) - 300, len(data), 13):
            assert len(faults(read(tmp_path, data[:cut]))) == 1, cut


@pytest.mark.parametrize("change", [-9, -1, 9, 10**6, 10**15])
def test_a_wrong_length_costs_its_record_only(tmp_path, change):
    for gz in (True, False):
        records = three(gz=False)
        length = int(re.search(rb"Content-Length: (\d+)", records[1])[1])
        records[1] = records[1].replace(b"%d\r\n" % length, b"%d\r\n" % (length + change), 1)
        data = b"".join(gzip.compress(one) if gz else one for one in records)
        items = read(tmp_path, data)
        assert [type(item) for item in items] == [Page, Fault, Page], (gz, items)
        assert items[1].reason in ("wrong_length", "damaged_stretch")


def test_the_same_records_as_another_reader():
    path = Path("data/quickstart/pages.warc.gz")
    with path.open("rb") as file:
        theirs = {
            (one.stream_pos, one.reader.read())
            for one in ArchiveIterator(file, record_types=WarcRecordType.response)
            if one.http_headers.status_code == 200
        }
    mine = {(page.record, page.body) for page in read_archive(path) if isinstance(page, Page)}
    assert len(mine) > 500
    assert mine <= theirs
