"""Real text that is always at hand and never changes: the quickstart's dictionary definitions."""

import gzip
import json
from pathlib import Path

DEFINITIONS = Path(__file__).parent.parent / "data/quickstart/definitions-train.jsonl.gz"


def documents() -> list[str]:
    """2,400 documents of a few words to a few sentences."""
    with gzip.open(DEFINITIONS, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line, _ in zip(file, range(2400), strict=False)]
