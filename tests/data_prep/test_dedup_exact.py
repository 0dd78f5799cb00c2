"""Exact duplicates of pages against a brute-force statement of the same rules."""

import hashlib

import numpy as np
import pytest
from dedup_work import Worker, spread
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep.dedup import exact, tables


def md5(text):
    return hashlib.md5(text.encode()).digest()


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://www.a.example/x/", "a.example/x"),
        ("http://a.example/x?utm_source=b", "a.example/x"),
        ("http://a.example/x?page=2", "a.example/x?page=2"),
        ("a.example/x?feed=rss//", "a.example/x"),
    ],
)
def test_addresses_are_normalised_as_in_c4(url, normal):
    assert exact.normalised_url(url) == normal


def test_the_split_is_that_of_c4():
    urls = [f"http://a.example/{number}" for number in range(20_000)]
    held_out = [url for url in urls if exact.goes_to_validation(url, 0.001)]
    assert held_out == [
        url for url in urls if int(hashlib.md5(url[7:].encode()).hexdigest(), 16) % 1000 == 0
    ]
    assert held_out
    assert sum(exact.goes_to_validation(url, 0.5) for url in urls) == pytest.approx(10_000, abs=300)


pages = st.lists(
    st.tuples(
        st.sampled_from(["http://a.b/1", "https://www.a.b/1/", "http://a.b/2", "http://a.b/3"]),
        st.integers(0, 2),
        st.sampled_from(["raw one", "raw two"]),
        st.sampled_from(["text one", "text two", "text three"]),
        st.sampled_from([exact.CLEAN, exact.DROPPED, exact.APART]),
    ),
    max_size=12,
)
ONE, TWO = "http://a.b/1", "http://a.b/2"
EQUALLY_NEW = [
    (url, 0, raw, f"{url} {raw}", exact.CLEAN)
    for url, raw in [(ONE, "raw one"), (ONE, "raw two"), (TWO, "raw two"), (TWO, "raw one")]
]
SAME_TEXTS = [
    (url, 0, "raw", text, exact.CLEAN)
    for url, text in [(ONE, "text one"), (TWO, "text one"), (TWO, "text two"), (ONE, "text two")]
]
COMPARED = [("urls", "documents"), ("urls",), ("documents",), ()]


def brute_force_pages(pages, compared):
    """Newest page of each address, then the document of the smallest address."""
    verdict = [exact.OWN_REASON] * len(pages)
    keys = [exact.normalised_url(page[0]) for page in pages]
    taking_part = [number for number, page in enumerate(pages) if page[4] != exact.APART]
    age = [(-seconds, md5(raw), number) for number, (_, seconds, raw, _, _) in enumerate(pages)]
    newest = set(taking_part)
    if "urls" in compared:
        newest = {min(age[m] for m in newest if keys[m] == keys[n])[2] for n in taking_part}
    clean = [number for number in newest if pages[number][4] == exact.CLEAN]
    first = {(md5(keys[m]), m) for m in clean}
    if "documents" in compared:
        first = {min((md5(keys[m]), m) for m in clean if pages[m][3] == pages[n][3]) for n in clean}
    for number in taking_part:
        if number not in newest:
            verdict[number] = exact.DUPLICATE_URL
        elif number in clean and (md5(keys[number]), number) not in first:
            verdict[number] = exact.DUPLICATE_DOCUMENT
    for _, number in first:
        verdict[number] = exact.STAYS
    return verdict


@settings(max_examples=30, deadline=None)
@given(
    pages, st.lists(st.integers(0, 12), max_size=3), st.sampled_from(COMPARED), st.integers(1, 9)
)
@example(EQUALLY_NEW, [2], COMPARED[0], 2)
@example(SAME_TEXTS, [1, 3], COMPARED[2], 2)
def test_pages_have_the_winners_of_the_rules_however_they_are_spread_and_partitioned(
    tmp_path_factory, pages, cuts, compared, rows
):
    folder = tmp_path_factory.mktemp("pages")
    units = spread(folder, pages, cuts)
    for unit, part in units:
        assert exact.write_pages(unit, [exact.page_entry(*page) for page in part]) == len(part)
    folders = [unit for unit, _ in units]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROWS_PER_PARTITION", rows)
        exact.decide_pages(Worker(folder), folder / "exact", folders, compared)
    found = np.concatenate([exact.verdict_of(unit) for unit in folders]).tolist()
    assert found == brute_force_pages(pages, compared)
    for unit, part in units:
        addresses = np.load(unit / exact.ADDRESSES)
        keys = [exact.digest_of(exact.normalised_url(page[0])) for page in part]
        assert [
            h.to_bytes(8, "big") + l.to_bytes(8, "big") for h, l in addresses.T.tolist()
        ] == keys


def test_a_table_is_cut_into_partitions_that_hold_each_row_once(tmp_path):
    ends = np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], dtype=np.uint64)
    values = np.sort(np.concatenate((ends, tables.mixed(np.arange(999, dtype=np.uint64)))))
    tables.save(tmp_path / "table.npy", np.stack((values, np.arange(1004, dtype=np.uint64))))
    for partitions in (1, 2, 3, 7, 1000):
        parts = [
            tables.stretches([tmp_path / "table.npy"], number, partitions)
            for number in range(partitions)
        ]
        assert np.concatenate(parts, axis=1)[1].tolist() == list(range(1004))
    assert max(part.shape[1] for part in parts) < 12
