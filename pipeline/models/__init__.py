"""Networks: one Transformer core, its mixers, the models built of it, heads and file formats."""

from typing import Annotated

from pydantic import Field

from pipeline.models.decoder import DecoderConfig
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoderConfig
from pipeline.models.tta import TtaConfig

ModelConfig = Annotated[
    EncoderConfig | EncoderDecoderConfig | DecoderConfig | TtaConfig, Field(discriminator="type")
]
