"""The `finetune_cloze` stage: a UniLM that learns to write targets for sources, by filling gaps in the targets."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.config import config
from pipeline.data.example import Source
from pipeline.data.shards import TokenRows
from pipeline.flow.stage import Artifact, Claim, Work
from pipeline.models.encoder import EncoderConfig
from pipeline.models.growth import UNILM_TYPES
from pipeline.objectives.unilm import TargetMasking, TargetMaskingConfig, Unilm
from pipeline.stages.pair_training import PairTraining
from pipeline.stages.pretrain import CorruptedRows
from pipeline.tokenizer import Vocabulary


@config
class FinetuneCloze(PairTraining):
    """Train a UniLM on pairs, by filling gaps in the targets.

    `masking` says how much of a target is hidden, and the most tokens of each side. The rest is as for all training on
    pairs.
    """

    makes: ClassVar[Artifact] = "language_model"
    claims: ClassVar[Claim] = "job"
    version: ClassVar[int] = 2
    OBJECTIVE: ClassVar[str] = "unilm"

    kind: Literal["finetune_cloze"] = "finetune_cloze"
    masking: TargetMaskingConfig = Field(default_factory=TargetMaskingConfig)

    def run(self, work: Work) -> Mapping[str, Any]:
        """Train, answer, and say what came out."""
        work.train(self)
        return self.answered(work)

    def lengths(self) -> tuple[int, int]:
        """Most tokens of sources and of targets."""
        return self.masking.source_length, self.masking.target_length

    def objective(self, network: Any) -> Unilm:
        """Cross-entropy of the hidden tokens."""
        return Unilm(network, label_smoothing=self.masking.label_smoothing)

    def seen(self, rows: TokenRows, vocabulary: Vocabulary) -> Source:
        """Pairs with gaps in their targets."""
        return CorruptedRows(rows, TargetMasking(self.masking, vocabulary))

    def unfit(self, shape: Any) -> str:
        """Why a model of this shape cannot be trained on these pairs, "" if it can."""
        if not isinstance(shape, EncoderConfig) or shape.token_types < UNILM_TYPES:
            return (
                f"stage {self.model!r} makes no UniLM; finetune_cloze needs one with model.type encoder "
                f"and token_types {UNILM_TYPES}, other models that write text take finetune_text"
            )
        needed = self.masking.sequence_length()
        if needed <= shape.max_length:
            return ""
        return (
            f"source_length {self.masking.source_length} and target_length "
            f"{self.masking.target_length} need {needed} positions, the model of stage "
            f"{self.model!r} has {shape.max_length}; shorten them"
        )
