"""The corpus stage as a whole: its account, its independence of workers and units, its restart after
a kill, and what it refuses.
"""

import itertools
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from workers import Killed, Workers

from data_prep.corpus import Corpus, reading
from pipeline import files
from pipeline.config import ConfigError, DataError, build_from

PAGES = Path(__file__).parents[2] / "data/quickstart/pages.warc.gz"
TEXT = "The first {n} sentence stands here. The second {n} one does too. And {n} is a third."
SHARED = "This line stands in every single document."
RESULTS = ["counts.json", "faults.jsonl", "samples.json", "train", "validation"]


def corpus(folder, **keys):
    source = {"type": "text", "name": "t", "paths": [f"{folder}/*.txt"]}
    common = {"inputs": [source], "validation_fraction": 0.3, "unit_bytes": 1 << 10}
    return build_from(Corpus, common | keys)


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


def documents(out, *splits):
    return [
        row
        for split in splits or ("train", "validation")
        for part in sorted((out / split).iterdir())
        for row in pq.read_table(part).to_pylist()
    ]


def assert_complete(account, rows):
    """Every page and line is kept or dropped for one reason, and what is kept is what is there."""
    for unit in ("pages", "lines"):
        counted = account[unit]
        assert counted["in"] == counted["kept"] + sum(counted["dropped"].values())
        assert min(counted["dropped"].values(), default=1) > 0
    assert account["pages"]["kept"] == sum(account["documents"].values()) == len(rows)
    lines = [line for row in rows for line in row["text"].split("\n") if line.strip()]
    assert account["lines"]["kept"] == len(lines)
    assert account["characters"]["kept"] == sum(len(row["text"]) for row in rows)


def test_the_account_is_complete(texts, tmp_path):
    out = tmp_path / "out"
    counts = corpus(texts).run(Workers(out))
    assert {name: counts[name] for name in counts if name != "speed"} == files.read_json(
        out / "counts.json"
    )
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
    assert counts["lines"]["dropped"] == {"duplicate_line": 16, "page_dropped": 4}
    assert_complete(counts, documents(out))
    faults = list(files.read_json_lines(out / "faults.jsonl"))
    assert counts["faults"] == faults
    assert [(Path(one["file"]).name, one["reason"]) for one in faults] == [
        ("08.txt", "undecodable"),
        ("09.txt", "empty_file"),
    ]


def test_sources_and_languages_add_up_to_the_whole(texts, tmp_path):
    (texts / "de").mkdir()
    german = (
        "Hier steht der Satz Nummer {n}. Danach kommt noch ein Satz {n}. Und {n} ist der dritte."
    )
    for number in range(6):
        text = german.format(n=number) + "\nZu kurz.\n"
        (texts / f"de/{number}.txt").write_text(text, encoding="utf-8")
    sources = [
        {"type": "text", "name": "t", "paths": [f"{texts}/*.txt"], "weight": 2.5},
        {"type": "text", "name": "de", "paths": [f"{texts}/de/*.txt"]},
    ]
    out = tmp_path / "out"
    counts = corpus(texts, inputs=sources, clean={"mask": ["emails"]}).run(Workers(out))
    rows = documents(out)
    assert_complete(counts, rows)
    assert {name: one["weight"] for name, one in counts["sources"].items()} == {"t": 2.5, "de": 1.0}
    assert counts["languages"]["de"]["pages"] == {"in": 6, "kept": 6, "dropped": {}}
    assert counts["languages"]["en"]["pages"]["kept"] == 14
    for key, groups in (("source", counts["sources"]), ("language", counts["languages"])):
        for name, group in groups.items():
            assert_complete(group, [row for row in rows if row[key] == name])
        for unit in ("pages", "lines"):
            dropped = [one[unit]["dropped"] for one in groups.values()]
            assert sum(one[unit]["in"] for one in groups.values()) == counts[unit]["in"]
            assert counts[unit]["dropped"] == {
                reason: sum(one.get(reason, 0) for one in dropped)
                for reason in sorted(set(itertools.chain(*dropped)))
            }


def test_a_repeated_line_stays_once_in_the_whole_corpus(texts, tmp_path):
    corpus(texts).run(Workers(tmp_path / "out"))
    rows = documents(tmp_path / "out")
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
    assert sorted(path.name for path in out.iterdir()) == RESULTS


def test_samples_name_every_reason(texts, tmp_path):
    counts = corpus(texts).run(Workers(tmp_path / "out"))
    samples = files.read_json(tmp_path / "out/samples.json")
    assert set(samples["dropped"]) == set(counts["pages"]["dropped"])
    assert len(samples["kept"]) == 3
    assert [line["text"] for line in samples["lines"]["duplicate_line"]] == [SHARED] * 3
    for sample in (*samples["kept"], *samples["dropped"]["curly_bracket"]):
        assert sample["text"] in Path(sample["file"]).read_text(encoding="utf-8")


def test_neither_the_order_of_work_nor_units_and_blocks_matter(texts, tmp_path, monkeypatch):
    out = tmp_path / "a"
    corpus(texts).run(Workers(out))
    expected = files.checksums_of(out)
    corpus(texts).run(Workers(tmp_path / "b", backwards=True))
    assert files.checksums_of(tmp_path / "b") == expected
    monkeypatch.setattr(reading, "BLOCK_PAGES", 2)
    for unit_bytes in (1 << 11, 1 << 20):
        other = tmp_path / f"units-{unit_bytes}"
        workers = Workers(other)
        corpus(texts, unit_bytes=unit_bytes).run(workers)
        read = sum(unit == "units read" for unit, _ in workers.done)
        settled = sum(unit == "blocks settled" for unit, _ in workers.done)
        assert read < settled >= 10
        assert files.checksums_of(other) == expected


def test_a_killed_stage_ends_with_the_same_bytes(texts, tmp_path):
    for path in texts.glob("1?.txt"):
        path.unlink()
    stage = corpus(texts)
    whole = Workers(tmp_path / "whole")
    stage.run(whole)
    expected = files.checksums_of(tmp_path / "whole")
    for killed_after in range(0, len(whole.done), 2):
        out = tmp_path / f"killed-{killed_after}"
        with pytest.raises(Killed):
            stage.run(Workers(out, units=killed_after))
        stage.run(Workers(out))
        assert files.checksums_of(out) == expected, killed_after


def test_a_kill_while_results_are_handed_over_changes_nothing(texts, tmp_path, monkeypatch):
    stage, out = corpus(texts), tmp_path / "out"
    counts = stage.run(Workers(tmp_path / "whole"))
    moved, replace = [], Path.replace

    def killed_at_the_third(path, target):
        if Path(target).parent == out and len(moved) == 2:
            raise Killed
        moved.extend([path] if Path(target).parent == out else [])
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed_at_the_third)
    with pytest.raises(Killed):
        stage.run(Workers(out))
    monkeypatch.undo()
    assert not (out / "validation").exists()
    again = stage.run(Workers(out, units=0))
    assert again == {name: counts[name] for name in again} == files.read_json(out / "counts.json")
    assert files.checksums_of(out) == files.checksums_of(tmp_path / "whole")
    (out / ".discard").mkdir()
    assert stage.run(Workers(out, units=0)) == again
    assert sorted(path.name for path in out.iterdir()) == RESULTS


def test_finished_units_are_not_read_again(texts, tmp_path):
    stage, out = corpus(texts), tmp_path / "out"
    whole = Workers(tmp_path / "whole")
    stage.run(whole)
    units = sum(unit == "units read" for unit, _ in whole.done)
    with pytest.raises(Killed):
        stage.run(Workers(out, units=units))
    sizes = {path: path.stat().st_size for path in texts.iterdir()}
    for path, size in sizes.items():
        path.write_bytes(b"?" * size)
    again = Workers(out)
    assert stage.run(again)["pages"]["kept"] == 14
    assert not any(unit == "units read" for unit, _ in again.done)


def test_a_unit_that_no_worker_survives_is_given_up_and_reported(texts, tmp_path):
    def deadly(item):
        return any(Path(one.path).name == "11.txt" for one in item.unit.ranges)

    stage, out = corpus(texts, limits={"worker_died": 99}), tmp_path / "out"
    counts = stage.run(Workers(out, deadly=deadly))
    lost = counts["pages"]["dropped"]["worker_died"]
    assert 1 <= lost < 20
    assert counts["pages"]["in"] == 20
    assert_complete(counts, documents(out))
    told = [one for one in counts["faults"] if one["reason"] == "worker_died"]
    assert len(told) == lost
    assert "11.txt" in {Path(one["file"]).name for one in told}
    with pytest.raises(DataError, match=r"worker_died: \d+ pages, at most 0 allowed.*11\.txt"):
        corpus(texts, strict=True).run(Workers(tmp_path / "strict", deadly=deadly))


def test_real_pages_are_dropped_for_several_reasons_and_the_rest_is_prose(tmp_path):
    source = {"type": "warc", "name": "manuals", "paths": [str(PAGES)]}
    stage = build_from(Corpus, {"inputs": [source], "validation_fraction": 0.02})
    counts = stage.run(Workers(tmp_path / "out"))
    assert_complete(counts, documents(tmp_path / "out"))
    assert len(counts["pages"]["dropped"]) >= 5
    assert counts["characters"]["kept"] > 4_000_000
    assert min(counts["documents"].values()) > 0
    assert counts["faults"] == []
    assert set(files.read_json(tmp_path / "out/samples.json")["lines"]) == set(
        counts["lines"]["dropped"]
    ) - {"page_dropped"}


def test_what_cannot_work_is_refused_in_words(texts, tmp_path):
    with pytest.raises(DataError, match="matches"):
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


def test_limits_turn_counts_into_a_failure_that_names_places(texts, tmp_path):
    allowed = {"empty_file": 1, "undecodable": 1, "too_few_sentences": 1}
    assert corpus(texts, limits=allowed).run(Workers(tmp_path / "allowed"))["pages"]["kept"] == 14
    with pytest.raises(DataError, match="empty_file: 1 pages, at most 0") as refused:
        corpus(texts, strict=True, limits={"undecodable": 1}).run(Workers(tmp_path / "strict"))
    assert f"{texts}/09.txt at 0" in str(refused.value)
    assert "undecodable" not in str(refused.value)
    with pytest.raises(DataError, match="curly_bracket: 1 pages, at most 0 allowed"):
        corpus(texts, limits={"curly_bracket": 0}).run(Workers(tmp_path / "rule"))
    with pytest.raises(ConfigError, match=r"'emty_file' is no reason.*did you mean 'empty_file'"):
        corpus(texts, limits={"emty_file": 0})
