"""Ways to distil: one file each; the union is the schema of `method:`."""

from typing import Annotated

from pydantic import Field

from pipeline.compress.methods.distilbert import DistilBertConfig
from pipeline.compress.methods.logits import LogitsConfig
from pipeline.compress.methods.minilm import MiniLmConfig
from pipeline.compress.methods.pkd import PkdConfig
from pipeline.compress.methods.tinybert import TinyBertConfig

MethodConfig = Annotated[
    LogitsConfig | DistilBertConfig | PkdConfig | TinyBertConfig | MiniLmConfig,
    Field(discriminator="type"),
]
