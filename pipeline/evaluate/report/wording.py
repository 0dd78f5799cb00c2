"""Numbers as people read them."""

from collections.abc import Mapping
from typing import Any


def number(value: float) -> str:
    """A count, with thousands separated.

    >>> number(1234567)
    '1,234,567'
    """
    return f"{value:,.0f}"


def short(value: float) -> str:
    """A count in three figures.

    >>> short(950), short(12_345), short(66_362_880)
    ('950', '12.3 k', '66.4 M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.0f}"


def size(num_bytes: float) -> str:
    """Bytes in decimal units.

    >>> size(999), size(4_200_000)
    ('999 B', '4.2 MB')
    """
    for unit, letters in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {letters}"
    return f"{num_bytes:.0f} B"


def duration(seconds: float) -> str:
    """A time to two units.

    >>> duration(0.42), duration(75), duration(7384)
    ('0.4 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def share(value: float) -> str:
    """A share in per cent.

    >>> share(0.8123)
    '81.2 %'
    """
    return f"{100 * value:.1f} %"


def words(name: str) -> str:
    """A name from a file as words.

    >>> words("too_few_sentences")
    'too few sentences'
    """
    return name.replace("_", " ")


def test_rows(task: Mapping[str, Any]) -> str:
    """How many rows a task was tested on, and how many labels it has, if any.

    >>> test_rows({"rows": 1000, "labels": ["a", "b"]})
    '1,000 test texts with 2 labels'
    """
    labels = f" with {len(task['labels'])} labels" if task["labels"] else ""
    return f"{number(task['rows'])} test texts{labels}"
