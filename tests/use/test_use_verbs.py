"""What the verbs give is what a reader of the papers would compute by hand, one text and one token at a time."""

import numpy as np
import pytest
import torch
from use_worlds import LABELS, WORLDS, model_of

from pipeline.config import ConfigError, DataError
from pipeline.models.artifact import save_model
from pipeline.use import Beam, Model, Sampling, embed, fill, generate, load, predict, rerank, score
from pipeline.use.blanks import around_blanks
from pipeline.use.reading import TextError, batches

TEXTS = ["a large animal that lives in water.", "bread", "", "food made of milk and cheese", "red"]
SOURCES = ["of a house", "a tree that bears fruit", "small", "", "a"]
LONG = " ".join(["animal"] * 50)


def row(*ids):
    ids = torch.tensor([[token for part in ids for token in part]])
    return ids, torch.ones_like(ids), torch.arange(ids.shape[1])[None]


def shares(logits, vocabulary):
    return logits[..., : vocabulary.size].log_softmax(-1).detach()


def by_hand(model, text, source):
    """log p of each token of a text, one at a time."""
    ids = model.vocabulary
    own, asked = (ids.encode([one])[0].tolist() for one in (text, source))
    network = model.network
    marked = row([ids.cls], own, [ids.sep])
    match model.name:
        case "tta":
            told = shares(network(*marked), ids)[0, 1:]
            return [float(told[place, token]) for place, token in enumerate(own)]
        case "electric":
            return (-network(*marked)[0, 1 : len(own) + 1].detach()).tolist()
        case "mlm" | "unilm":
            found = []
            for place, token in enumerate(own):
                hidden = row([ids.cls], own[:place], [ids.mask], own[place + 1 :], [ids.sep])
                logits = network(*hidden, torch.tensor([[place + 1]]))
                found.append(float(shares(logits, ids)[0, 0, token]))
            return found
        case "t5":
            found, written = [], [ids.pad]
            read = row(asked, [ids.eos])[:2]
            for token in [*own, ids.eos]:
                logits = network(*read, *row(written)[:2])
                found.append(float(shares(logits, ids)[0, -1, token]))
                written.append(token)
            return found
        case _:
            before = [*asked, ids.eos] if model.name == "pairs" else [ids.eos, *asked]
            wanted = [*own, ids.eos] if model.name == "pairs" else own
            prefix = None if model.name == "lm" else torch.tensor([len(before)])
            found = []
            for token in wanted:
                logits = network(*row(before), prefix)
                found.append(float(shares(logits, ids)[0, -1, token]))
                before.append(token)
            return found


@pytest.mark.parametrize("name", ["tta", "mlm", "unilm", "electric", "lm", "prefix", "pairs", "t5"])
def test_a_score_is_the_sum_over_tokens_by_hand_in_any_batch(vocabulary, name):
    model = model_of(name, vocabulary)
    sourced = name in ("lm", "prefix", "pairs", "t5")
    found = score(model, TEXTS, SOURCES if sourced else None)
    some = score(model, TEXTS, SOURCES if sourced else None, at_once=1)
    for text, source, one, alone in zip(TEXTS, SOURCES, found, some, strict=True):
        expected = by_hand(model, text, source)
        assert one.each == pytest.approx(expected, abs=1e-11)
        assert alone.each == pytest.approx(expected, abs=1e-11)
        assert one.total == sum(one.each)
        assert len(one.tokens) == len(one.each)
    if name in ("lm", "prefix"):
        free = score(model, TEXTS)
        assert free[0].each == pytest.approx(by_hand(model, TEXTS[0], ""), abs=1e-11)


@pytest.mark.slow
def test_an_imported_model_scores_as_it_does_in_transformers(tmp_path):
    import transformers
    from hub_worlds import saved

    from pipeline.models.hub.folder import import_folder

    folder = saved("BertForMaskedLM", tmp_path)
    imported = import_folder(folder)
    model = Model(imported.network.double(), imported.vocabulary, {})
    original = transformers.BertForMaskedLM.from_pretrained(folder).double().eval()
    ids = [imported.vocabulary.cls, *imported.vocabulary.encode(["the big red"])[0].tolist()]
    ids.append(imported.vocabulary.sep)
    expected = []
    for place in range(1, len(ids) - 1):
        hidden = torch.tensor([ids])
        hidden[0, place] = imported.vocabulary.mask
        with torch.no_grad():
            # Rows above the tokenizer's ids have no names, and no text can hold them.
            told = shares(original(hidden).logits[0, place], imported.vocabulary)
        expected.append(float(told[ids[place]]))
    assert score(model, ["the big red"])[0].each == pytest.approx(expected, abs=1e-9)


def test_what_cannot_be_scored_is_said(vocabulary):
    for name, sources, words in (
        ("rtd", None, "tells replaced tokens"),
        ("t5", None, "given"),
        ("pairs", None, "given"),
        ("mlm", SOURCES, "leave the sources out"),
        ("classifier", None, "no probabilities of tokens"),
    ):
        with pytest.raises(ConfigError, match=words):
            score(model_of(name, vocabulary), TEXTS, sources)
    model = model_of("tta", vocabulary)
    with pytest.raises(TextError, match=r"text 2: has .* tokens, there is room for 38") as caught:
        score(model, ["red", LONG])
    assert caught.value.number == 1
    cut = score(model, [LONG], longer="cut")[0]
    assert len(cut.tokens) == 38


@pytest.mark.parametrize("name", ["t5", "lm", "pairs", "unilm"])
def test_what_is_written_depends_on_a_text_and_its_number_alone(vocabulary, name):
    model = model_of(name, vocabulary)
    how = Sampling(max_new_tokens=6, num_samples=2, seed=3)
    together = generate(model, TEXTS, how)
    numbers = list(reversed(range(len(TEXTS))))
    backwards = generate(model, TEXTS[::-1], how, numbers=numbers, at_once=1)
    assert [[one.text for one in own] for own in backwards[::-1]] == [
        [one.text for one in own] for own in together
    ]
    assert generate(model, TEXTS, how, numbers=[9, 8, 7, 6, 5]) != together
    best = generate(model, TEXTS, Beam(max_new_tokens=6, beams=3, num_returned=2))
    assert all(len(own) == 2 and own[0].score >= own[1].score for own in best)


def test_an_encoder_decoder_writes_what_it_scores(vocabulary):
    model = model_of("t5", vocabulary)
    for source, (best,) in zip(
        SOURCES, generate(model, SOURCES, Beam(max_new_tokens=4)), strict=True
    ):
        ids = vocabulary.encode([best.text])[0]
        if best.ended and len(ids) == best.tokens:
            told = score(model, [best.text], [source])[0]
            expected = told.total / Beam().penalty(len(told.tokens))
            assert best.score == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ConfigError, match="T-TA predicts"):
        generate(model_of("tta", vocabulary), TEXTS)
    with pytest.raises(ConfigError, match="no room for a text"):
        generate(model_of("lm", vocabulary), TEXTS, Sampling(max_new_tokens=40))


@pytest.mark.parametrize("name", ["mlm", "tta"])
def test_blanks_get_the_most_probable_words(vocabulary, name):
    model = model_of(name, vocabulary)
    texts = ["a large [MASK] in water.", "[MASK]"]
    found = fill(model, texts, top=4)
    alone = fill(model, texts, top=4, at_once=1)
    for text, one, other in zip(texts, found, alone, strict=True):
        ids = around_blanks(vocabulary, text.split("[MASK]"))
        place = 1 + ids.index(vocabulary.mask)
        given = row([vocabulary.cls], ids, [vocabulary.sep])
        at = () if name == "tta" else (torch.tensor([[place]]),)
        logits = model.network(*given, *at)[0, place if name == "tta" else 0]
        told = shares(logits, vocabulary).exp()
        (blank,) = one.blanks
        for candidate in blank:
            token = next(
                n for n in range(vocabulary.size) if vocabulary.piece(n) == candidate.piece
            )
            assert candidate.probability == pytest.approx(float(told[token]), abs=1e-12)
        probabilities = [candidate.probability for candidate in blank]
        assert probabilities == sorted(probabilities, reverse=True)
        assert [c.piece for c in other.blanks[0]] == [c.piece for c in blank]
        assert not {"[MASK]", "[CLS]", "<pad>", "<extra_id_0>"} & {c.piece for c in blank}


def test_a_blank_leaves_the_rest_of_its_text_as_it_was(vocabulary):
    sentence = "a fish, a bird (or a tree) that lives near water."
    for word in ("fish", "bird", "tree", "lives", "water"):
        whole = vocabulary.encode([sentence])[0].tolist()
        own = vocabulary.encode([word])[0].tolist()
        first = next(n for n in range(len(whole)) if whole[n : n + len(own)] == own)
        expected = [*whole[:first], vocabulary.mask, *whole[first + len(own) :]]
        assert around_blanks(vocabulary, sentence.split(word)) == expected


def test_blanks_that_cannot_be_filled_are_refused(vocabulary):
    model = model_of("tta", vocabulary)
    assert len(fill(model_of("mlm", vocabulary), ["_ and _"], mark="_")[0].blanks) == 2
    for text, words in (("no blank", "text 1: has no"), ("[MASK] [MASK]", "T-TA")):
        with pytest.raises(TextError, match=words):
            fill(model, [text])
    with pytest.raises(ConfigError, match="fills no blanks"):
        fill(model_of("t5", vocabulary), ["a [MASK]"])


def test_lists_are_put_in_order_by_both_scores(vocabulary):
    model = model_of("tta", vocabulary)
    lists = [[(text, -float(n)) for n, text in enumerate(TEXTS)], [], [("red", 0.0), ("red", 0.0)]]
    scores = [one.total for one in score(model, TEXTS)]
    for weight in (0.0, 0.3, 1.0):
        first, none, same = rerank(model, lists, weight)
        totals = [(1 - weight) * -n + weight * own for n, own in enumerate(scores)]
        order = sorted(range(len(TEXTS)), key=lambda n: -totals[n])
        assert [one.text for one in first] == [TEXTS[n] for n in order]
        assert [one.total for one in first] == pytest.approx(sorted(totals, reverse=True))
        assert none == []
        assert same[0] == same[1]
    with pytest.raises(TextError) as caught:
        rerank(model, [[("red", 0.0)], [("a", 0.0), (LONG, 0.0)]])
    assert caught.value.number == 1


@pytest.mark.parametrize("name", WORLDS)
def test_vectors_are_means_of_states_in_any_batch(vocabulary, name):
    model = model_of(name, vocabulary)
    found = embed(model, TEXTS)
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), 16)
    assert np.array_equal(found, embed(model, TEXTS, at_once=1)) or np.allclose(
        found, embed(model, TEXTS, at_once=1), atol=1e-6
    )
    assert np.isfinite(found).all()
    if name != "mlm":
        return
    own = vocabulary.encode(TEXTS[:1])[0].tolist()
    states = model.network.encoder(*row([vocabulary.cls], own, [vocabulary.sep]))[0].detach()
    assert found[0] == pytest.approx(states[1:-1].mean(dim=0).numpy(), abs=1e-6)
    marked = embed(model, TEXTS, "mean_with_marks")[0]
    assert marked == pytest.approx(states.mean(dim=0).numpy(), abs=1e-6)
    assert embed(model, TEXTS, "cls")[0] == pytest.approx(states[0].numpy(), abs=1e-6)
    with pytest.raises(ConfigError, match=r"no \[CLS\]"):
        embed(model_of("lm", vocabulary), TEXTS, "cls")


def test_labels_are_the_classifiers_and_long_texts_are_cut_as_in_training(vocabulary):
    model = model_of("classifier", vocabulary)
    found = predict(model, [*TEXTS, LONG, {"text": "red", "label": "unread"}])
    for text, one in zip([*TEXTS, LONG], found, strict=False):
        own = vocabulary.encode([text])[0].tolist()[:18]
        logits = model.network(*row([vocabulary.cls], own, [vocabulary.sep]))[0]
        told = logits.softmax(-1).tolist()
        assert list(one["probabilities"].values()) == pytest.approx(told, abs=1e-12)
        assert one["label"] == LABELS[int(np.argmax(told))]
    with pytest.raises(TextError, match="text 2: text: classification needs a text"):
        predict(model, ["red", {"body": "red"}])
    with pytest.raises(ConfigError, match="predicts nothing"):
        predict(model_of("mlm", vocabulary), TEXTS)


@pytest.mark.parametrize(
    ("form", "heads", "rows", "said"),
    [
        ("regression", 1, [{"text": "red", "second": "a tree"}, {"text": LONG}], {"value"}),
        (
            "choice",
            1,
            [{"text": "a", "choices": ["red", "tree"]}, {"text": "", "choices": TEXTS}],
            {"choice", "probabilities"},
        ),
        ("token_labels", 3, [{"words": LONG.split()}, {"words": ["a", "red", "tree"]}], {"labels"}),
        (
            "span",
            2,
            [{"question": "who", "context": LONG}, {"question": "a red", "context": TEXTS[0]}],
            {"answer", "start", "end", "score", "score_of_none"},
        ),
    ],
)
def test_every_form_of_task_is_answered_row_by_row(vocabulary, form, heads, rows, said):
    name = "words" if form in ("token_labels", "span") else "classifier"
    model = model_of(name, vocabulary, heads, form=form, labels=LABELS[:heads])
    found = predict(model, rows)
    assert [set(one) for one in found] == [said, said]
    for row, one in zip(rows, found, strict=True):
        (alone,) = predict(model, [{**row, "label": "never read"}])
        for key, value in one.items():
            numbers = key in ("value", "probabilities", "score", "score_of_none")
            assert alone[key] == (pytest.approx(value, abs=1e-9) if numbers else value)
    with pytest.raises(TextError, match=r"text 1: .*needs"):
        predict(model, [{}])


def test_groups_hold_what_they_may_and_every_text_once():
    lengths = [5, 1, 9, 3, 3, 20, 1]
    groups = list(batches(lengths, 10))
    assert sorted(number for group in groups for number in group) == list(range(len(lengths)))
    assert all(
        len(group) == 1 or len(group) * max(lengths[n] for n in group) <= 10 for group in groups
    )
    assert len(groups) == 4  # 1 1 3, 3 5, 9, 20


def test_a_model_is_read_from_the_folder_of_a_stage(vocabulary, tmp_path):
    model = model_of("mlm", vocabulary)
    save_model(tmp_path / "stage" / "model", model.network.float(), vocabulary, model.facts)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text('{"model_type": "bert"}')
    for folder in (tmp_path / "stage", tmp_path / "stage" / "model"):
        loaded = load(folder, "cpu")
        assert loaded.objective == "mlm"
        assert score(loaded, ["red"]) == score(model, ["red"])
    with pytest.raises(DataError, match="kind: import"):
        load(tmp_path / "hub")
    with pytest.raises(DataError, match="holds no model"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="allowed: auto, cpu"):
        load(tmp_path / "stage", "gqu")
