"""How tokens exchange information: one file a mixer, one union.

`MixerConfig` is the union of their configs, `MIXERS` says which module each config builds. A plain
name stands for a mixer with its defaults: `mixer: softmax`.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pipeline.models.attention import View
from pipeline.models.mixers.linear import LinearConfig, LinearMixer
from pipeline.models.mixers.mixer import Heads, Mixer, Needs, refusals
from pipeline.models.mixers.performer import PerformerConfig, PerformerMixer
from pipeline.models.mixers.residual import ResidualConfig, ResidualMixer
from pipeline.models.mixers.softmax import SoftmaxConfig, SoftmaxMixer
from pipeline.models.mixers.synthesizer import SynthesizerConfig, SynthesizerMixer


def named(value: Any) -> Any:
    """A mixer's bare name as the mapping it stands for."""
    return {"type": value} if isinstance(value, str) else value


MixerConfig = Annotated[
    SoftmaxConfig | ResidualConfig | PerformerConfig | LinearConfig | SynthesizerConfig,
    Field(discriminator="type"),
    BeforeValidator(named),
]
MIXERS: dict[Any, type[Mixer]] = {
    SoftmaxConfig: SoftmaxMixer,
    ResidualConfig: ResidualMixer,
    PerformerConfig: PerformerMixer,
    LinearConfig: LinearMixer,
    SynthesizerConfig: SynthesizerMixer,
}


def mixer_of(config: MixerConfig, heads: Heads) -> Mixer:
    """Build the mixer that `config` describes."""
    build: Any = MIXERS[type(config)]
    mixer: Mixer = build(config, heads)
    return mixer


def prepared(config: MixerConfig, view: View) -> View:
    """`view` as the layers of a stack with this mixer share it."""
    return MIXERS[type(config)].prepared(view.located())


def check_mixer(config: MixerConfig, needs: Needs, heads: Heads) -> None:
    """ValueError, with the reason and the alternatives, if this mixer cannot do what is needed."""
    kind = MIXERS[type(config)]
    if reasons := refusals(kind, needs):
        fitting = [other().type for other, mixer in MIXERS.items() if not refusals(mixer, needs)]
        raise ValueError(
            f"mixer {config.type!r} {' and '.join(reasons)}; use {' or '.join(fitting)}"
        )
    if kind.needs_max_length and heads.max_length is None:
        raise ValueError(
            f"mixer {config.type!r} is indexed by position and has to know the longest document; "
            "give max_length"
        )
    if reasons := kind.why_not(config, heads):
        raise ValueError(f"mixer {config.type!r}: {' and '.join(reasons)}")
