"""An account as a picture: a funnel that narrows, step by step, from what came in to what was kept."""

from collections.abc import Sequence

from pipeline.evaluate.report.markup import Markup, joined, tag
from pipeline.evaluate.report.outputs import Account
from pipeline.evaluate.report.wording import number, words

LABEL_WIDTH, NUMBER_WIDTH, FUNNEL_WIDTH = 180, 125, 200
ROW_HEIGHT, GAP = 30, 3
SLOPE = 12  # height of the part of a row in which the funnel narrows
THINNEST = 1.5  # so that a little is still seen
MOST_STEPS = 14  # rarer reasons share the last one


def funnel_of(account: Account, what: str) -> Markup:
    """The funnel of an account of `what` ("pages"), reasons from the most frequent to the rarest."""
    rows, left = (
        [_band("came", "came in", account.came, account.came, account.came, 0)],
        account.came,
    )
    for reason, count in steps_of(account.dropped):
        rows.append(_step(words(reason), count, left, left - count, account.came, len(rows)))
        left -= count
    rows.append(_band("kept", "kept", account.kept, account.kept, account.came, len(rows)))
    width = LABEL_WIDTH + FUNNEL_WIDTH + NUMBER_WIDTH
    return tag(
        "svg",
        *rows,
        class_="funnel",
        role="img",
        aria_label=f"{number(account.came)} {what} came in, {number(account.kept)} were kept",
        viewBox=f"0 0 {width} {len(rows) * ROW_HEIGHT}",
    )


def steps_of(dropped: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The reasons, the rarest of too many added up as the last."""
    if len(dropped) <= MOST_STEPS:
        return list(dropped)
    shown, rest = dropped[: MOST_STEPS - 1], dropped[MOST_STEPS - 1 :]
    return [*shown, (f"{len(rest)} rarer reasons", sum(count for _, count in rest))]


def _half(count: int, came: int) -> float:
    return max(THINNEST, FUNNEL_WIDTH * count / max(came, 1)) / 2


def _band(kind: str, label: str, count: int, left: int, came: int, row: int) -> Markup:
    half, middle, y = _half(left, came), LABEL_WIDTH + FUNNEL_WIDTH / 2, row * ROW_HEIGHT
    bar = tag(
        "rect",
        class_=kind,
        x=f"{middle - half:.1f}",
        y=y,
        width=f"{2 * half:.1f}",
        height=ROW_HEIGHT - GAP,
    )
    return _row(bar, label, count, came, y)


def _step(label: str, count: int, before: int, after: int, came: int, row: int) -> Markup:
    """One narrowing: what is lost on both sides, what goes on in the middle."""
    y, middle = row * ROW_HEIGHT, LABEL_WIDTH + FUNNEL_WIDTH / 2
    wide, narrow, end = _half(before, came), _half(after, came), y + ROW_HEIGHT - GAP
    lost = f"M{middle - wide:.1f} {y} H{middle + wide:.1f} V{end} H{middle - wide:.1f} Z"
    through = (
        f"M{middle - wide:.1f} {y} H{middle + wide:.1f} L{middle + narrow:.1f} {y + SLOPE} V{end} "
        f"H{middle - narrow:.1f} V{y + SLOPE} Z"
    )
    shapes = joined(tag("path", class_="lost", d=lost), tag("path", class_="left", d=through))
    return _row(shapes, label, count, came, y)


def _row(shapes: Markup, label: str, count: int, came: int, y: int) -> Markup:
    baseline = y + ROW_HEIGHT / 2 + 3
    right = LABEL_WIDTH + FUNNEL_WIDTH + NUMBER_WIDTH
    said = f"{number(count)} ({100 * count / max(came, 1):.1f} %)"
    return joined(
        shapes,
        tag("text", label, x=LABEL_WIDTH - 12, y=f"{baseline:g}", text_anchor="end"),
        tag("text", said, class_="n", x=right, y=f"{baseline:g}", text_anchor="end"),
    )
