"""The account of a corpus: every page and every line is either kept or dropped for one named
reason.

Tallies of files add up to those of sources and of the corpus, and samples are chosen by hash, so
the account is the same whichever worker wrote it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SAMPLES_PER_REASON = 3
SAMPLE_CHARACTERS = 300
KEPT = ""


@dataclass
class Tally:
    """Pages, lines and characters in, kept and dropped; KEPT is the reason of what stays."""

    pages: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Add the numbers of `other` to these."""
        for name in ("pages", "lines", "characters", "splits"):
            getattr(self, name).update(getattr(other, name))

    def as_json(self) -> dict[str, Any]:
        """The account as it stands in `counts.json`."""
        return {
            "pages": _account(self.pages),
            "lines": _account(self.lines),
            "characters": {name: self.characters[name] for name in ("in", "kept", "replaced")},
            "documents": {name: self.splits[name] for name in ("train", "validation")},
        }


def tally_of(account: Mapping[str, Any]) -> Tally:
    """The tally an account was made from."""
    pages, lines = (
        Counter({KEPT: account[name]["kept"], **account[name]["dropped"]})
        for name in ("pages", "lines")
    )
    return Tally(pages, lines, Counter(account["characters"]), Counter(account["documents"]))


def _account(counter: Counter[str]) -> dict[str, Any]:
    dropped = {reason: counter[reason] for reason in sorted(counter) if reason and counter[reason]}
    return {"in": counter.total(), "kept": counter[KEPT], "dropped": dropped}


@dataclass
class Samples:
    """A few pages for each reason: those with the smallest keys, whatever order they come in."""

    chosen: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def offer(self, reason: str, sample: Mapping[str, Any]) -> None:
        """Keep `sample` if its `key` is among the smallest of its reason."""
        rivals = [*self.chosen.get(reason, []), dict(sample)]
        self.chosen[reason] = sorted(rivals, key=lambda item: item["key"])[:SAMPLES_PER_REASON]

    def add(self, other: "Samples") -> None:
        """Offer every sample of `other`."""
        for reason, samples in other.chosen.items():
            for sample in samples:
                self.offer(reason, sample)

    def as_json(self) -> dict[str, Any]:
        """The samples as they stand in `samples.json`."""
        shown = {
            reason: [
                {name: value for name, value in item.items() if name != "key"} for item in items
            ]
            for reason, items in sorted(self.chosen.items())
        }
        return {"kept": shown.pop(KEPT, []), "dropped": shown}
