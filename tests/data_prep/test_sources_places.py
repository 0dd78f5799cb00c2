"""Where files are found, and what is said when they are not."""

from pathlib import Path

import fsspec
import pytest

from data_prep.sources import Page, all_files, all_ranges
from data_prep.sources.html import HtmlSource
from data_prep.sources.jsonl import JsonlSource
from data_prep.sources.parquet import ParquetSource
from data_prep.sources.text import TextSource
from data_prep.sources.warc import WarcSource
from pipeline.config import DataError
from pipeline.flow.record import SourceDigests
from pipeline.flow.stage import Remote


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_every_pattern_of_every_source_without_a_file_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "empty").mkdir()
    sources = [
        TextSource(name="t", paths=(str(tmp_path), f"{tmp_path}/*.txt", "nowhere/*.txt")),
        WarcSource(name="w", paths=("memory://nowhere/*.gz", "klingon://a/b")),
        HtmlSource(name="h", paths=(f"{tmp_path}/empty",)),
    ]
    with pytest.raises(DataError) as caught:
        all_ranges(sources, 100)
    lines = str(caught.value).splitlines()
    assert (
        lines[0]
        == f"source 't': '{tmp_path}' is a folder; name its files, for example '{tmp_path}/*'"
    )
    assert lines[1].startswith("source 't': no file matches 'nowhere/*.txt' (looked from ")
    assert lines[2] == "source 'w': nothing matches 'memory://nowhere/*.gz'; correct the address"
    assert lines[3].startswith("source 'w': klingon://a/b: cannot be reached: Protocol not known")
    assert lines[4].startswith(f"source 'h': folder '{tmp_path}/empty' holds no file that ends in")
    assert len(lines) == 5


def test_files_of_several_patterns_come_once_and_in_order(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / name).write_text(name)
    source = TextSource(
        name="t", paths=(f"{tmp_path}/[bc]", f"file://{tmp_path}/a", f"{tmp_path}/b")
    )
    assert source.files() == [f"{tmp_path}/{name}" for name in "abc"]
    assert [path.name for path in all_files([source, source])] == ["a", "b", "c"]
    assert [(index, part.path[-1]) for index, part in all_ranges([source, source], 9)] == [
        (index, name) for index in (0, 1) for name in "abc"
    ]


def test_remote_files_are_read_like_local_ones(tmp_path, memory):
    lines = b"".join(b'{"text": "line %d"}\n' % n for n in range(99))
    (tmp_path / "a.jsonl").write_bytes(lines)
    memory.pipe("/x/a.jsonl", lines)
    memory.pipe("/x/deep/b.html", b"<p>b")
    here = JsonlSource(name="s", paths=(f"{tmp_path}/*.jsonl",))
    there = JsonlSource(name="s", paths=("memory://x/*.jsonl",))
    for target in (1 << 30, 100):
        mine, theirs = (
            [item.body for part in source.ranges(target) for item in source.read(part)]
            for source in (here, there)
        )
        assert mine == theirs
    tree = HtmlSource(name="h", paths=("memory://x",))
    (page,) = (item for part in tree.ranges(9) for item in tree.read(part))
    assert isinstance(page, Page)
    assert page.url == "h/memory:///x/deep/b.html"


def test_remote_archives_and_tables_are_read_by_ranges(tmp_path, memory):
    archive = Path("data/quickstart/pages.warc.gz").read_bytes()[:400_000]
    memory.pipe("/a.warc.gz", archive)
    source = WarcSource(name="w", paths=("memory://a.warc.gz",))
    whole, cut = (
        [item for part in source.ranges(target) for item in source.read(part)]
        for target in (1 << 30, 90_000)
    )
    assert whole == cut
    assert len(whole) > 20
    assert ParquetSource(name="p", paths=("memory://a.warc.gz",)).ranges(1)[0].first == 0


def test_the_fingerprint_follows_the_content_of_remote_files(tmp_path, memory):
    class Stage:
        def sources(self):
            return all_files([TextSource(name="t", paths=("memory://a.txt",))])

    marks = []
    for content in (b"one", b"two", b"two"):
        if content != b"two" or len(marks) == 1:
            memory.pipe("/a.txt", content)
        (remote,) = Stage().sources()
        assert isinstance(remote, Remote)
        marks.append(SourceDigests(tmp_path / "cache").of_stage(Stage())["memory:///a.txt"])
    assert marks[0] != marks[1] == marks[2]


def test_a_remote_file_that_fails_is_an_error_in_words(memory):
    source = TextSource(name="t", paths=("s3://bucket/a.txt",))
    with pytest.raises(DataError, match=r"s3://bucket/a.txt: cannot be reached: Install s3fs"):
        source.files()
