"""Write the definitions task: which kind of thing does a WordNet definition define?

Text is the definition of a noun synset (its gloss up to the first example), label is its
lexicographer file, for the eight kinds below, the same number of each. Definitions that occur twice
are left out, whatever their kinds. A hash of the synset's offset decides which ones are taken and
into which split they go, so the files are a function of `data.noun` alone.

    apt-get download wordnet-base=1:3.0-37 && dpkg -x wordnet-base_*.deb wordnet
    python data/quickstart/write_definitions.py wordnet/usr/share/wordnet/data.noun

`--floor` also fits TF-IDF with logistic regression, the score a trained model is shown beside.
"""

import argparse
import gzip
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

KINDS = {  # number of the lexicographer file: name, see lexnames(5WN)
    4: "act",
    5: "animal",
    6: "artifact",
    10: "communication",
    13: "food",
    15: "location",
    18: "person",
    20: "plant",
}
ROWS_PER_KIND = {"test": 125, "validation": 125, "train": 1000}


@dataclass(frozen=True)
class Definition:
    """One noun synset."""

    offset: str
    label: str
    text: str

    @property
    def draw(self) -> str:
        """What its place is decided by."""
        return hashlib.blake2b(self.offset.encode(), digest_size=16).hexdigest()


def read_definitions(data_noun: Path) -> list[Definition]:
    """The definitions of all chosen kinds that occur once."""
    found = []
    texts: Counter[str] = Counter()
    for line in data_noun.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the licence stands at the top
            continue
        fields, _, gloss = line.partition(" | ")
        offset, kind = fields.split(" ", 2)[:2]
        text = gloss.partition('; "')[0].partition(': "')[0].strip().strip(";").strip()
        texts[text.casefold()] += 1
        if int(kind) in KINDS and text and not text.startswith('"'):
            found.append(Definition(offset, KINDS[int(kind)], text))
    return [one for one in found if texts[one.text.casefold()] == 1]


def split_definitions(definitions: list[Definition]) -> dict[str, list[Definition]]:
    """Splits of equally many definitions of each kind, each in the order of the draws."""
    splits: dict[str, list[Definition]] = {split: [] for split in ROWS_PER_KIND}
    for label in KINDS.values():
        ordered = sorted((d for d in definitions if d.label == label), key=lambda d: d.draw)
        start = 0
        for split, rows in ROWS_PER_KIND.items():
            splits[split] += ordered[start : start + rows]
            start += rows
        assert len(ordered) >= start, (label, len(ordered))
    return {split: sorted(rows, key=lambda d: d.draw) for split, rows in splits.items()}


def write_split(path: Path, definitions: list[Definition]) -> None:
    """One JSON document a line, compressed, without a time stamp."""
    lines = "".join(
        json.dumps({"text": one.text, "label": one.label}, ensure_ascii=False) + "\n"
        for one in definitions
    )
    path.write_bytes(gzip.compress(lines.encode(), compresslevel=9, mtime=0))


def floor_accuracy(splits: dict[str, list[Definition]]) -> float:
    """Test accuracy of TF-IDF over words and word pairs with logistic regression."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=1000),
    )
    train, test = splits["train"], splits["test"]
    model.fit([one.text for one in train], [one.label for one in train])
    return float(model.score([one.text for one in test], [one.label for one in test]))


def main() -> None:
    """Write the three files beside this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_noun", type=Path)
    parser.add_argument("--floor", action="store_true")
    options = parser.parse_args()
    splits = split_definitions(read_definitions(options.data_noun))
    for split, definitions in splits.items():
        path = Path(__file__).with_name(f"definitions-{split}.jsonl.gz")
        write_split(path, definitions)
        print(f"{path.name}: {len(definitions)} rows, {path.stat().st_size} bytes")
    labels = Counter(one.label for one in splits["test"])
    print(f"majority share of test: {max(labels.values()) / labels.total():.4f}")
    if options.floor:
        print(f"TF-IDF + logistic regression, test accuracy: {floor_accuracy(splits):.4f}")


if __name__ == "__main__":
    main()
