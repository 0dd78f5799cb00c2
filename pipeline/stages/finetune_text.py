"""The `finetune_text` stage: a pretrained text-to-text model, trained on the pairs of one or several tasks."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipeline.config import config
from pipeline.data.example import Source
from pipeline.data.shards import TokenRows
from pipeline.flow.stage import Artifact, Claim, Work
from pipeline.models.decoder import DecoderConfig
from pipeline.models.encoder_decoder import EncoderDecoderConfig
from pipeline.objectives.pairs import TextToText
from pipeline.objectives.text_to_text import TextPairsOrDenoised
from pipeline.stages.pair_training import PairTraining
from pipeline.stages.pretrain import CorruptedRows
from pipeline.tokenizer import Vocabulary

Length = Annotated[int, Field(ge=2)]


@config
class FinetuneText(PairTraining):
    """Train a model that reads a text and writes another, an encoder-decoder or a decoder, on pairs.

    Sides longer than `input_length` or `target_length` tokens, end token included, are cut; `z_loss` is as
    for pretraining. The rest is as for all training on pairs.
    """

    makes: ClassVar[Artifact] = "language_model"
    claims: ClassVar[Claim] = "job"
    version: ClassVar[int] = 2
    OBJECTIVE: ClassVar[str] = "text_to_text"

    kind: Literal["finetune_text"] = "finetune_text"
    input_length: Length = 128
    target_length: Length = 32
    z_loss: Annotated[float, Field(ge=0)] = 1e-4

    def run(self, work: Work) -> Mapping[str, Any]:
        """Train, answer, and say what came out."""
        work.train(self)
        return self.answered(work)

    def lengths(self) -> tuple[int, int]:
        """Most tokens of inputs and of targets."""
        return self.input_length, self.target_length

    def objective(self, network: Any) -> TextToText:
        """Cross-entropy of the targets."""
        return TextToText(network, z_loss=self.z_loss, name=self.OBJECTIVE)

    def seen(self, rows: TokenRows, vocabulary: Vocabulary) -> Source:
        """Pairs as they are."""
        return CorruptedRows(rows, TextPairsOrDenoised(vocabulary, self.lengths(), None))

    def unfit(self, shape: Any) -> str:
        """Why a model of this shape cannot be trained on pairs of these lengths, "" if it can."""
        if not isinstance(shape, EncoderDecoderConfig | DecoderConfig):
            return (
                f"stage {self.model!r} makes no model that writes text; finetune_text needs one with "
                "model.type encoder_decoder or decoder"
            )
        joined = isinstance(shape, DecoderConfig)
        needed = sum(self.lengths()) - 1 if joined else max(self.lengths())
        if shape.max_length is None or needed <= shape.max_length:
            return ""
        return (
            f"input_length {self.input_length} and target_length {self.target_length} need "
            f"{needed} positions, the model of stage {self.model!r} has {shape.max_length}; shorten them"
        )
