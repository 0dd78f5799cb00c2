"""Limits: how many pages may be dropped for a reason before the corpus is refused."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic

from data_prep.clean import PAGE_REASONS
from data_prep.corpus.finishing import NEAR_DUPLICATE
from data_prep.corpus.reading import FAULTS, NO_ADDRESS
from data_prep.corpus.settling import CONTAMINATED, EMPTIED
from data_prep.dedup import exact
from data_prep.sources.page import SKIP_REASONS
from pipeline.complaints import nearest
from pipeline.config import DataError

BAD_WORDS = "bad_words_"  # and a language
KNOWN = sorted(
    {
        *FAULTS,
        *SKIP_REASONS,
        *PAGE_REASONS,
        *exact.REASONS.values(),
        NO_ADDRESS,
        NEAR_DUPLICATE,
        CONTAMINATED,
        EMPTIED,
    }
)


def _known(limits: dict[str, int]) -> dict[str, int]:
    for reason in limits:
        if reason not in KNOWN and not reason.startswith(BAD_WORDS):
            raise ValueError(f"{reason!r} is no reason to drop a page{nearest(reason, KNOWN)}")
    return limits


Allowed = Annotated[
    dict[str, Annotated[int, pydantic.Field(ge=0)]], pydantic.AfterValidator(_known)
]


def refuse_excess(
    dropped: Mapping[str, int],
    limits: Mapping[str, int],
    examples: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """DataError that lists every reason with more pages than `limits` allow, each with where the
    first of them are; a reason without a limit is free.
    """
    problems = []
    for reason, number in sorted(dropped.items()):
        if number > limits.get(reason, number):
            first = "; ".join(
                f"{fault['file']} at {fault['record']}: {fault['excerpt']}"
                for fault in examples.get(reason, ())
            )
            problems.append(
                f"{reason}: {number} pages, at most {limits[reason]} allowed"
                + (f" (the first: {first})" if first else "")
            )
    if problems:
        raise DataError("the input is worse than allowed; " + "\n".join(problems))
