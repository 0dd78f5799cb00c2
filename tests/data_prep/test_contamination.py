"""Contamination: shared n-grams against sets of word tuples, the report, and what is refused."""

import gzip
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.dedup.contamination import (
    Contamination,
    Exposure,
    Grams,
    Hit,
    contamination_report,
    exposure_of,
    write_grams,
)
from pipeline.config import ConfigError, DataError, build_from

QUESTION = "What is the name of the large river that runs through the old city of Dresden?"
DOCUMENT = (
    "Quoted: «what is the NAME of the large river — that runs, through the old city», they say."
)


def setting(folder, **keys):
    return build_from(
        Contamination, {"sets": [{"name": "quiz", "paths": [f"{folder}/*.txt"]}], **keys}
    )


def test_a_hit_names_set_text_and_words(tmp_path):
    (tmp_path / "a.txt").write_text("Too short a text for any run of words.")
    (tmp_path / "b.txt").write_text(QUESTION)
    grams = Grams(write_grams(tmp_path / "grams", setting(tmp_path)))
    first = "what is the NAME of the large river — that runs, through the old"
    assert grams.hits(DOCUMENT) == [Hit("quiz", f"{tmp_path}/b.txt", first, 2)]
    assert grams.hits(DOCUMENT.replace("river", "stream")) == []
    assert grams.hits("") == []
    assert grams.checked == 2 * (17 - 13 + 1)


words = st.lists(st.sampled_from("abc"), max_size=9).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, max_size=4), st.lists(words, max_size=4))
def test_the_documents_with_shared_grams_are_exactly_those_found(
    tmp_path_factory, tests, documents
):
    def grams_of(text):
        found = text.split()
        return [tuple(found[place : place + 3]) for place in range(len(found) - 2)]

    folder = tmp_path_factory.mktemp("sets")
    owner = {}
    rows = [json.dumps({"question": text, "answer": "b"}) + "\n" for text in tests]
    with gzip.open(folder / "set.jsonl.gz", "wt") as file:
        file.writelines([*rows, '{"question": "", "answer": ""}'])
    for number, text in enumerate(tests, 1):
        for gram in grams_of(text):
            owner.setdefault(gram, f"{folder}/set.jsonl.gz:{number}")
    sets = [{"name": "s", "paths": [f"{folder}/*.gz"], "fields": ["question", "answer"]}]
    chosen = build_from(Contamination, {"sets": sets, "gram_words": 3})
    found = Grams(write_grams(folder / "grams", chosen)).hits_of(documents)
    for text, hits in zip(documents, found, strict=True):
        shared = [(owner[gram], " ".join(gram)) for gram in grams_of(text) if gram in owner]
        assert sum(hit.count for hit in hits) == len(shared)
        assert {(hit.text, hit.gram) for hit in hits} == set(dict(reversed(shared)).items())


def test_the_report_adds_up_in_any_order(tmp_path):
    (tmp_path / "a.txt").write_text("Short.")
    (tmp_path / "b.txt").write_text(QUESTION)
    folder = write_grams(tmp_path / "grams", setting(tmp_path))
    grams = Grams(folder)
    exposures = [Exposure(), Exposure()]
    for number in range(9):
        text = DOCUMENT if number % 3 else "Nothing of that kind."
        exposures[number % 2].add({"url": f"u{number}", "record": number}, grams.hits(text))
    exposures[0].checked = grams.checked
    reports = []
    for order in (exposures, exposures[::-1]):
        whole = Exposure()
        for part in order:
            whole.merge(exposure_of(json.loads(json.dumps(vars(part)))))
        reports.append(contamination_report(folder, whole))
    assert reports[0] == reports[1]
    report = reports[0]
    assert report["documents"] == {"checked": 9, "contaminated": 6}
    assert report["grams"] == {"of_sets": 4, "checked": 6 * 5}
    assert report["expected_false_hits_at_most"] == 30 * 4 / 2**64
    (quiz,) = report["sets"]
    found = {key: value for key, value in quiz.items() if key != "examples"}
    assert found == {
        "name": "quiz",
        "texts": 2,
        "too_short": 1,
        "texts_found": 1,
        "documents_with_it": 6,
        "shared_grams": 12,
    }
    assert len(quiz["examples"]) == 5
    assert all(re.match("what is", example["gram"]) for example in quiz["examples"])


def test_what_cannot_be_read_is_refused_in_words(tmp_path):
    with pytest.raises(DataError, match=r"evaluation set 'quiz': no file matches .*\*\.txt"):
        setting(tmp_path).sources()
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"texts": "y"}\n')
    lines = build_from(Contamination, {"sets": [{"name": "q", "paths": [f"{tmp_path}/*.jsonl"]}]})
    assert lines.sources() == [tmp_path / "a.jsonl"]
    with pytest.raises(DataError, match=r"a.jsonl:2: has no field 'text', only texts"):
        write_grams(tmp_path / "grams", lines)
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text')
    with pytest.raises(DataError, match=r"a.jsonl:2: is not JSON"):
        write_grams(tmp_path / "grams", lines)
    (tmp_path / "a.csv").write_text("x")
    table = build_from(Contamination, {"sets": [{"name": "q", "paths": [f"{tmp_path}/a.csv"]}]})
    with pytest.raises(DataError, match=r"a.csv: evaluation sets are .txt, .jsonl or .jsonl.gz"):
        write_grams(tmp_path / "grams", table)
    with pytest.raises(ConfigError, match=r"sets: got .*; allowed: at least this many items: 1"):
        build_from(Contamination, {"sets": []})
