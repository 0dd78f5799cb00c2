"""Reading archives: nothing that is missing or damaged may pass unnoticed."""

import gzip
import io
import zlib

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_prep.sources import Fault, Page, TextSource, WarcSource, files_of, read_archive
from pipeline.config import DataError

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
        ({"body": bytes(33 << 20)}, "too_large"),
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
    good = record(b"<html>good")
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


def test_text_files(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"two")
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "c.txt").write_bytes(b"")
    source = TextSource(name="t", paths=(f"{tmp_path}/*.txt", f"{tmp_path}/a.*"))
    paths = files_of(source)
    assert [path.name for path in paths] == ["a.txt", "b.txt", "c.txt"]
    items = [item for path in paths for item in source.read(path)]
    assert bodies(items) == [b"one", b"two"]
    assert items[0].url == f"t/{tmp_path}/a.txt"
    assert faults(items) == ["empty_file"]


def test_a_glob_without_files_is_named():
    with pytest.raises(DataError, match=r"source 'w': no file matches 'nowhere/\*\.warc'"):
        files_of(WarcSource(name="w", paths=("nowhere/*.warc",)))


def test_a_folder_and_a_glob_without_files_are_named_together(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    paths = (str(tmp_path), f"{tmp_path}/*.txt", "nowhere/*.txt")
    with pytest.raises(DataError) as caught:
        files_of(TextSource(name="t", paths=paths))
    first, second = str(caught.value).splitlines()
    assert first == (
        f"source 't': '{tmp_path}' is a folder; name its files, for example '{tmp_path}/*'"
    )
    assert second.startswith("source 't': no file matches 'nowhere/*.txt'")
