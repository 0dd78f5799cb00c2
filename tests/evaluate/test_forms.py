"""Rows of every form of task: what a network reads of them, and what its outputs mean together."""

import io
import itertools

import numpy as np
import pytest
import sentencepiece
import torch

from pipeline.data.example import IGNORED
from pipeline.evaluate.forms import FORMS, Aims, Reading
from pipeline.evaluate.forms.form import outputs_of
from pipeline.evaluate.forms.span import LONGEST_ANSWER, pieces_of
from pipeline.evaluate.forms.windows import cut, starts_of
from pipeline.models.encoder import EncoderConfig
from pipeline.tokenizer import CLS, SEP, SPECIAL_PIECES, Vocabulary

SHAPE = EncoderConfig(
    num_layers=1, hidden_size=8, num_heads=2, ffn_size=16, max_length=24, dropout=0.0
)
WORDS = "the cat sat on a red mat while one dog ran far away from here (really)".split()
LONG = " ".join(WORDS * 3)
ROWS = {
    "classification": [
        {"text": "the cat", "second": "sat on a mat", "label": 0},
        {"text": "a dog ran", "second": LONG, "label": 1},
    ],
    "regression": [{"text": "the cat", "label": 0.5}, {"text": LONG, "label": 2.0}],
    "choice": [
        {"text": "the cat sat", "choices": ["on a mat", "far away"], "label": 1},
        {"text": LONG, "choices": ["a dog", "here", "one red mat"], "label": 2},
    ],
    "token_labels": [
        {"words": ["the", "cat", "sat"], "labels": [0, 1, 0]},
        {"words": WORDS * 3, "labels": [0, 1, 2] * (len(WORDS))},
    ],
    "span": [
        {
            "question": "who sat",
            "context": LONG,
            "answers": [{"text": "dog ran", "start": LONG.index("dog")}],
        },
        {"question": "where", "context": "the cat sat", "answers": []},
    ],
}
LABELS = ("O", "B-A", "I-A")


@pytest.fixture(scope="module")
def vocabulary():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([LONG] * 50),
        model_writer=out,
        vocab_size=60,
        hard_vocab_limit=False,
        bos_id=-1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        pad_piece=SPECIAL_PIECES[0],
        control_symbols=list(SPECIAL_PIECES[3:]),
        minloglevel=2,
    )
    return Vocabulary(out.getvalue(), 3)


def network_of(form, vocabulary):
    torch.manual_seed(3)
    return form.network(SHAPE, vocabulary.size, form.outputs(LABELS)).eval()


@pytest.mark.parametrize("name", FORMS)
def test_sums_do_not_depend_on_how_rows_are_batched(name, vocabulary):
    form = FORMS[name]
    network = network_of(form, vocabulary).double()
    reading = Reading(24, 8 if form.windows else None)
    source = form.encoded(ROWS[name], vocabulary, reading)
    objective = form.objective(network, Aims("accuracy"))

    def sums(batches):
        total, counts = {}, {}
        for rows in batches:
            batch = source.batch_of(rows)
            for key, value in objective.counts(batch).items():
                counts[key] = counts.get(key, 0) + value
            tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
            for key, value in objective(tensors).items():
                total[key] = total.get(key, 0) + value.detach().double()
        return total, counts

    everything = list(range(len(source)))
    for mode in (objective.train, objective.eval):
        mode()
        whole, counts = sums([everything])
        single, alone = sums([[row] for row in everything])
        assert counts == alone
        assert whole.keys() == single.keys()
        for key in whole:
            torch.testing.assert_close(whole[key], single[key], rtol=1e-6, atol=1e-6)
        assert set(objective.weights) <= whole.keys()


@pytest.mark.parametrize("name", FORMS)
def test_every_form_learns_two_rows_by_heart(name, vocabulary):
    form = FORMS[name]
    network = network_of(form, vocabulary)
    source = form.encoded(ROWS[name], vocabulary, Reading(24, None))
    objective = form.objective(network, Aims("accuracy")).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    batch = {k: torch.from_numpy(v) for k, v in source.batch_of(range(len(source))).items()}
    for _ in range(120):
        optimizer.zero_grad()
        sums = objective(batch)
        sum(sums[term] for term in objective.weights).backward()
        optimizer.step()
    said = form.answered(network, source)
    golds = form.golds(ROWS[name])
    if name == "regression":
        assert said == pytest.approx(golds, abs=0.1)
    elif name == "span":
        assert said == ["dog ran", ""]
    else:
        assert said == golds
    answers = form.answers(outputs_of(network, source), source)
    assert all(form.told(answer, LABELS) for answer in answers)


def test_two_texts_are_cut_as_in_the_code_of_bert():
    for first, second, room in itertools.product(range(7), range(7), range(2, 9)):
        one, two = list(range(first)), list(range(second))
        while len(one) + len(two) > room:
            (one if len(one) > len(two) else two).pop()
        found = cut(np.arange(first), np.arange(second), room)
        assert [len(part) for part in found] == [len(one), len(two)]


def test_windows_hold_every_token_and_all_but_the_last_are_full():
    for length, width in itertools.product(range(12), range(1, 6)):
        for stride in range(1, width + 1):
            starts = list(starts_of(length, width, stride))
            assert {n for s in starts for n in range(s, s + width)} >= set(range(length))
            assert all(start + width < length for start in starts[:-1])


def test_a_pair_has_types_and_its_second_text_moves_through_windows(vocabulary):
    form = FORMS["classification"]
    source = form.encoded(ROWS["classification"], vocabulary, Reading(24, 8))
    ids, types = source.input_ids, source.token_types
    first, second = vocabulary.encode(["the cat", "sat on a mat"])
    assert ids[0, : source.lengths[0]].tolist() == [CLS, *first, SEP, *second, SEP]
    assert types[0, : source.lengths[0]].tolist() == [0] * (len(first) + 2) + [1] * (
        len(second) + 1
    )
    head = [CLS, *vocabulary.encode(["a dog ran"])[0], SEP]
    long = vocabulary.encode([LONG])[0].tolist()
    assert source.owners.tolist() == [0] + [1] * (len(source) - 1)
    width = 24 - len(head) - 1
    for number in range(1, len(source)):
        own = ids[number, : source.lengths[number]].tolist()
        start = 8 * (number - 1)
        assert own == [*head, *long[start : start + width], SEP]
        assert source.labels["label"][number] == 1
    assert own[-2] == long[-1]


def test_the_answer_for_windows_is_the_mean_of_their_probabilities(vocabulary):
    form = FORMS["classification"]
    network = network_of(form, vocabulary)
    source = form.encoded(ROWS["classification"][1:], vocabulary, Reading(24, 8))
    outputs = outputs_of(network, source)
    [answer] = form.answers(outputs, source)
    expected = torch.softmax(torch.tensor(np.stack(outputs)).double(), dim=-1).mean(dim=0)
    np.testing.assert_allclose(answer, expected, rtol=1e-12)


def test_choices_beyond_a_rows_own_never_win(vocabulary):
    form = FORMS["choice"]
    source = form.encoded(ROWS["choice"], vocabulary, Reading(24))
    assert source.input_ids.shape == (2, 3, 24)
    outputs = [np.array([[0.0], [1.0], [9.0]]), np.array([[0.0], [1.0], [9.0]])]
    answers = form.answers(outputs, source)
    assert [form.decided(answer) for answer in answers] == [1, 2]
    assert len(answers[0]) == 2


def test_a_word_is_labelled_once_at_its_first_piece_in_the_window_it_is_most_central_in(vocabulary):
    form = FORMS["token_labels"]
    rows = ROWS["token_labels"]
    source = form.encoded(rows, vocabulary, Reading(24, 6))
    labels = source.labels["labels"]
    outputs = list(np.eye(3)[np.where(labels == IGNORED, 0, labels)])
    assert form.answers(outputs, source) == form.golds(rows)
    assert (source.labels["labels"][0] != IGNORED).sum() == 3
    pieces = vocabulary.encode(rows[1]["words"])
    starts = np.cumsum([0, *map(len, pieces)])[:-1]
    windows = [n for n, owner in enumerate(source.owners) if owner == 1]
    for start, (window, place) in zip(starts, source.places[1], strict=True):
        first = 6 * (window - windows[0])
        assert place == 1 + start - first
        sides = [
            min(start - 6 * n, min(6 * n + 22, int(starts[-1]) + len(pieces[-1])) - 1 - start)
            for n in range(len(windows))
            if 6 * n <= start < 6 * n + 22
        ]
        here = min(start - first, min(first + 22, int(starts[-1]) + len(pieces[-1])) - 1 - start)
        assert here == max(sides)


def test_letters_of_tokens_are_those_they_spell(vocabulary):
    context = f"  {LONG}\n (really)"
    pieces = pieces_of(context, vocabulary)
    said = [vocabulary.piece(int(token)).lstrip("▁") for token in pieces.ids]
    assert [context[first:end] for first, end in pieces.letters] == said
    strange = pieces_of("the ☃cat", vocabulary)
    last = {letters for letters in strange.letters if letters[1] > len("the")}
    assert last == {(4, 8)}, "what is not spelt stands for the whole word"


def test_the_best_stretch_of_all_windows_is_the_answer(vocabulary):
    form = FORMS["span"]
    rows = ROWS["span"]
    source = form.encoded(rows, vocabulary, Reading(24, 6))
    rng = np.random.default_rng(0)
    outputs = [rng.normal(size=(24, 2)) for _ in range(len(source))]
    best = []
    for number, row in enumerate(rows):
        found = [(-np.inf, "")]
        none = np.inf
        for output, owner, (at, letters) in zip(
            outputs, source.owners, source.letters, strict=True
        ):
            if owner != number:
                continue
            none = min(none, output[0].sum())
            for first, last in itertools.combinations_with_replacement(range(len(letters)), 2):
                if last - first < LONGEST_ANSWER:
                    text = row["context"][letters[first][0] : letters[last][1]]
                    found.append((output[at + first, 0] + output[at + last, 1], text))
        score, text = max(found)
        best.append(text if score >= none else "")
    assert [form.decided(answer) for answer in form.answers(outputs, source)] == best
    whole = [window for window, owner in enumerate(source.owners) if owner == 0]
    right = [source.labels["span"][window].tolist() for window in whole]
    for (at, letters), (first, last) in zip(source.letters, right, strict=False):
        if (first, last) != (0, 0):
            start, end = letters[first - at][0], letters[last - at][1]
            assert LONG[start:end] == "dog ran"
    assert any(ends != [0, 0] for ends in right)
    assert [0, 0] in right
