"""Small tokenizers and random models of transformers, saved as Hugging Face folders."""

import string

import numpy as np
import tokenizers
import torch
import transformers
from real_text import documents
from tokenizers import decoders, models, pre_tokenizers, trainers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_piece():
    """BERT's kind of tokenizer: lower case, letters and a few words."""
    pieces = ["[unused0]", *SPECIAL, "the", "##ing", *string.ascii_lowercase, *string.punctuation]
    pieces += [f"##{letter}" for letter in string.ascii_lowercase] + list(string.digits)
    backend = tokenizers.BertWordPieceTokenizer({piece: n for n, piece in enumerate(pieces)})
    names = zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True)
    named = {f"{role}_token": piece for role, piece in names}
    return transformers.BertTokenizer(tokenizer_object=backend._tokenizer, **named)


def byte_level():
    """RoBERTa's kind of tokenizer: bytes and merges, padding is id 1."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(documents()[:300], trainer)
    backend.post_processor = tokenizers.processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def t5_like():
    """T5's kind of tokenizer: unigrams, sentinels at the end, and nothing like [CLS]."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(10))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(documents()[:100], trainer)
    backend.add_special_tokens(sentinels)
    end = ("</s>", 1)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[end]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def bert_sizes(rng):
    heads = int(rng.integers(1, 5))
    return {
        "hidden_size": heads * int(rng.integers(2, 9)) * 2,
        "num_attention_heads": heads,
        "num_hidden_layers": int(rng.integers(1, 5)),
        "intermediate_size": int(rng.integers(8, 50)),
    }


def encoder_settings(rng):
    return bert_sizes(rng) | {
        "max_position_embeddings": int(rng.integers(30, 60)),
        "type_vocab_size": int(rng.integers(1, 4)),
        "layer_norm_eps": float(rng.choice([1e-12, 1e-5, 1e-3])),
        "hidden_dropout_prob": float(rng.choice([0.0, 0.1])),
        "attention_probs_dropout_prob": float(rng.choice([0.0, 0.2])),
    }


def modern_settings(rng):
    sizes = bert_sizes(rng)
    layers = int(rng.integers(3, 7))
    kinds = {
        0: {"global_attn_every_n_layers": int(rng.integers(2, 4))},
        1: {"layer_types": ["full_attention"] * layers},
        2: {"layer_types": ["sliding_attention"] * layers},
    }[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
    biases = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias", "decoder_bias")
    return {
        **sizes,
        **kinds,
        **{name: bool(rng.integers(2)) for name in biases},
        "num_hidden_layers": layers,
        "max_position_embeddings": 64,
        "local_attention": 2 * int(rng.integers(1, 5)),
        "global_rope_theta": 5000.0,
        "local_rope_theta": 50.0,
        "norm_eps": 1e-4,
    }


def t5_settings(rng):
    return {
        "d_model": int(rng.integers(3, 10)) * 4,
        "d_kv": int(rng.integers(2, 9)),
        "num_heads": int(rng.integers(1, 5)),
        "d_ff": int(rng.integers(8, 40)),
        "num_layers": int(rng.integers(1, 4)),
        "num_decoder_layers": int(rng.integers(1, 4)),
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 14,
        "layer_norm_epsilon": 1e-5,
    }


def own_size(rng):
    settings = encoder_settings(rng)
    sizes = [settings["hidden_size"], 6, 10]
    return settings | {"embedding_size": int(rng.choice(sizes, p=[0.2, 0.4, 0.4]))}


def gated(rng):
    return t5_settings(rng) | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


WORLDS = {  # class of transformers: settings, tokenizer
    "BertForMaskedLM": (encoder_settings, word_piece),
    "BertForPreTraining": (encoder_settings, word_piece),
    "BertForSequenceClassification": (encoder_settings, word_piece),
    "BertModel": (encoder_settings, word_piece),
    "ElectraForMaskedLM": (own_size, word_piece),
    "ElectraForPreTraining": (own_size, word_piece),
    "ElectraModel": (own_size, word_piece),
    "RobertaForMaskedLM": (encoder_settings, byte_level),
    "RobertaForSequenceClassification": (encoder_settings, byte_level),
    "RobertaModel": (encoder_settings, byte_level),
    "ModernBertForMaskedLM": (modern_settings, word_piece),
    "ModernBertModel": (modern_settings, word_piece),
    "T5ForConditionalGeneration": (t5_settings, t5_like),
    "T5ForConditionalGeneration 1.1": (gated, t5_like),
}


def saved(name, folder, seed=0, **changes):
    """A random model of the class `name`, and its tokenizer, saved into `folder`."""
    settings, tokenizer = WORLDS[name]
    rng, tokenizer = np.random.default_rng(seed), tokenizer()
    fields = settings(rng) | {"vocab_size": len(tokenizer) + int(rng.choice([0, 3, 70]))}
    special = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id", None)
        for role in ("pad", "bos", "eos")
    }
    if name.startswith("T5"):
        special |= {"decoder_start_token_id": 0}
    build = getattr(transformers, name.split()[0])
    torch.manual_seed(seed)
    model = build(build.config_class(**fields | special | changes))
    if "1.1" in name:
        model.lm_head.weight = torch.nn.Parameter(0.2 * torch.randn_like(model.shared.weight))
    with torch.no_grad():  # all parameters away from initial values that hide them
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
