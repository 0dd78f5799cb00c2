"""Exact duplicates against a brute-force statement of the same rules."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.dedup import exact


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


def brute_force_pages(pages):
    """Newest page of each address, then the document of the smallest address."""
    verdict = [exact.OWN_REASON] * len(pages)
    keys = [exact.normalised_url(page[0]) for page in pages]
    taking_part = [number for number, page in enumerate(pages) if page[4] != exact.APART]
    age = [(-seconds, md5(raw), number) for number, (_, seconds, raw, _, _) in enumerate(pages)]
    newest = {min(age[m] for m in taking_part if keys[m] == keys[n])[2] for n in taking_part}
    clean = [number for number in newest if pages[number][4] == exact.CLEAN]
    first = {min((md5(keys[m]), m) for m in clean if pages[m][3] == pages[n][3]) for n in clean}
    for number in taking_part:
        if number not in newest:
            verdict[number] = exact.DUPLICATE_URL
        elif number in clean and (md5(keys[number]), number) not in first:
            verdict[number] = exact.DUPLICATE_DOCUMENT
    for rank, (_, number) in enumerate(sorted(first)):
        verdict[number] = rank
    return verdict


@given(pages, st.integers(0, 12))
def test_pages_have_the_winners_of_the_rules_however_they_are_spread(pages, cut):
    entries = [exact.page_entry(*page) for page in pages]
    units = [exact.page_table(part) for part in (entries[:cut], entries[cut:])]
    ranks = np.concatenate(exact.page_ranks(units)).tolist()
    assert ranks == brute_force_pages(pages)


texts = st.lists(
    st.lists(st.sampled_from(["One", "one ", "two", "three", "Four"]), min_size=1, max_size=5).map(
        "\n".join
    ),
    min_size=1,
    max_size=8,
)


def brute_force_lines(texts, order):
    """(page, line) of every line but the first of the first page in `order`."""
    seen, gone = set(), set()
    for page in sorted(range(len(texts)), key=order.__getitem__):
        if order[page] < 0:
            continue
        for number, line in enumerate(texts[page].split("\n")):
            key = line.strip().lower()
            if key in seen:
                gone.add((page, number))
            seen.add(key)
    return gone


@settings(max_examples=60)
@given(texts, st.randoms(use_true_random=False), st.integers(1, 5))
def test_lines_stay_in_the_first_page_only_for_any_number_of_partitions(
    tmp_path_factory, texts, random, partitions
):
    order = list(range(len(texts)))
    random.shuffle(order)
    order = [-1 if random.random() < 0.2 else rank for rank in order]
    folder = tmp_path_factory.mktemp("lines")
    cut = random.randint(0, len(texts))
    units = []
    for name, first, end in (("a", 0, cut), ("b", cut, len(texts))):
        index, ranks = folder / f"{name}-lines.npy", folder / f"{name}-ranks.npy"
        np.save(index, exact.line_index(enumerate(texts[first:end])))
        np.save(ranks, np.array(order[first:end], dtype=np.int64))
        units.append((index, ranks))
    found = np.concatenate(
        [exact.duplicate_lines(units, part, partitions) for part in range(partitions)], axis=1
    )
    gone = {
        (int(place >> 32) + (cut if unit else 0), int(place) & 0xFFFFFFFF)
        for unit, place in found.T.tolist()
    }
    assert found.shape[1] == len(gone)
    assert gone == brute_force_lines(texts, order)
