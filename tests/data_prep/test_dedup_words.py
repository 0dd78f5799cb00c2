"""Words, shingles and signatures against plain statements of what they are."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.dedup import minhash
from data_prep.dedup.words import BATCH_CHARACTERS, gram_hashes, gram_places, words_of

LONE = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
characters = st.characters() | st.sampled_from(
    list("aAbB .,-_'ßΣς1²") + list("漢字かなไทยé\u0301\ud800")
)
texts = st.lists(st.text(characters, max_size=40), max_size=6)


def plain_words(text):
    """(word in lower case, first character, end), one character after the other."""
    found, word = [], None
    for place, character in enumerate(text):
        letter = unicodedata.category(character)[0] in "LMN" and character < "\U00032000"
        lone = bool(re.match(LONE, character)) or "\uf900" <= character < "\ufb00"
        lone = lone or "\U00020000" <= character < "\U00032000"
        if letter and (lone or word is None):
            word = [character.lower()[0], place, place + 1]
            found.append(word)
        elif letter:
            word[0] += character.lower()[0]
            word[2] = place + 1
        if not letter or lone:
            word = None
    return [tuple(word) for word in found]


@settings(deadline=None)
@given(texts)
def test_words_are_runs_of_letters_whatever_they_are_hashed_with(texts):
    words = words_of(texts)
    plain = [plain_words(text) for text in texts]
    assert words.counts.tolist() == [len(found) for found in plain]
    flat = [word for found in plain for word in found]
    assert words.starts.tolist() == [start for _, start, _ in flat]
    assert words.ends.tolist() == [end for _, _, end in flat]
    alone = [words_of([text]).hashes for text in texts]
    assert words.hashes.tolist() == [number for hashes in alone for number in hashes.tolist()]
    number_of = dict(zip((word for word, _, _ in flat), words.hashes.tolist(), strict=True))
    assert [number_of[word] for word, _, _ in flat] == words.hashes.tolist()
    assert len(set(number_of.values())) == len(number_of)


def test_long_texts_are_cut_between_words():
    text = "some words and no more of them, " * (BATCH_CHARACTERS // 10)
    words = words_of(["before", text, "after"])
    assert words.counts.tolist() == [1, 7 * (BATCH_CHARACTERS // 10), 1]
    assert len(np.unique(words.hashes)) == 9
    found = {text[a:b] for a, b in zip(words.starts[1:-1], words.ends[1:-1], strict=True)}
    assert found == set(re.findall(r"\w+", text))
    endless = words_of(["x" * (2 * BATCH_CHARACTERS)])
    assert endless.ends[-1] == 2 * BATCH_CHARACTERS


@given(st.lists(st.integers(0, 7), max_size=6), st.integers(1, 6))
def test_grams_lie_in_one_text(counts, size):
    hashes = np.arange(sum(counts), dtype=np.uint64) % np.uint64(5)
    inside = gram_places(np.array(counts, dtype=np.int64), size)
    ends = np.cumsum(counts)
    alone = [gram_hashes(hashes[end - n : end], size) for end, n in zip(ends, counts, strict=True)]
    together = gram_hashes(hashes, size)[inside]
    assert together.tolist() == [number for grams in alone for number in grams.tolist()]
    assert sum(inside) == sum(max(0, n - size + 1) for n in counts)


words = st.lists(st.sampled_from("abcde"), max_size=12).map(" ".join)


@settings(deadline=None)
@given(words, words)
def test_the_jaccard_index_is_that_of_the_sets_of_shingles(first, second):
    def shingles(text):
        found = text.split()
        return {tuple(found[i : i + 3]) for i in range(max(1, len(found) - 2))}

    one, other = shingles(first), shingles(second)
    assert minhash.jaccard(first, second, 3) == pytest.approx(len(one & other) / len(one | other))


def test_signatures_are_these_numbers():
    # A library that hashes otherwise would change which documents of a corpus go.
    found = minhash.signatures(["One two, three!", ""], size=2, permutations=4, seed=0)
    assert found.dtype == np.uint32
    assert found.tolist() == [
        [2292323870, 836107823, 248470016, 2062852356],
        [1414212939, 3447211893, 1058412226, 2451704158],
    ]
    again = minhash.signatures(["", "one TWO three"], size=2, permutations=4, seed=0)
    assert again[::-1].tolist() == found.tolist()


def test_agreement_estimates_the_jaccard_index():
    generator = np.random.Generator(np.random.Philox(7))
    pairs = []
    for shared in np.linspace(0, 60, 40).astype(int):
        common, one, other = np.split(generator.permutation(200), [shared, shared + 60])
        pairs.append([" ".join(f"w{n}" for n in (*common, *part)) for part in (one, other[:60])])
    flat = [text for pair in pairs for text in pair]
    found = minhash.signatures(flat, size=1, permutations=512, seed=3)
    estimates = minhash.agreement(found[::2], found[1::2]) / 512
    true = np.array([minhash.jaccard(*pair, 1) for pair in pairs])
    errors = (estimates - true) / np.sqrt(np.maximum(true * (1 - true), 1e-3) / 512)
    assert np.abs(errors).max() < 4
    assert abs(errors.mean()) < 4 / np.sqrt(40)
