"""Shards hold every token of every document once, in order, and refuse to be read when changed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import files
from pipeline.config import DataError
from pipeline.data import shard_file
from pipeline.data.packing import Packing
from pipeline.data.shard_file import Layout, Shard, layout_for, shard_facts, write_shard
from pipeline.data.shards import TokenRows, write_manifest
from pipeline.tokenizer import Vocabulary


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a small text of few words", "and some more of them"] * 20),
        model_writer=model,
        vocab_size=60,
        model_type="bpe",
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        num_threads=1,
        minloglevel=2,
    )
    return Vocabulary(model.getvalue(), 4)


def made_documents(seed: int, count: int, longest: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(6, 40, size=rng.integers(1, longest + 1)) for _ in range(count)]


@pytest.fixture
def layout(vocabulary: Vocabulary) -> Layout:
    return layout_for(vocabulary, 16)


@pytest.fixture
def tokens(tmp_path: Path, vocabulary: Vocabulary, layout: Layout) -> Path:
    """Two train shards, an empty one between them, and a validation shard, rows of 16."""
    facts: dict[str, list[dict]] = {"train": [], "validation": []}
    own: dict[int, list[tuple[int, list[np.ndarray]]]] = {
        0: [(1, made_documents(0, 50, 40))],
        1: [],
        2: [(0, made_documents(2, 30, 40)), (1, made_documents(3, 10, 40))],
    }
    for number, documents in own.items():
        path = tmp_path / "train" / f"shard-{number:05d}.arrow"
        write_shard(path, documents, layout)
        facts["train"].append(shard_facts(path))
    path = tmp_path / "validation" / "shard-00000.arrow"
    write_shard(path, [], layout)
    facts["validation"].append(shard_facts(path))
    sources = {"books": 2.0, "web": 1.0}
    write_manifest(tmp_path, vocabulary=vocabulary, layout=layout, sources=sources, shards=facts)
    return tmp_path


@pytest.mark.parametrize("packing", ["concatenate", "best_fit", "one_document"])
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), max_size=30),
    row_length=st.integers(1, 13),
    tokens_per_batch=st.integers(1, 40),
)
def test_rows_hold_the_documents_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    packing: Packing,
    lengths: list[int],
    row_length: int,
    tokens_per_batch: int,
) -> None:
    """Any documents, packing, row length and record-batch size: every token once, no row too long."""
    path = tmp_path_factory.mktemp("shard") / "shard-00000.arrow"
    documents = np.split(np.arange(6, 6 + sum(lengths)), np.cumsum(lengths))[: len(lengths)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_file, "TOKENS_PER_BATCH", tokens_per_batch)
        write_shard(path, [(3, documents)], Layout(row_length, 1 << 16, 0, packing))
    shard = Shard(path)
    rows = [shard.row(index) for index in range(shard.num_rows)]
    ids = np.concatenate([row.ids for row in rows]) if rows else np.array([], np.int64)
    assert np.array_equal(np.sort(ids), np.arange(6, 6 + sum(lengths)))
    assert all(len(row.ids) <= row_length for row in rows)
    assert all(row.lengths.sum() == len(row.ids) and row.lengths.min() > 0 for row in rows)
    assert shard.sources() == ([(3, len(rows), sum(lengths))] if rows else [])
    if packing == "concatenate":
        assert np.array_equal(ids, np.arange(6, 6 + sum(lengths)))
        assert all(len(row.ids) == row_length for row in rows[:-1])


def test_rows_run_through_the_shards_in_order(tokens: Path) -> None:
    rows = TokenRows(tokens, "train")
    own = ((0, 50), (2, 30), (3, 10))
    expected = [np.concatenate(made_documents(seed, n, 40)) for seed, n in own]
    got = np.concatenate([rows.row(index).ids for index in range(len(rows))])
    assert np.array_equal(got, np.concatenate(expected))
    assert rows.row_length == 16
    with pytest.raises(IndexError):
        rows.row(len(rows))
    rows.verify()


def test_a_row_is_of_the_source_that_the_manifest_says(tokens: Path) -> None:
    rows = TokenRows(tokens, "train")
    books, web = rows.sources()
    assert [(one.name, one.weight) for one in (books, web)] == [("books", 2.0), ("web", 1.0)]
    for one, seeds in ((books, ((2, 30),)), (web, ((0, 50), (3, 10)))):
        numbers = one.at(np.arange(one.num_rows))
        ids = np.concatenate([rows.row(row).ids for row in numbers.tolist()])
        expected = [ids for seed, count in seeds for ids in made_documents(seed, count, 40)]
        assert np.array_equal(ids, np.concatenate(expected))
    assert books.num_rows + web.num_rows == len(rows)


def test_the_writer_gives_the_same_bytes_again(tmp_path: Path, layout: Layout) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, [(0, made_documents(1, 20, 30))], layout)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_row_is_a_view_of_the_mapped_file(tokens: Path) -> None:
    shard = Shard(tokens / "train" / "shard-00000.arrow")
    assert not shard.batches[0].ids.flags.owndata
    assert not shard.batches[0].ids.flags.writeable


def test_datasets_opens_a_shard_and_the_folder(tokens: Path) -> None:
    import datasets

    rows = TokenRows(tokens, "train")
    shard = datasets.Dataset.from_file(str(tokens / "train" / "shard-00000.arrow"))
    assert shard.features["input_ids"].length == 16
    whole = datasets.load_from_disk(str(tokens))
    assert {split: len(found) for split, found in whole.items()} == {"train": len(rows)}
    for dataset in (shard, whole["train"]):
        for index in range(len(dataset)):
            row = rows.row(index)
            assert dataset[index]["input_ids"][: len(row.ids)] == row.ids.tolist()
            assert dataset[index]["lengths"] == row.lengths.tolist()
    books, _ = rows.sources()
    assert whole["train"]["source"].index(0) == books.at(np.array([0]))[0]


def test_ids_above_sixteen_bits_are_kept(tmp_path: Path) -> None:
    assert Layout(4, 1 << 16, 0).dtype == np.uint16
    path = tmp_path / "train" / "shard-00000.arrow"
    write_shard(path, [(0, [np.array([1 << 16, 7])])], Layout(4, (1 << 16) + 1, 0))
    assert Shard(path).row(0).ids.tolist() == [1 << 16, 7]


def test_a_folder_without_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no tokens"):
        TokenRows(tmp_path, "train")


def test_an_empty_split_is_refused(tokens: Path) -> None:
    with pytest.raises(DataError, match="'validation' has no rows"):
        TokenRows(tokens, "validation")


def test_a_shortened_shard_is_refused(tokens: Path) -> None:
    path = tokens / "train" / "shard-00002.arrow"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"shard-00002.arrow: has \d+ bytes"):
        TokenRows(tokens, "train")
    path.unlink()
    with pytest.raises(DataError, match=r"shard-00002.arrow: is missing"):
        TokenRows(tokens, "train")


def test_one_flipped_bit_is_found(tokens: Path) -> None:
    path = tokens / "train" / "shard-00000.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="content differs"):
        TokenRows(tokens, "train").verify()


def test_an_unreadable_shard_is_refused(tokens: Path) -> None:
    path = tokens / "train" / "shard-00000.arrow"
    path.write_bytes(b"\1" * path.stat().st_size)
    with pytest.raises(DataError, match="not a readable token shard"):
        TokenRows(tokens, "train").row(0)


@pytest.mark.parametrize(("key", "value"), [("row_length", 17), ("dtype", "uint32")])
def test_a_manifest_of_other_shards_is_refused(tokens: Path, key: str, value: object) -> None:
    manifest = files.read_json(tokens / "manifest.json")
    files.write_json(tokens / "manifest.json", manifest | {key: value})
    with pytest.raises(DataError, match="make the tokens again"):
        TokenRows(tokens, "train").row(0)


def test_another_vocabulary_is_refused(tokens: Path, vocabulary: Vocabulary) -> None:
    Vocabulary(vocabulary.model, 5).save(tokens / "tokenizer")
    with pytest.raises(DataError, match="not the vocabulary these tokens were made with"):
        TokenRows(tokens, "train")
