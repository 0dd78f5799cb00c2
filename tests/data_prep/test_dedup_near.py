"""Near duplicates: candidates and clusters against enumeration, and made copies of real pages."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from dedup_work import Worker, spread
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.extract.html2text import extract_plain_text

from data_prep.dedup import clusters, lsh, near, tables
from pipeline.config import ConfigError, build_from
from pipeline.runtime import rng_of

PAGES = Path(__file__).parents[2] / "data/quickstart/pages.warc.gz"


def test_bands_find_the_pairs_at_the_threshold():
    for threshold, permutations in itertools.product((0.5, 0.7, 0.8, 0.9, 0.99), (64, 128, 256)):
        bands, rows = lsh.bands_for(threshold, permutations)
        assert bands * rows <= permutations
        assert lsh.found_with(threshold, bands, rows) >= 0.95
        assert lsh.found_with(threshold, permutations // (rows + 1), rows + 1) < 0.95
    assert lsh.bands_for(0.8, 128) == (18, 7)
    assert lsh.found_with(0.8, 18, 7) == pytest.approx(1 - (1 - 0.8**7) ** 18)


@given(st.lists(st.integers(0, 5), max_size=40))
def test_a_bucket_gives_all_pairs_or_when_large_a_bounded_number(keys):
    keys = np.sort(np.array(keys, dtype=np.uint64))
    first, second = lsh._pairs(keys)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for key in np.unique(keys):
        members = np.flatnonzero(keys == key).tolist()
        mine = {pair for pair in pairs if pair[0] in members}
        if len(members) <= lsh.ALL_PAIRS_UP_TO:
            assert mine == set(itertools.combinations(members, 2))
        else:
            star = {(members[0], member) for member in members[1:]}
            assert mine == star | set(itertools.pairwise(members))


def components(pairs):
    """Smallest document of the component of each document, by search."""
    label = {document: document for pair in pairs for document in pair}
    while True:
        lower = [
            (b, label[a]) for a, b in [*pairs, *(p[::-1] for p in pairs)] if label[a] < label[b]
        ]
        if not lower:
            return label
        for document, smaller in lower:
            label[document] = min(label[document], smaller)


node = st.integers(0, 30)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(node, node).filter(lambda p: p[0] != p[1]), max_size=60), st.integers(1, 30)
)
def test_clusters_are_the_connected_components_in_any_number_of_partitions(
    tmp_path_factory, pairs, rows
):
    folder = tmp_path_factory.mktemp("graph")
    # Ranks that do not follow the numbers of the documents, some of them equal.
    document = [(number * 7 % 31 // 2, number) for number in range(31)]
    given = np.array([(*document[a], *document[b]) for a, b in pairs], dtype=np.uint64)
    half = len(pairs) // 2
    for part, table in enumerate((given[:half], given[half:])):
        both = clusters.both_ways(table.reshape(-1, 4).T)
        tables.save(tables.numbered(folder / "pairs", part), both)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROWS_PER_PARTITION", rows)
        stars, count = clusters.stars(Worker(folder), folder, folder / "pairs", 2)
    found = [clusters.found_stars(stars, count, part, count) for part in range(count)]
    winners = {loser: winner for table in found for _, winner, loser in table.T.tolist()}
    expected = components([(document[a], document[b]) for a, b in pairs])
    assert winners == {own[1]: least[1] for own, least in expected.items() if own != least}
    assert sum(table.shape[1] for table in found) == len(winners)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"bands": 4}, "bands and rows belong together"),
        ({"bands": 20, "rows": 7}, "20 bands of 7 rows need 140 permutations, there are 128"),
        ({"threshold": 0}, "got 0; allowed: a number above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys, words):
    with pytest.raises(ConfigError, match=words):
        build_from(near.Near, keys)


def edited(words, share, rng):
    """The words with about this share of them replaced."""
    draws = rng.random(len(words))
    return [
        f"new{number}" if draw < share else word
        for number, (word, draw) in enumerate(zip(words, draws, strict=True))
    ]


@pytest.fixture(scope="module")
def documents():
    """(address, text): 40 real pages, of each a lightly edited, a shortened and a rewritten copy,
    and three copies that differ by a word from one to the next.
    """
    found = []
    with PAGES.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            text = extract_plain_text(
                record.reader.read().decode("utf-8", "replace"), main_content=True
            )
            words = text.split()
            if 150 <= len(words) <= 1500:
                found.append(words)
            if len(found) == 40:
                break
    made = []
    for number, words in enumerate(found):
        rng = rng_of(0, "copies", number)
        copies = [
            words,
            edited(words, 0.01, rng),
            words[: -len(words) // 12],
            edited(words, 0.3, rng),
        ]
        made += [
            (f"http://a.example/{number}/{n}", " ".join(copy)) for n, copy in enumerate(copies)
        ]
    return made


def shingles(text):
    words = re.findall(r"[^\W_]+", text.lower())
    return {tuple(words[place : place + 5]) for place in range(len(words) - 4)}


def removed_from(folder, documents, cuts, settings, rows):
    """Addresses that go with their estimated Jaccard index, and the report."""
    units = spread(folder, documents, cuts)
    for unit, part in units:
        # Rows with gaps, as when other pages of a unit went before.
        pages = ((row * 3, url, text) for row, (url, text) in enumerate(part))
        assert near.write_signatures(unit, pages, settings) == len(part)
    texts = dict(units)

    def read(unit, rows):
        return [texts[unit][row // 3] for row in rows]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROWS_PER_PARTITION", rows)
        folders = [unit for unit, _ in units]
        result = near.decide(Worker(folder), folder / "near", folders, settings, read)
    gone = {}
    for number, (_, part) in enumerate(units):
        for row, alike in near.losers_in(result.found, number, settings).items():
            gone[part[row // 3][0]] = alike
    return gone, result.report


def test_copies_of_real_pages_are_found_and_nothing_else(documents, tmp_path):
    settings = near.Near()
    sets = {url: shingles(text) for url, text in documents}
    true = {
        (a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b])
        for a, b in itertools.combinations(sets, 2)
    }
    order = dict(documents)
    rank = {url: near.rank_of(url, text) for url, text in order.items()}
    label = components([(rank[a], rank[b]) for (a, b), alike in true.items() if alike >= 0.8])
    expected = {url for url in order if label.get(rank[url], rank[url]) != rank[url]}
    gone, report = removed_from(tmp_path, documents, [70], settings, 500)
    right = len(expected & set(gone))
    assert len(expected) >= 60
    assert right / len(gone) >= 0.95
    assert right / len(expected) >= 0.95
    alike = {url: max(j for pair, j in true.items() if url in pair) for url in gone}
    assert min(alike.values()) > 0.7
    assert report["documents"] == {"in": 160, "removed": len(gone)}
    sizes = report["clusters"]["by_size"]
    assert sum((int(size) - 1) * count for size, count in sizes.items()) == len(gone)
    joined = report["pairs"]["joined_truly"]
    assert joined["sampled"] == min(report["pairs"]["joined"], 200)
    assert joined["mean_error_of_estimate"] < 0.05
    assert joined["lowest_jaccard"] == pytest.approx(0.8, abs=0.12)
    largest = report["clusters"]["largest"][0]
    assert len(largest["kept"]["text"]) == 300
    assert {member["url"] for member in largest["removed"]} <= set(gone)


def test_spread_and_partitions_change_nothing(documents, tmp_path):
    settings = near.Near(permutations=64)
    some = [*documents[:60], ("http://a.example/x", "short"), ("http://a.example/y", "Short!")]
    runs = [
        removed_from(tmp_path / str(number), some, cuts, settings, rows)
        for number, (cuts, rows) in enumerate([([], 10**6), ([5, 20, 20, 59], 200), ([61], 40)])
    ]
    assert runs[0][0]
    assert runs[0][0]["http://a.example/x"] == 1.0
    assert runs[1:] == runs[:1] * 2


def test_the_longest_document_stays(tmp_path):
    words = [f"word{number}" for number in range(100)]
    pages = [(f"http://a.example/{n}", " ".join(words[: 100 - n])) for n in (3, 0, 2, 1)]
    gone, _ = removed_from(tmp_path, pages, [1, 2], near.Near(), 10)
    assert set(gone) == {f"http://a.example/{n}" for n in (1, 2, 3)}
