"""How tokens exchange information: one file a mixer, one union.

`MixerConfig` is the union of their configs, `MIXERS` says which module each config builds.
"""

from typing import Any

from pipeline.models.attention import View
from pipeline.models.mixers.mixer import Heads, Mixer, Needs, refusals
from pipeline.models.mixers.softmax import SoftmaxConfig, SoftmaxMixer

MixerConfig = SoftmaxConfig  # with a second member: Annotated[A | B, Field(discriminator="type")]
MIXERS: dict[Any, type[Mixer]] = {SoftmaxConfig: SoftmaxMixer}


def mixer_of(config: MixerConfig, heads: Heads) -> Mixer:
    """Build the mixer that `config` describes."""
    build: Any = MIXERS[type(config)]
    mixer: Mixer = build(config, heads)
    return mixer


def prepared(config: MixerConfig, view: View) -> View:
    """`view` as the layers of a stack with this mixer share it."""
    return MIXERS[type(config)].prepared(view)


def check_mixer(config: MixerConfig, needs: Needs) -> None:
    """ValueError, with the reason and the alternatives, if this mixer cannot do what is needed."""
    if reasons := refusals(MIXERS[type(config)], needs):
        fitting = [other().type for other, mixer in MIXERS.items() if not refusals(mixer, needs)]
        raise ValueError(
            f"mixer {config.type!r} {' and '.join(reasons)}; use {' or '.join(fitting)}"
        )
