"""How much generation gains by remembering: beam search with caches beside computing every text anew.

    python benchmarks/generation.py

Takes networks with random weights and the widths of T5-small, two prompts, four beams and 64 new tokens, on a GPU if
there is one and else on the CPU, with the end mark barred so that every text has its full length. Both sides run the
same search, checked to find the same texts. Writes `benchmarks/results/generation.txt` and `.json`: seconds of a whole
search, new tokens per second of all beams, and how many times as fast the caches make it. Fails below 5 times for an
encoder-decoder and a decoder; other rows are for information.
"""

import datetime
import json
import math
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.example import Visibility
from pipeline.models.decoder import DecoderConfig, LanguageModel
from pipeline.models.decoding import Beam, Hypothesis, Marks
from pipeline.models.encoder import EncoderConfig
from pipeline.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from pipeline.models.growth import CLOZE_TYPES, Growing, Prompts, beginning_together, growing
from pipeline.models.heads import MaskedLanguageModel
from pipeline.models.mixers import LinearConfig
from pipeline.models.search import beam_search
from pipeline.runtime import code_revision, library_versions, rng_of

RESULTS = Path(__file__).resolve().parent / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NUM_PROMPTS, PROMPT_LENGTH, VOCAB = 2, 64, 8000
SEARCH = Beam(beams=4, max_new_tokens=64)
WARM_UP = Beam(beams=4, max_new_tokens=4)
MARKS = Marks()
AIM = 5.0
JUDGED = ("encoder_decoder", "decoder")
SMALL = {"num_layers": 6, "hidden_size": 512, "num_heads": 8, "ffn_size": 2048, "max_length": 256}


def networks() -> dict[str, nn.Module]:
    """T5-small's widths and depth in every kind of network that generates."""
    made = {
        "encoder_decoder": EncoderDecoder(EncoderDecoderConfig(**SMALL), VOCAB),
        "decoder": LanguageModel(DecoderConfig(**SMALL), VOCAB),
        "decoder, linear": LanguageModel(DecoderConfig(**SMALL, mixer=LinearConfig()), VOCAB),
        "unilm": MaskedLanguageModel(EncoderConfig(**SMALL, token_types=6), VOCAB),
    }
    return {name: network.to(DEVICE).eval() for name, network in made.items()}


def prompts() -> Prompts:
    """Prompts of equal length."""
    rng = rng_of(0, "benchmark prompts")
    return rng.integers(6, VOCAB, (NUM_PROMPTS, PROMPT_LENGTH)).tolist()


class Anew:
    """Texts whose every token is computed again at every step; an encoder still reads its input once."""

    def __init__(self, network: nn.Module, prompts: Prompts) -> None:
        self.network = network
        self.ids, self.real = beginning_together(prompts, DEVICE)
        self.new = self.ids[:, :0]
        self.encoded: Tensor | None = None
        if isinstance(network, EncoderDecoder):
            self.encoded = network.encode(self.ids, self.real)
            self.new = torch.full_like(self.ids[:, :1], MARKS.start)

    def begin(self) -> Tensor:
        """Logits of the first new tokens."""
        return self._read()

    def extend(self, tokens: Tensor) -> Tensor:
        """Logits after these."""
        self.new = torch.cat([self.new, tokens[:, None]], dim=1)
        return self._read()

    def select(self, rows: Tensor) -> None:
        """Go on with these rows."""
        self.ids, self.real, self.new = self.ids[rows], self.real[rows], self.new[rows]
        if self.encoded is not None:
            self.encoded = self.encoded[rows]

    def _read(self) -> Tensor:
        match self.network:
            case EncoderDecoder():
                assert self.encoded is not None
                ones = torch.ones_like(self.new)
                states = self.network.decode(self.new, ones, self.encoded, self.real)
                return self.network.logits(states[:, -1])[:, :VOCAB]
            case LanguageModel():
                ids = torch.cat([self.ids, self.new], dim=1)
                states = self.network.states(ids, torch.ones_like(ids), _places(ids))
                return self.network.logits(states[:, -1])[:, :VOCAB]
            case MaskedLanguageModel():
                return self._read_cloze(self.network)
            case _:
                raise AssertionError(type(self.network))

    def _read_cloze(self, network: MaskedLanguageModel) -> Tensor:
        prompt_type, new_type = CLOZE_TYPES["prefix"]
        mask = torch.full_like(self.ids[:, :1], MARKS.mask)
        ids = torch.cat([self.ids, self.new, mask], dim=1)
        types = torch.full_like(ids, new_type)
        types[:, :PROMPT_LENGTH] = prompt_type
        ones = torch.ones_like(ids)
        prompts = torch.full_like(ids[:, 0], PROMPT_LENGTH)
        seen = Visibility("prefix", ones, ones, prompts)
        hidden = network.encoder(ids, ones, _places(ids), seen, types)
        return network.head(hidden[:, -1])[:, :VOCAB]


def _places(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)


class Endless:
    """Texts that cannot end, so that every search is equally long."""

    def __init__(self, growth: Growing) -> None:
        self.growth = growth

    def begin(self) -> Tensor:
        """Logits of the first new tokens."""
        return self._barred(self.growth.begin())

    def extend(self, tokens: Tensor) -> Tensor:
        """Logits after these."""
        return self._barred(self.growth.extend(tokens))

    def select(self, rows: Tensor) -> None:
        """Go on with these rows."""
        self.growth.select(rows)

    def _barred(self, logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[:, MARKS.end] = -math.inf
        return logits


@torch.inference_mode()
def searched(
    network: nn.Module, how: Beam, *, cached: bool
) -> tuple[float, list[list[Hypothesis]]]:
    """Seconds of one search, and the texts found."""
    began = time.perf_counter()
    given = prompts()
    new = how.max_new_tokens
    growth = growing(network, given, MARKS, new) if cached else Anew(network, given)
    texts = beam_search(Endless(growth), how, MARKS)
    return time.perf_counter() - began, texts


def measured(network: nn.Module) -> dict[str, float]:
    """Both ways, each after a short search that does not count; the cached one is the faster of two."""
    for cached in (True, False):
        searched(network, WARM_UP, cached=cached)
    first, found = searched(network, SEARCH, cached=True)
    anew, expected = searched(network, SEARCH, cached=False)
    second, _ = searched(network, SEARCH, cached=True)
    assert [[t.tokens for t in own] for own in found] == [
        [t.tokens for t in own] for own in expected
    ]
    seconds = min(first, second)
    tokens = NUM_PROMPTS * SEARCH.beams * SEARCH.max_new_tokens
    return {
        "cached": seconds,
        "anew": anew,
        "ratio": anew / seconds,
        "tokens_per_second": tokens / seconds,
    }


def machine() -> str:
    """What ran this, in words."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*:\s*(.*)", text)
    cores = len(os.sched_getaffinity(0))
    name = model.group(1) if model else platform.processor()
    return f"{torch.get_num_threads()} threads on {cores} cores of {name}, no GPU"


def report(facts: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [facts["words"], "", f"{'':20}{'cached':>10}{'anew':>10}{'times':>8}{'tokens/s':>10}"]
    for name, row in facts["searches"].items():
        lines.append(
            f"{name:20}{row['cached']:8.2f} s{row['anew']:8.2f} s{row['ratio']:8.1f}"
            f"{row['tokens_per_second']:10.0f}"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, write, judge."""
    torch.manual_seed(0)
    versions = library_versions()
    facts: dict[str, Any] = {
        "words": f"Measured on {datetime.datetime.now(datetime.UTC).date()} on {machine()}, float32, torch "
        f"{versions['torch']} (`benchmarks/generation.py`): {NUM_PROMPTS} prompts of {PROMPT_LENGTH} tokens, "
        f"{SEARCH.beams} beams, {SEARCH.max_new_tokens} new tokens, {SMALL['num_layers']} layers of "
        f"{SMALL['hidden_size']} (encoder-decoder: twice), vocabulary {VOCAB}.",
        "searches": {name: measured(network) for name, network in networks().items()},
        "revision": code_revision(),
        "versions": versions,
    }
    RESULTS.mkdir(exist_ok=True)
    text = report(facts)
    (RESULTS / "generation.txt").write_text(text, encoding="utf-8")
    (RESULTS / "generation.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(text)
    slow = [name for name in JUDGED if facts["searches"][name]["ratio"] < AIM]
    for name in slow:
        print(f"{name}: less than {AIM} times as fast as without caches")
    return 1 if slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
