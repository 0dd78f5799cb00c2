"""Repeated lines and repeated spans of sentences against literal statements of the two C4 rules."""

import hashlib
import re
from collections import defaultdict

import numpy as np
import pytest
from dedup_work import Worker, spread
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep.dedup import exact, lines, repeats, spans, tables

ROWS = st.integers(1, 40)
CUTS = st.lists(st.integers(0, 20), max_size=3)
STAY = st.lists(st.booleans(), min_size=8, max_size=8)


def md5(text):
    return hashlib.md5(text.encode("utf-8", "surrogatepass")).hexdigest()


def url_of(number):
    return f"http://a.example/{number}"


def found_in(folder, texts, stays, cuts, rows, pieces, write):
    """Numbers of the pieces that go by page, by way of files, units and partitions."""
    units = spread(folder, list(enumerate(texts)), cuts)
    for unit, part in units:
        # Their numbers stand for the texts, or equal ones would go as documents.
        entries = [
            exact.page_entry(
                url_of(number), 0, "", str(number), exact.CLEAN if stays[number] else exact.DROPPED
            )
            for number, _ in part
        ]
        exact.write_pages(unit, entries)
        write(unit, enumerate(text for _, text in part))
    folders = [unit for unit, _ in units]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROWS_PER_PARTITION", rows)
        exact.decide_pages(Worker(folder), folder / "exact", folders, ("urls", "documents"))
        found = repeats.find(Worker(folder), folder / "repeats", folders, pieces)
    gone = {}
    for unit, (_, part) in enumerate(units):
        for row, numbers in repeats.gone_in(found, unit).items():
            gone[part[row][0]] = numbers
    return gone


def c4_lines(texts, stays):
    """What C4 keeps of each page: lines whose hash it won, each once."""
    pages = {url_of(number): text for number, text in enumerate(texts) if stays[number]}
    rivals = defaultdict(list)
    for url, text in pages.items():
        for line in text.split("\n"):
            rivals[md5(line.strip().lower())].append(url)
    winner = {line: min(urls, key=lambda url: md5(url[7:])) for line, urls in rivals.items()}
    kept = {}
    for url, text in pages.items():
        seen, new = set(), []
        for line in text.split("\n"):
            key = md5(line.strip().lower())
            if winner[key] == url and key not in seen:
                new.append(line)
                seen.add(key)
        kept[url] = "\n".join(new)
    return kept


line_texts = st.lists(
    st.lists(
        st.sampled_from(["One", " one ", "two", "three", "Four", "ΣΑΣ", "σας ", "İ\x85", "\ud800"]),
        min_size=1,
        max_size=5,
    ).map("\n".join),
    min_size=1,
    max_size=8,
)


@settings(max_examples=30, deadline=None)
@given(line_texts, STAY, CUTS, ROWS)
def test_lines_are_removed_as_c4_does_for_any_spread_and_partition(
    tmp_path_factory, texts, stays, cuts, rows
):
    folder = tmp_path_factory.mktemp("lines")
    gone = found_in(folder, texts, stays, cuts, rows, "lines", lines.write_index)
    kept = {
        url_of(number): lines.without(text, gone.get(number, ()))
        for number, text in enumerate(texts)
        if stays[number]
    }
    assert kept == c4_lines(texts, stays)
    assert {number for number in gone if not stays[number]} == set()


def sentences(line):
    return re.findall(r"[^.\s][^.]*\.|\.", line)


def windows(line):
    """(first place, window in lower case) of the windows of three sentences of a line."""
    found = [sentence.lower() for sentence in sentences(line)]
    starts = range(len(found) - min(len(found), 3) + 1)
    return [(start, tuple(found[start : start + 3])) for start in starts]


def c4_spans(texts, stays):
    """The 2019 procedure, list by list: (text, sentences left) of each page."""
    pages = {url_of(number): text for number, text in enumerate(texts) if stays[number]}
    urls_of, remove = defaultdict(list), defaultdict(set)
    for url, text in pages.items():
        for _, window in (found for line in text.splitlines() for found in windows(line)):
            if not all(sentence in (".", "?", "!", '"') for sentence in window):
                urls_of[window].append(url)
    for window, urls in urls_of.items():
        for url in sorted(urls, key=lambda url: md5(url[7:]))[1:]:
            remove[url].add(window)
    return {url: c4_remaining(text, remove[url]) for url, text in pages.items()}


def c4_remaining(text, remove):
    new = []
    for line in text.splitlines():
        lost = set()
        for start, window in windows(line):
            if window in remove:
                lost.update(range(start, start + len(window)))
        left = [sentence for place, sentence in enumerate(sentences(line)) if place not in lost]
        if left:
            new.append(left)
    return "\n".join(" ".join(left) for left in new), sum(map(len, new))


span_texts = st.lists(
    st.lists(
        st.lists(st.sampled_from(["A.", "a.", "B.", "C c.", "."]), max_size=6).map("  ".join),
        min_size=1,
        max_size=3,
    ).map("\n".join),
    min_size=1,
    max_size=8,
)


@settings(max_examples=30, deadline=None)
@given(span_texts, STAY, CUTS, ROWS)
@example(["A. B. A. B. A.", "B. A. B. A."], [True] * 8, [1], 3)
@example([". . . .", ". . ."], [True] * 8, [], 3)
def test_spans_are_removed_as_c4_did_for_any_spread_and_partition(
    tmp_path_factory, texts, stays, cuts, rows
):
    folder = tmp_path_factory.mktemp("spans")

    def write(unit, pages):
        return spans.write_index(unit, pages, sentences)

    gone = found_in(folder, texts, stays, cuts, rows, "spans", write)
    kept, before = {}, {}
    for number, text in enumerate(texts):
        if stays[number]:
            left = spans.without(text, gone.get(number, ()), sentences)
            kept[url_of(number)] = left.text, left.sentences
            before[number] = left.sentences + left.removed
    assert kept == c4_spans(texts, stays)
    assert all(
        count == sum(len(sentences(line)) for line in texts[number].splitlines())
        for number, count in before.items()
    )


def test_work_that_is_done_is_not_done_again(tmp_path):
    texts = ["One\nTwo", "Two\nThree"]
    units = [tmp_path / str(number) for number in range(2)]
    for number, unit in enumerate(units):
        exact.write_pages(unit, [exact.page_entry(url_of(number), 0, "", texts[number], 0)])
        lines.write_index(unit, [(0, texts[number])])
    exact.decide_pages(Worker(tmp_path), tmp_path / "exact", units, ())
    found = repeats.find(Worker(tmp_path), tmp_path / "repeats", units, "lines")
    for unit in units:
        tables.save(unit / repeats.INDEX, np.zeros((3, 0), dtype=np.uint64))
    assert repeats.find(Worker(tmp_path), tmp_path / "repeats", units, "lines") == found
    assert [repeats.gone_in(found, number) for number in range(2)] in (
        [{0: {1}}, {}],
        [{}, {0: {0}}],
    )
