"""The corpus stage as a whole: its account, its independence of workers, and its restart after a
kill.
"""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.corpus import Corpus
from pipeline import files
from pipeline.config import ConfigError, DataError, build_from

PAGES = Path(__file__).parents[2] / "data/quickstart/pages.warc.gz"
TEXT = "The first {n} sentence stands here. The second {n} one does too. And {n} is a third."
SHARED = "This line stands in every single document."


class Killed(Exception):
    """Stands for kill -9: the work ends after some units."""


class Workers:
    """Work done in this process, in an order of its own, that may be killed after `units` units."""

    def __init__(self, out, *, backwards=False, units=10**9):
        self.out, self.inputs, self.backwards, self.units = out, {}, backwards, units
        out.mkdir(exist_ok=True)

    def map(self, function, items, *, unit):
        results = {}
        for index in sorted(range(len(items)), reverse=self.backwards):
            if self.units == 0:
                raise Killed
            self.units -= 1
            results[index] = function(items[index])
        return iter(results[index] for index in range(len(items)))


def corpus(folder, **keys):
    source = {"type": "text", "name": "t", "paths": [f"{folder}/*.txt"]}
    return build_from(Corpus, {"inputs": [source], "validation_fraction": 0.3, **keys})


@pytest.fixture
def texts(tmp_path):
    """Twenty documents: a shared line, two equal ones, one short, one with a brace, one emptied."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(20):
        text = f"{SHARED}\n{TEXT.format(n=number)}\n"
        (folder / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    (folder / "03.txt").write_text((folder / "04.txt").read_text(), encoding="utf-8")
    (folder / "05.txt").write_text("Only one sentence is in this one.", encoding="utf-8")
    (folder / "06.txt").write_text("A brace { stands in this line here.", encoding="utf-8")
    (folder / "07.txt").write_text(f"{SHARED}\n" * 3, encoding="utf-8")
    (folder / "08.txt").write_bytes(bytes(range(128, 256)) * 9)
    (folder / "09.txt").write_bytes(b"")
    return folder


def documents(out, split):
    return [
        row for part in sorted((out / split).iterdir()) for row in pq.read_table(part).to_pylist()
    ]


def test_the_account_is_complete(texts, tmp_path):
    out = tmp_path / "out"
    counts = corpus(texts).run(Workers(out))
    assert counts == files.read_json(out / "counts.json")
    assert counts["sources"] == {"t": {key: counts[key] for key in counts["sources"]["t"]}}
    assert counts["pages"] == {
        "in": 20,
        "kept": 14,
        "dropped": {
            "curly_bracket": 1,
            "duplicate_document": 1,
            "emptied_by_line_dedup": 1,
            "empty_file": 1,
            "too_few_sentences": 1,
            "undecodable": 1,
        },
    }
    lines = counts["lines"]
    assert lines["in"] == lines["kept"] + sum(lines["dropped"].values())
    rows = [row for split in ("train", "validation") for row in documents(out, split)]
    assert sum(len(row["text"].split("\n")) for row in rows) == lines["kept"]
    assert sum(len(row["text"]) for row in rows) == counts["characters"]["kept"]
    assert {fault["reason"] for fault in counts["faults"]} == {"undecodable", "empty_file"}


def test_a_repeated_line_stays_once_in_the_whole_corpus(texts, tmp_path):
    corpus(texts).run(Workers(tmp_path / "out"))
    rows = [row for split in ("train", "validation") for row in documents(tmp_path / "out", split)]
    lines = [line for row in rows for line in row["text"].split("\n")]
    assert len(lines) == len(set(lines))
    assert lines.count(SHARED) <= 1
    assert {row["source"] for row in rows} == {"t"}


def test_parts_hold_as_many_documents_as_asked_and_both_splits_exist(texts, tmp_path):
    out = tmp_path / "out"
    counts = corpus(texts, shard_documents=4).run(Workers(out))
    for split in ("train", "validation"):
        sizes = [pq.read_metadata(part).num_rows for part in sorted((out / split).iterdir())]
        assert sum(sizes) == counts["documents"][split] > 0
        assert sizes[:-1] == [4] * (len(sizes) - 1)
    assert sorted(path.name for path in out.iterdir()) == [
        "counts.json",
        "samples.json",
        "train",
        "validation",
    ]


def test_samples_name_every_reason(texts, tmp_path):
    counts = corpus(texts).run(Workers(tmp_path / "out"))
    samples = files.read_json(tmp_path / "out/samples.json")
    assert set(samples["dropped"]) == set(counts["pages"]["dropped"])
    assert len(samples["kept"]) == 3


def test_the_order_of_work_does_not_matter(texts, tmp_path):
    stage = corpus(texts)
    stage.run(Workers(tmp_path / "a"))
    stage.run(Workers(tmp_path / "b", backwards=True))
    assert files.checksums_of(tmp_path / "a") == files.checksums_of(tmp_path / "b")


def test_a_killed_stage_ends_with_the_same_bytes(texts, tmp_path):
    for path in texts.glob("1?.txt"):
        path.unlink()
    stage = corpus(texts)
    stage.run(Workers(tmp_path / "whole"))
    expected, units = files.checksums_of(tmp_path / "whole"), 10 + 1 + 10
    for killed_after in range(0, units, 5):
        out = tmp_path / f"killed-{killed_after}"
        with pytest.raises(Killed):
            stage.run(Workers(out, units=killed_after))
        stage.run(Workers(out))
        assert files.checksums_of(out) == expected, killed_after


def test_a_kill_while_results_are_handed_over_changes_nothing(texts, tmp_path):
    stage, out = corpus(texts), tmp_path / "out"
    counts = stage.run(Workers(tmp_path / "whole"))
    with pytest.raises(Killed):
        stage.run(Workers(out, units=20))
    (out / "train").mkdir()
    (out / "train/part-00007.parquet").write_bytes(b"of a run that was killed")
    stage.run(Workers(out))
    assert files.checksums_of(out) == files.checksums_of(tmp_path / "whole")
    (out / ".discard").mkdir()
    assert stage.run(Workers(out, units=0)) == counts
    assert files.checksums_of(out) == files.checksums_of(tmp_path / "whole")


def test_finished_units_are_not_read_again(texts, tmp_path):
    stage, out = corpus(texts), tmp_path / "out"
    with pytest.raises(Killed):
        stage.run(Workers(out, units=20))
    for path in texts.iterdir():
        path.write_bytes(b"")
    assert stage.run(Workers(out))["pages"]["kept"] == 14


def test_real_pages_are_dropped_for_several_reasons_and_the_rest_is_prose(tmp_path):
    source = {"type": "warc", "name": "manuals", "paths": [str(PAGES)]}
    stage = build_from(Corpus, {"inputs": [source], "validation_fraction": 0.02})
    counts = stage.run(Workers(tmp_path / "out"))
    dropped = counts["pages"]["dropped"]
    assert counts["pages"]["in"] == counts["pages"]["kept"] + sum(dropped.values())
    assert len(dropped) >= 5
    assert counts["characters"]["kept"] > 4_000_000
    assert min(counts["documents"].values()) > 0
    assert counts["faults"] == []


def test_what_cannot_work_is_refused_in_words(texts, tmp_path):
    with pytest.raises(DataError, match="no file matches"):
        corpus(tmp_path / "nowhere").sources()
    for path in texts.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="source 't': no page with text in 20 file"):
        corpus(texts).run(Workers(tmp_path / "a"))
    for path in texts.iterdir():
        path.write_bytes(b"No end mark")
    with pytest.raises(DataError, match=r"no page is left after cleaning.*too_few_sentences 20"):
        corpus(texts).run(Workers(tmp_path / "b"))
    twice = [{"type": "text", "name": "t", "paths": ["*.txt"]}] * 2
    with pytest.raises(ConfigError, match="source name 't' is given twice"):
        build_from(Corpus, {"inputs": twice})
