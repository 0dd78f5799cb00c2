"""Parity with transformers on random weights, and the exported tokenizer."""

import dataclasses
import io
import json

import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch
import transformers
from real_text import documents

from pipeline.config import DataError
from pipeline.models.decoder import DecoderConfig, LanguageModel
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.heads import MaskedLanguageModel, ReplacedTokenDetector, SequenceClassifier
from pipeline.models.hub.catalogue import family_for, settings_for
from pipeline.models.hub.folder import export_folder, loaded_model
from pipeline.models.hub.verify import compare_outputs, verify_folder
from pipeline.models.tokenizer_json import merges_of
from pipeline.tokenizer import SPECIAL_PIECES, Vocabulary, imported

TEXTS = [
    "The mixer owns its projections.",
    "two   spaces,\ta tab\nand a new line ",
    "naïve ﬁle ½ É 東京",
    "",
    "1e-4 != 0.001; x[3:5]",
]
BERT = EncoderConfig(num_layers=3, hidden_size=48, num_heads=4, ffn_size=96, max_length=64)
T5 = {"num_layers": 2, "num_decoder_layers": 3, "hidden_size": 48, "num_heads": 3, "ffn_size": 80}
T5_1_0 = EncoderDecoderConfig(**T5, head_size=8)
T5_1_1 = EncoderDecoderConfig(**T5, head_size=8, feed_forward="geglu", tied_head=False)
ELECTRA = dataclasses.replace(BERT, embedding_size=20)
MODERN = EncoderConfig(
    num_layers=5,
    hidden_size=48,
    num_heads=4,
    ffn_size=64,
    feed_forward="geglu_exact",
    biases=False,
    normalised="before",
    first_norm=False,
    max_length=64,
    positions="rotary",
    rotary_base=900.0,
    local_rotary_base=30.0,
    window=3,
    global_every=2,
    token_types=0,
    dropout=0.0,
)
SHARED = {"num_decoder_layers": 2, "shared_stacks": True}
DECODER = DecoderConfig(num_layers=1, hidden_size=8, num_heads=2, ffn_size=8, max_length=9)
BUILD = {
    "BertForMaskedLM": lambda size: MaskedLanguageModel(BERT, size),
    "BertForSequenceClassification": lambda size: SequenceClassifier(BERT, size, 3),
    "ElectraForMaskedLM": lambda size: MaskedLanguageModel(ELECTRA, size),
    "ElectraForPreTraining": lambda size: ReplacedTokenDetector(ELECTRA, size),
    "ElectraForPreTraining of one size": lambda size: ReplacedTokenDetector(BERT, size),
    "ModernBertForMaskedLM": lambda size: MaskedLanguageModel(MODERN, size),
    "RobertaForMaskedLM": lambda size: MaskedLanguageModel(BERT, size),
    "RobertaForSequenceClassification": lambda size: SequenceClassifier(BERT, size, 3),
    "T5ForConditionalGeneration": lambda size: EncoderDecoder(T5_1_0, size),
    "T5ForConditionalGeneration 1.1": lambda size: EncoderDecoder(T5_1_1, size),
}


def family_of(name):
    """RoBERTa has to be asked for, as every BERT is one."""
    return "roberta" if name.startswith("Roberta") else None


def perturbed(network):
    """All parameters away from their special initial values, so that none goes unnoticed."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize("name", BUILD)
def test_transformers_computes_the_same(name, vocabulary, tmp_path):
    network = perturbed(BUILD[name](vocabulary.size))
    labels = ["a", "b", "c"] if "Classification" in name else ()
    export_folder(network, vocabulary, tmp_path, labels, family_of(name))
    found = verify_folder(network, vocabulary, tmp_path, TEXTS)
    assert found["architecture"] == name.split()[0]
    assert 0 <= found["max_abs_difference"] <= 1e-5
    assert found["largest_abs_logit"] > 0.1
    assert found["texts_with_equal_ids"] == found["texts"] == len(TEXTS)
    assert network.training
    if labels:
        settings = transformers.AutoConfig.from_pretrained(tmp_path)
        assert settings.id2label == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize("name", BUILD)
def test_a_change_of_any_weight_is_noticed(name, vocabulary, tmp_path):
    network = perturbed(BUILD[name](vocabulary.size)).eval()
    export_folder(network, vocabulary, tmp_path, (), family_of(name))
    theirs = loaded_model(tmp_path)
    rows = [np.arange(10, 30), np.arange(50, 63)]
    for weight, parameter in network.named_parameters():
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter += 0.3 * torch.randn_like(parameter)
            difference, _ = compare_outputs(network, theirs, rows, vocabulary.pad)
            parameter.copy_(before)
        # a bias of keys moves all scores of a query alike, which softmax does not see
        assert (difference > 1e-4) != weight.endswith("mixer.key.bias"), weight
    assert compare_outputs(network, theirs, rows, vocabulary.pad)[0] <= 1e-5


def test_every_weight_has_one_name_in_transformers(vocabulary, tmp_path):
    network = EncoderDecoder(T5_1_1, vocabulary.size)
    export_folder(network, vocabulary, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_decoder_layers": 2}))
    with pytest.raises(DataError, match=r"weights do not fit, first decoder\.block\.2"):
        verify_folder(network, vocabulary, tmp_path, TEXTS)


def test_special_tokens_stand_where_each_model_needs_them(vocabulary, tmp_path):
    (ids,) = vocabulary.encode([TEXTS[0]])
    export_folder(BUILD["BertForMaskedLM"](vocabulary.size), vocabulary, tmp_path / "bert")
    bert = transformers.AutoTokenizer.from_pretrained(tmp_path / "bert")
    assert bert(TEXTS[0])["input_ids"] == [3, *ids, 4]
    assert bert(TEXTS[0], TEXTS[0])["input_ids"] == [3, *ids, 4, *ids, 4]
    assert (bert.mask_token_id, bert.pad_token_id, bert.unk_token_id) == (5, 0, 2)
    assert bert.model_max_length == 64
    the, rest = vocabulary.encode(["The", "its projections."])
    masked = bert("The [MASK] its projections.")["input_ids"]
    assert masked == [3, *the, 5, *rest, 4]
    export_folder(BUILD["T5ForConditionalGeneration"](vocabulary.size), vocabulary, tmp_path / "t5")
    t5 = transformers.AutoTokenizer.from_pretrained(tmp_path / "t5")
    assert t5(TEXTS[0])["input_ids"] == [*ids, 1]
    for index in (0, 1, 39):
        assert t5.convert_tokens_to_ids(f"<extra_id_{index}>") == vocabulary.sentinel(index)
    assert t5("The <extra_id_1> its projections.")["input_ids"] == [
        *the,
        vocabulary.sentinel(1),
        *rest,
        1,
    ]
    assert t5.decode(ids) == TEXTS[0]


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
@pytest.mark.parametrize("fallback", ["bytes", "unknown"])
def test_either_algorithm_gives_sentencepieces_ids(algorithm, fallback, vocabulary, tmp_path):
    own = documents()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(own),
        model_writer=model,
        model_type=algorithm,
        byte_fallback=fallback == "bytes",
        vocab_size=900,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        control_symbols=list(SPECIAL_PIECES[3:]),
        num_threads=1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    trained = Vocabulary(model.getvalue(), 10)
    shape = EncoderConfig(num_layers=1, hidden_size=8, num_heads=1, ffn_size=8)
    network = MaskedLanguageModel(shape, trained.size)
    export_folder(network, trained, tmp_path)
    plain = [text for text in own if not any(piece in text for piece in SPECIAL_PIECES)]
    plain = [text for text in plain if "<extra_id" not in text]
    found = verify_folder(network, trained, tmp_path, [*TEXTS, *plain])
    assert found["texts"] > 200
    assert found["texts_with_equal_ids"] >= 0.99 * found["texts"]


@pytest.mark.parametrize("layout", ["t5", "word_piece"])
def test_a_vocabulary_of_another_layout_is_exported_with_its_own_ids(layout, tmp_path):
    if layout == "t5":
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(documents()),
            model_writer=model,
            model_type="bpe",
            byte_fallback=True,
            vocab_size=900,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
        own = imported(model.getvalue(), "sentencepiece", 100, {})
    else:
        letters = sorted({letter for text in documents() for letter in text if letter.isalnum()})
        pieces = ["[PAD]", "[UNK]", "the", *letters, *(f"##{letter}" for letter in letters)]
        lines = "\n".join(["[unused0]", *pieces, "[MASK]", "[CLS]", "[SEP]"])
        tokenizer = tokenizers.BertWordPieceTokenizer(
            {line: number for number, line in enumerate(lines.split("\n"))}
        )
        own = imported(tokenizer.to_str().encode(), "tokenizers", 5, {})
    networks = {
        name: BUILD[name](own.size) for name in ("BertForMaskedLM", "T5ForConditionalGeneration")
    }
    for name, network in networks.items():
        export_folder(network, own, tmp_path / name)
        found = verify_folder(network, own, tmp_path / name, [*TEXTS, *documents()[:100]])
        assert found["texts_with_equal_ids"] == found["texts"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "BertForMaskedLM")
    (ids,) = own.encode([TEXTS[0]])
    assert tokenizer(TEXTS[0])["input_ids"] == [own.cls, *ids, own.sep]
    assert (tokenizer.mask_token_id, tokenizer.pad_token_id) == (own.mask, own.pad)
    settings = transformers.AutoConfig.from_pretrained(tmp_path / "T5ForConditionalGeneration")
    assert (settings.eos_token_id, settings.decoder_start_token_id) == (own.eos, own.pad)


def test_merges_are_in_the_order_of_their_scores():
    pieces = [*((piece, 0.0) for piece in SPECIAL_PIECES), ("ab", -0.0), ("abc", -1.0)]
    pieces += [("bc", -2.0), ("a", -3.0), ("b", -4.0), ("c", -5.0)]
    assert merges_of(pieces, without=SPECIAL_PIECES) == [
        ("a", "b"),
        ("a", "bc"),
        ("ab", "c"),
        ("b", "c"),
    ]


def refused(network, vocabulary):
    return settings_for(network, vocabulary, family_for(network))


def test_what_transformers_cannot_express_is_refused(vocabulary):
    shape = EncoderConfig(num_layers=1, hidden_size=8, num_heads=2, head_size=3, ffn_size=8)
    with pytest.raises(DataError, match="2 heads of 3 are not hidden_size 8"):
        refused(MaskedLanguageModel(shape, 100), vocabulary)
    shape = EncoderDecoderConfig(**T5, mixer={"type": "softmax", "dropout": 0.3})
    with pytest.raises(DataError, match=r"has one dropout rate, this network has \[0.1, 0.3\]"):
        refused(EncoderDecoder(shape, 100), vocabulary)
    for changes, words in (
        (
            {"mixer": "linear"},
            "mixer: .*'linear'.* has no place in the classes of transformers for bert",
        ),
        ({"norm": "rms_norm"}, "norm: 'rms_norm' has no place"),
        ({"positions": "alibi"}, "positions: 'alibi' has no place"),
        ({"token_types": 0}, "token_types: 0 has no place"),
        ({"window": 5}, r"window: \[5, 5, 5\] has no place"),
        ({"positions": "rotary"}, "classes of transformers for modernbert"),
    ):
        network = MaskedLanguageModel(dataclasses.replace(BERT, **changes), 100)
        with pytest.raises(DataError, match=words):
            refused(network, vocabulary)
    with pytest.raises(DataError, match="electra in transformers has no class for a SequenceCl"):
        refused(SequenceClassifier(ELECTRA, 100, 2), vocabulary)
    with pytest.raises(DataError, match="shared_stacks: True has no place"):
        refused(EncoderDecoder(EncoderDecoderConfig(**T5 | SHARED), 100), vocabulary)
    with pytest.raises(DataError, match="a model of type decoder has no class"):
        refused(LanguageModel(DECODER, 100), vocabulary)


@pytest.mark.parametrize("name", ["RobertaForMaskedLM", "RobertaForSequenceClassification"])
def test_positions_of_roberta_begin_above_padding(name, vocabulary, tmp_path):
    network = perturbed(BUILD[name](vocabulary.size))
    export_folder(network, vocabulary, tmp_path, (), "roberta")
    table = loaded_model(tmp_path).roberta.embeddings.position_embeddings.weight
    assert torch.equal(table[1:], network.encoder.embeddings.position.weight)
    assert not table[0].any()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    one, other = (ids.tolist() for ids in vocabulary.encode(["one", "other"]))
    assert tokenizer("one", "other")["input_ids"] == [3, *one, 4, 4, *other, 4]
