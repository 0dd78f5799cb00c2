"""The model files in `configs/models` are what their first lines say, and as large as was published."""

import re
from pathlib import Path

import pytest
import torch

from pipeline.config import build, config, read_document
from pipeline.models import ModelConfig
from pipeline.models.artifact import language_network
from pipeline.models.heads import MaskedLanguageModel, Pooler, ReplacedTokenHead
from pipeline.models.layers import padded_vocab

FOLDER = Path(__file__).parents[2] / "configs" / "models"
FILES = sorted(FOLDER.glob("*.yaml"))

BERT_VOCAB = 30522
# With the pooler, which the released files have: Devlin et al. 2018, Turc et al. 2019
BERT = {
    "bert-tiny": 4_385_920,
    "bert-mini": 11_170_560,
    "bert-small": 28_763_648,
    "bert-medium": 41_373_184,
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
}
# Without the pooler, which ELECTRA has none of: Clark et al. 2020
ELECTRA = {
    "electra-small": 13_483_008,
    "electra-base": 108_891_648,
    "electra-large": 334_092_288,
}
# Both networks with their heads, embeddings once, in millions
ELECTRA_TRAINED = {"electra-small": 14.20, "electra-base": 119.4, "electra-large": 354.7}
T5 = {
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "t5-v1.1-small": 76_961_152,
    "t5-v1.1-base": 247_577_856,
    "t5-v1.1-large": 783_150_080,
    "t5-v1.1-xl": 2_849_757_184,
    "t5-v1.1-xxl": 11_135_332_352,
}
# With their language heads and vocabularies: Shin et al. 2020, Warner et al. 2024
WHOLE = {
    "tta": (29_530, 24_936_282),
    "modernbert-base": (50_368, 149_655_232),
    "modernbert-large": (50_368, 395_881_664),
}
REALFORMER = {  # as rounded in the paper, in millions
    "realformer-small": 30,
    "realformer-base": 110,
    "realformer-large": 340,
    "realformer-xlarge": 1000,
}


@config
class Holder:
    model: ModelConfig


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    lines = [f"  {path.stem}: {{model: {{extends: {path}}}}}\n" for path in FILES]
    run_file = tmp_path_factory.mktemp("models") / "run.yaml"
    run_file.write_text("all:\n" + "".join(lines))
    document = read_document(run_file)
    return {path.stem: build(Holder, document, ("all", path.stem)).model for path in FILES}


def network_of(shape, vocab=BERT_VOCAB):
    with torch.device("meta"):
        return language_network(shape, vocab)


def count(*networks):
    seen = {id(p): p.numel() for network in networks for p in network.parameters()}
    return sum(seen.values())


def padding_of(network):
    """Parameters that exist only because the vocabulary is rounded up."""
    spare = padded_vocab(network.vocab_size) - network.vocab_size
    rows = {id(p): p for p in network.parameters() if p.shape[0] == network.padded_vocab}
    return sum(spare * (p.numel() // p.shape[0]) for p in rows.values())


def embedding_padding_of(encoder, vocab):
    return (padded_vocab(vocab) - vocab) * encoder.embeddings.word.embedding_dim


def test_every_published_size_has_a_file(shapes):
    published = {*BERT, *ELECTRA, *T5, *WHOLE, *REALFORMER, "unilm-base", "unilm-large"}
    assert published <= set(shapes)
    assert {f"{name}-generator" for name in ELECTRA} <= set(shapes)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_model_file_has_the_parameters_it_claims(path, shapes):
    claimed = re.search(r"Parameters: ([\d,]+) with a vocabulary of 32100", path.read_text())
    assert int(claimed[1].replace(",", "")) == count(network_of(shapes[path.stem], 32100))
    assert f"extends: ../models/{path.name}" in path.read_text()


@pytest.mark.parametrize("name", BERT)
def test_bert_has_the_published_number_of_parameters(name, shapes):
    encoder = network_of(shapes[name]).encoder
    with torch.device("meta"):
        pooler = Pooler(shapes[name])
    assert count(encoder, pooler) - embedding_padding_of(encoder, BERT_VOCAB) == BERT[name]


@pytest.mark.parametrize("name", ELECTRA)
def test_electra_has_the_published_number_of_parameters(name, shapes):
    generator = network_of(shapes[f"{name}-generator"])
    encoder = network_of(shapes[name]).encoder
    own = count(encoder) - embedding_padding_of(encoder, BERT_VOCAB)
    assert own == ELECTRA[name]
    with torch.device("meta"):
        head = ReplacedTokenHead(shapes[name])
    embeddings = generator.encoder.embeddings
    shared = [embeddings.word, embeddings.position, embeddings.token_type, embeddings.norm]
    alone = count(generator) - padding_of(generator) - count(*shared)
    alone += embedding_padding_of(generator.encoder, BERT_VOCAB)
    assert abs((own + alone + count(head)) / 1e6 / ELECTRA_TRAINED[name] - 1) < 0.0005


@pytest.mark.parametrize("name", T5)
def test_t5_has_the_published_number_of_parameters(name, shapes):
    assert count(network_of(shapes[name], 32100)) == T5[name]


@pytest.mark.parametrize("name", WHOLE)
def test_other_models_have_the_published_number_of_parameters(name, shapes):
    vocab, parameters = WHOLE[name]
    network = network_of(shapes[name], vocab)
    assert count(network) - padding_of(network) == parameters


def test_unilm_is_bert_with_four_more_token_types(shapes):
    for size, width in (("base", 768), ("large", 1024)):
        own, bert = (network_of(shapes[f"{kind}-{size}"], 28_996) for kind in ("unilm", "bert"))
        assert isinstance(own, MaskedLanguageModel)
        assert count(own) - count(bert) == 4 * width
    encoder = network_of(shapes["unilm-large"], 28_996).encoder
    with torch.device("meta"):
        pooler = Pooler(shapes["unilm-large"])
    cased_bert_large = 333_579_264
    whole = count(encoder, pooler) - embedding_padding_of(encoder, 28_996)
    assert whole == cased_bert_large + 4 * 1024


@pytest.mark.parametrize("name", REALFORMER)
def test_realformer_has_the_parameters_of_bert(name, shapes):
    own = network_of(shapes[name])
    assert abs(count(own.encoder) / 1e6 / REALFORMER[name] - 1) < 0.08
    bert = name.replace("realformer", "bert")
    if bert in shapes:
        other = network_of(shapes[bert])
        assert own.state_dict().keys() == other.state_dict().keys()
        assert count(own) == count(other)
    assert shapes[name].mixer.total == ("mean" if name.endswith("xlarge") else "sum")


def test_shared_stacks_cost_one_encoder_less(shapes):
    base, shared = network_of(shapes["t5-base"]), network_of(shapes["t5-base-shared"])
    assert count(base) - count(shared) == count(base.encoder.layers) + 768
    shallow = network_of(shapes["t5-base-shallow"])
    halves = count(base.encoder.layers[:6], base.decoder.layers[:6])
    assert count(base) - count(shallow) == halves
