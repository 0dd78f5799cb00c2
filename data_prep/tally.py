"""The account of a corpus: every page and every line is either kept or dropped for one named
reason.

Tallies of blocks add up to those of languages, sources and the corpus, and samples are chosen by
hash, so the account is the same whichever worker wrote it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

SAMPLES_PER_REASON = 3
SAMPLE_CHARACTERS = 300
KEPT = ""
UNKNOWN = "unknown"  # the language of what was dropped before it was asked for


@dataclass
class Tally:
    """Pages, lines and characters in, kept and dropped; KEPT is the reason of what stays.

    `documents` counts what stays by split, `masked` what was hidden in it by kind.
    """

    pages: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Add the numbers of `other` to these."""
        for one in fields(self):
            getattr(self, one.name).update(getattr(other, one.name))

    def as_json(self) -> dict[str, Any]:
        """The account as it stands in `counts.json`."""
        return {
            "pages": _account(self.pages),
            "lines": _account(self.lines),
            "characters": {name: self.characters[name] for name in ("in", "kept", "replaced")},
            "documents": {name: self.documents[name] for name in ("train", "validation")},
            "masked": dict(sorted(self.masked.items())),
        }


def tally_of(account: Mapping[str, Any]) -> Tally:
    """The tally an account was made from."""
    pages, lines = (
        Counter({KEPT: account[name]["kept"], **account[name]["dropped"]})
        for name in ("pages", "lines")
    )
    others = (Counter(account[name]) for name in ("characters", "documents", "masked"))
    return Tally(pages, lines, *others)


def sum_of(tallies: Mapping[str, Tally]) -> Tally:
    """All of them together."""
    whole = Tally()
    for tally in tallies.values():
        whole.add(tally)
    return whole


def _account(counter: Counter[str]) -> dict[str, Any]:
    dropped = {reason: counter[reason] for reason in sorted(counter) if reason and counter[reason]}
    return {"in": counter.total(), "kept": counter[KEPT], "dropped": dropped}


@dataclass
class Samples:
    """A few things for each reason: those with the smallest keys, whatever order they come in."""

    chosen: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def offer(self, reason: str, sample: Mapping[str, Any]) -> None:
        """Keep `sample` if its `key` is among the smallest of its reason."""
        if self.wants(reason, sample["key"]):
            rivals = [*self.chosen.get(reason, []), dict(sample)]
            self.chosen[reason] = sorted(rivals, key=_order)[:SAMPLES_PER_REASON]

    def wants(self, reason: str, key: str) -> bool:
        """Whether a sample with this key would be kept."""
        rivals = self.chosen.get(reason, [])
        return len(rivals) < SAMPLES_PER_REASON or key <= rivals[-1]["key"]

    def add(self, other: "Samples") -> None:
        """Offer every sample of `other`."""
        for reason, samples in other.chosen.items():
            for sample in samples:
                self.offer(reason, sample)

    def as_json(self) -> dict[str, Any]:
        """The samples by reason, as they stand in `samples.json`."""
        return {
            reason: [
                {name: value for name, value in item.items() if name != "key"} for item in items
            ]
            for reason, items in sorted(self.chosen.items())
        }


def _order(sample: Mapping[str, Any]) -> tuple[str, str]:
    return sample["key"], repr(sorted(sample.items()))
