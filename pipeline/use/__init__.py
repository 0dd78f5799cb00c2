"""What models are for: generate, fill, score, rerank, embed and predict, as functions of a loaded model.

    model = load("store/pretrain-1a2b3c4d")
    score(model, ["The harbour was quiet before dawn."])[0].total

Every function takes texts and gives as many results in their order, however they were computed.
"""

from pipeline.models.decoding import Beam, Greedy, Sampling
from pipeline.use.blanks import fill
from pipeline.use.embeddings import embed
from pipeline.use.generation import generate
from pipeline.use.model import Model, load
from pipeline.use.predictions import predict
from pipeline.use.ranking import rerank
from pipeline.use.scores import score

__all__ = [
    "Beam",
    "Greedy",
    "Model",
    "Sampling",
    "embed",
    "fill",
    "generate",
    "load",
    "predict",
    "rerank",
    "score",
]
