"""Training objectives: one file each; the union is the schema of `objective:`."""

from typing import Annotated

from pydantic import Field

from pipeline.objectives.mlm import MlmConfig
from pipeline.objectives.span_corruption import SpanCorruptionConfig

ObjectiveConfig = Annotated[MlmConfig | SpanCorruptionConfig, Field(discriminator="type")]
