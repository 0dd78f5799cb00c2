"""What sits on an encoder: BERT's masked-language-model head, ELECTRA's, a pooler with a classifier.

Logits are float32 whatever the encoder computes in.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.example import Visibility
from pipeline.models.encoder import Encoder, EncoderConfig, initialise
from pipeline.models.layers import norm_of, padded_vocab
from pipeline.models.output import OutputLayer, Targets, TokenLosses
from pipeline.models.shape import Shape


class MaskedLanguageHead(nn.Module):
    """Dense, GELU, norm, then the word embeddings as output matrix with a bias of its own."""

    def __init__(self, shape: Shape, words: nn.Embedding, initial_std: float) -> None:
        super().__init__()
        size = words.embedding_dim
        self.dense = nn.Linear(shape.hidden_size, size, bias=shape.biases)
        self.norm = norm_of(shape.norm, size, shape.norm_eps, bias=shape.biases)
        initialise(self, initial_std)
        self.decoder = OutputLayer(size, words.num_embeddings)
        self.decoder.weight = words.weight
        nn.init.zeros_(self.decoder.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """States [..., D] to logits [..., V], at least float32."""
        logits: Tensor = self.decoder(self.transformed(hidden))
        return logits

    def losses(self, hidden: Tensor, targets: Targets) -> TokenLosses:
        """Losses of `targets` [...] at states [..., D], chunk by chunk."""
        losses: TokenLosses = self.decoder(self.transformed(hidden), targets)
        return losses

    def transformed(self, hidden: Tensor) -> Tensor:
        """States [..., D] to what the output matrix reads."""
        read: Tensor = self.norm(F.gelu(self.dense(hidden)))
        return read


def widened(logits: Tensor) -> Tensor:
    """`logits` in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class MaskedLanguageModel(nn.Module):
    """An encoder and the head that names hidden tokens."""

    def __init__(self, config: EncoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.padded_vocab = padded_vocab(vocab_size)
        self.encoder = Encoder(config, vocab_size)
        self.head = MaskedLanguageHead(config, self.encoder.embeddings.word, config.initial_std)

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        position_ids: Tensor,
        scored_positions: Tensor,
        visibility: Visibility | None = None,
        token_types: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, P, V] of each row's `scored_positions` [B, P]; other inputs are [B, T].

        V is the vocabulary rounded up (`padded_vocab`). The head computes nothing for other
        positions. `visibility` and `token_types` are as for the encoder.
        """
        logits: Tensor = self.head(
            self.scored_states(
                input_ids, segment_ids, position_ids, scored_positions, visibility, token_types
            )
        )
        return logits

    def losses(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        position_ids: Tensor,
        scored_positions: Tensor,
        targets: Targets,
        visibility: Visibility | None = None,
        token_types: Tensor | None = None,
    ) -> TokenLosses:
        """Losses of `targets` [B, P] at the scored positions, without holding their logits."""
        states = self.scored_states(
            input_ids, segment_ids, position_ids, scored_positions, visibility, token_types
        )
        return self.head.losses(states, targets)

    def scored_states(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        position_ids: Tensor,
        scored_positions: Tensor,
        visibility: Visibility | None = None,
        token_types: Tensor | None = None,
    ) -> Tensor:
        """States [B, P, D] of the scored positions, before the head."""
        hidden = self.encoder(input_ids, segment_ids, position_ids, visibility, token_types)
        return torch.take_along_dim(hidden, scored_positions[:, :, None], dim=1)


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

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        position_ids: Tensor,
        token_types: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, num_labels], at least float32, of sequences [B, T] that begin with [CLS].

        `token_types` tell two texts apart, in an encoder that has types for them.
        """
        types = token_types if self.config.token_types > 1 else None
        hidden = self.encoder(input_ids, segment_ids, position_ids, token_types=types)
        return widened(self.classifier(self.dropout(self.pooler(hidden))))


class TokenClassifier(nn.Module):
    """An encoder, dropout, and one dense layer for the labels of every token."""

    def __init__(self, config: EncoderConfig, vocab_size: int, num_labels: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.padded_vocab = padded_vocab(vocab_size)
        self.num_labels = num_labels
        self.encoder = Encoder(config, vocab_size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        initialise(self.classifier, config.initial_std)

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        position_ids: Tensor,
        token_types: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T, num_labels], at least float32; `token_types` as for sequences."""
        types = token_types if self.config.token_types > 1 else None
        hidden = self.encoder(input_ids, segment_ids, position_ids, token_types=types)
        return widened(self.classifier(self.dropout(hidden)))


class ReplacedTokenHead(nn.Module):
    """ELECTRA's discriminator head (Clark et al. 2020): dense, GELU, and one number per token.

    As in the released code the second layer starts from Glorot's uniform, and a high logit means
    "replaced".
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        initialise(self, config.initial_std)
        self.score = nn.Linear(config.hidden_size, 1)
        nn.init.xavier_uniform_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """States [..., D] to logits [...], at least float32."""
        return widened(self.score(F.gelu(self.dense(hidden)))[..., 0])


class ReplacedTokenDetector(nn.Module):
    """An encoder and the head that tells replaced tokens: ELECTRA's discriminator."""

    def __init__(self, config: EncoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.padded_vocab = padded_vocab(vocab_size)
        self.encoder = Encoder(config, vocab_size)
        self.detector = ReplacedTokenHead(config)

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        position_ids: Tensor,
        visibility: Visibility | None = None,
        token_types: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T], at least float32, of inputs [B, T]: high where a token was replaced."""
        hidden = self.encoder(input_ids, segment_ids, position_ids, visibility, token_types)
        logits: Tensor = self.detector(hidden)
        return logits
