"""Training objectives: one file each; the union is the schema of `objective:`."""

from typing import Annotated

from pydantic import Field

from pipeline.objectives.denoising import DenoisingConfig
from pipeline.objectives.lae import LaeConfig
from pipeline.objectives.lm import LmConfig
from pipeline.objectives.mlm import MlmConfig

ObjectiveConfig = Annotated[
    DenoisingConfig | LaeConfig | LmConfig | MlmConfig, Field(discriminator="type")
]
