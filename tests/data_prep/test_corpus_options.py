"""What a run file can switch on: near duplicates, contamination, presets, masks, several languages."""

import itertools
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_corpus import assert_complete, documents
from workers import Killed, Workers

from data_prep.clean import PRESETS
from data_prep.corpus import Corpus, reading
from data_prep.extract import extract
from data_prep.sources import Page, read_archive
from pipeline import files
from pipeline.config import build_from

PAGES = Path(__file__).parents[2] / "data/quickstart/pages.warc.gz"
WORDS = (
    "amber birch cedar delta ember fjord grove heath inlet juniper kelp lagoon marsh nectar".split()
)


def story(seed, sentences=12):
    """Lines of words that no other seed has in this order."""
    lines = []
    for number in range(sentences):
        picked = [WORDS[(seed * 31 + number * 7 + k * (seed + 3)) % len(WORDS)] for k in range(9)]
        lines.append(f"Story {seed} says at {number}: {' '.join(picked)} {seed * number}.")
    return lines


@pytest.fixture
def stories(tmp_path):
    """Twelve stories; four of them are told again with one line changed and one left out."""
    folder = tmp_path / "stories"
    folder.mkdir()
    for seed in range(12):
        (folder / f"{seed:02d}.txt").write_text("\n".join(story(seed)), encoding="utf-8")
    for seed in range(4):
        lines = story(seed)
        lines[5] = f"Here somebody has changed the sentence about number {seed}."
        (folder / f"copy-{seed}.txt").write_text("\n".join(lines[:-1]), encoding="utf-8")
    return folder


def corpus(folder, **keys):
    source = {"type": "text", "name": "t", "paths": [f"{folder}/*.txt"]}
    common = {"inputs": [source], "validation_fraction": 0.3, "unit_bytes": 1 << 12}
    # Without the removal of lines a copy is still a copy when near duplicates are looked for.
    clean = {"repeats": "none"}
    return build_from(Corpus, common | {"clean": clean} | keys)


def test_of_near_duplicates_the_longest_stays(stories, tmp_path, monkeypatch):
    stage, out = corpus(stories, near={"threshold": 0.6}), tmp_path / "out"
    whole = Workers(out)
    counts = stage.run(whole)
    assert counts["pages"]["dropped"] == {"near_duplicate": 4}
    assert_complete(counts, documents(out))
    assert not any("copy" in row["file"] for row in documents(out))
    report = files.read_json(out / "near_duplicates.json")
    assert report["documents"] == {"in": 16, "removed": 4}
    samples = files.read_json(out / "samples.json")["dropped"]["near_duplicate"]
    assert all("copy" in sample["file"] and sample["text"] for sample in samples)
    expected = files.checksums_of(out)
    for killed_after in range(0, len(whole.done), 6):
        again = tmp_path / f"killed-{killed_after}"
        with pytest.raises(Killed):
            stage.run(Workers(again, units=killed_after))
        stage.run(Workers(again, backwards=True))
        assert files.checksums_of(again) == expected, killed_after
    monkeypatch.setattr(reading, "BLOCK_PAGES", 3)
    near = {"threshold": 0.6}
    corpus(stories, near=near, unit_bytes=1 << 20).run(Workers(tmp_path / "blocks"))
    assert files.checksums_of(tmp_path / "blocks") == expected


@pytest.mark.parametrize(("action", "kept"), [("remove", 14), ("count", 16)])
def test_documents_that_share_words_with_an_evaluation_set_are_told(
    stories, tmp_path, action, kept
):
    quiz = tmp_path / "quiz.jsonl"
    questions = [{"question": " ".join(story(2)[7:9])}, {"question": "What is something else?"}]
    quiz.write_text("".join(json.dumps(one) + "\n" for one in questions), encoding="utf-8")
    given = {"name": "quiz", "paths": [str(quiz)], "fields": ["question"]}
    stage = corpus(stories, contamination={"sets": [given], "action": action})
    assert quiz in stage.sources()
    out = tmp_path / "out"
    counts = stage.run(Workers(out))
    assert counts["pages"]["kept"] == kept
    assert counts["pages"]["dropped"].get("contaminated", 0) == 16 - kept
    assert_complete(counts, documents(out))
    report = files.read_json(out / "contamination.json")
    assert report["documents"] == {"checked": 16, "contaminated": 2}
    [found] = report["sets"]
    assert (found["texts"], found["texts_found"], found["documents_with_it"]) == (2, 1, 2)
    assert {example["file"][-6:] for example in found["examples"]} == {"02.txt", "-2.txt"}


@pytest.fixture(scope="module")
def manuals(tmp_path_factory):
    """Twenty pages of real manuals as text files, and one that repeats a part of another."""
    folder = tmp_path_factory.mktemp("manuals")
    pages = (item for item in read_archive(PAGES) if isinstance(item, Page))
    for number, page in enumerate(itertools.islice(pages, 20)):
        text = extract(page).text
        (folder / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    (folder / "again.txt").write_text(text[len(text) // 2 :] + text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_has_a_complete_account(manuals, tmp_path, preset):
    clean = {"preset": preset}
    counts = corpus(manuals, clean=clean).run(Workers(tmp_path / "out"))
    assert counts["pages"]["in"] == 21
    assert_complete(counts, documents(tmp_path / "out"))


def test_what_is_masked_is_counted(stories, tmp_path):
    text = "\n".join([*story(40), "Write to someone@example.org, or to other@example.com today."])
    (stories / "mail.txt").write_text(text, encoding="utf-8")
    clean = {"repeats": "none", "mask": ["emails"]}
    counts = corpus(stories, clean=clean).run(Workers(tmp_path / "out"))
    assert counts["masked"] == counts["sources"]["t"]["masked"] == {"emails": 2}
    parts = (tmp_path / "out").glob("*/part-*.parquet")
    assert not any(
        "someone@" in text for part in parts for text in pq.read_table(part)["text"].to_pylist()
    )
