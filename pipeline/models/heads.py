"""What sits on an encoder: BERT's masked-language-model head, and its pooler with a classifier.

Logits are float32 whatever the encoder computes in.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.encoder import Encoder, EncoderConfig, initialise
from pipeline.models.layers import LayerNorm, padded_vocab


class MaskedLanguageHead(nn.Module):
    """Dense, GELU, LayerNorm, then the word embeddings as output matrix with a bias of its own."""

    def __init__(self, config: EncoderConfig, words: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)
        initialise(self, config.initial_std)
        self.decoder = nn.Linear(config.hidden_size, words.num_embeddings)
        self.decoder.weight = words.weight
        nn.init.zeros_(self.decoder.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """States [..., D] to logits [..., V], at least float32."""
        logits: Tensor = self.decoder(self.norm(F.gelu(self.dense(hidden))))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class MaskedLanguageModel(nn.Module):
    """An encoder and the head that names hidden tokens."""

    def __init__(self, config: EncoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.padded_vocab = padded_vocab(vocab_size)
        self.encoder = Encoder(config, vocab_size)
        self.head = MaskedLanguageHead(config, self.encoder.embeddings.word)

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        position_ids: Tensor,
        scored_positions: Tensor,
    ) -> Tensor:
        """Logits [B, P, V] of each row's `scored_positions` [B, P]; other inputs are [B, T].

        V is the vocabulary rounded up (`padded_vocab`). The head computes nothing for other
        positions.
        """
        hidden = self.encoder(input_ids, segment_ids, position_ids)
        return self.head(torch.take_along_dim(hidden, scored_positions[:, :, None], dim=1))


class Pooler(nn.Module):
    """The state of the first token through a dense layer and tanh."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        initialise(self, config.initial_std)

    def forward(self, hidden: Tensor) -> Tensor:
        """States [B, T, D] to [B, D]."""
        return torch.tanh(self.dense(hidden[:, 0]))


class SequenceClassifier(nn.Module):
    """An encoder, a pooler, dropout, and one dense layer for the labels."""

    def __init__(self, config: EncoderConfig, vocab_size: int, num_labels: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.padded_vocab = padded_vocab(vocab_size)
        self.num_labels = num_labels
        self.encoder = Encoder(config, vocab_size)
        self.pooler = Pooler(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        initialise(self.classifier, config.initial_std)

    def forward(self, input_ids: Tensor, segment_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Logits [B, num_labels], at least float32, of sequences [B, T] that begin with [CLS]."""
        hidden = self.encoder(input_ids, segment_ids, position_ids)
        logits: Tensor = self.classifier(self.dropout(self.pooler(hidden)))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
