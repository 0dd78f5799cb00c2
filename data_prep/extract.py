"""Extraction: bytes of a page to its text.

The character set is the declared one if the bytes are valid in it, else the detected one; what
neither can read is replaced and counted. HTML is reduced to its main content, one line a block,
which is what line rules need. What would keep the extractor busy for hours is taken out first.
"""

import codecs
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

from data_prep.sources.page import Page

ExtractMode = Literal["main", "all", "quality"]
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_REPLACED_SHARE = 0.01
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# The extractor takes every plain <ul> for navigation and leaves ordered lists alone, so lists are
# shown to it as ordered ones; lists of links go later, for they have no end marks.
LIST_TAG = re.compile(r"(</?)ul\b", re.IGNORECASE)
# Its time grows with the square of the depth of a page and of the number of attributes of a tag.
# 512 levels is what browsers keep.
MAX_DEPTH = 512
MAX_TAG_CHARACTERS = 32_768  # as in LONG_TAG
LONG_TAG = re.compile(r"<[a-zA-Z!/?][^<>]{32768,}>?")
TAG_NAME = re.compile(r"<(/?[a-zA-Z][^\s/<>]*)")
MOST_NAMES = 10_000  # that are remembered
NEVER_DEEP = frozenset(
    "area base br col dd dt hr img input li link meta option p source td th tr wbr".split()
)


@dataclass(frozen=True)
class Extracted:
    """Text of a page, its title ("" if none), and how many characters had to be replaced."""

    text: str
    title: str
    replaced: int

    @property
    def is_readable(self) -> bool:
        """Whether so little was replaced that this is text."""
        return self.replaced <= MAX_REPLACED_SHARE * max(1, len(self.text))


def extract(page: Page, mode: ExtractMode = "main") -> Extracted:
    """Text and title of a page.

    `main` is its main content, fast; `all` whatever it shows; `quality` the main content as
    `trafilatura` finds it, some 15 times slower. A page nested deeper than MAX_DEPTH is read as
    with `all`.
    """
    text, replaced = decode(page.body, page.charset, html=page.is_html)
    if not page.is_html:
        return Extracted(text, "", replaced)
    text, depth = _tamed(text)
    tree = HTMLTree.parse(LIST_TAG.sub(r"\1ol", text) if mode == "main" else text)
    title = " ".join((tree.title or "").split())
    if mode == "quality" and depth <= MAX_DEPTH:
        return Extracted(_by_trafilatura(text), title, replaced)
    main = mode == "main" and depth <= MAX_DEPTH
    shown = extract_plain_text(
        tree, main_content=main, list_bullets=False, alt_texts=False, comments=False
    )
    return Extracted(shown, title, replaced)


def _by_trafilatura(text: str) -> str:
    # Half a second and 50 MB for a mode that few use.
    from trafilatura import extract as main_content

    return main_content(text, include_comments=False, output_format="txt") or ""


def _tamed(text: str) -> tuple[str, int]:
    """The page without absurdly long tags, and how deep it is nested at most, by its tags."""
    if max(map(len, text.split("<"))) > MAX_TAG_CHARACTERS:
        text = LONG_TAG.sub(" ", text)
    return text, nesting(text) if text.count("<") > MAX_DEPTH else 0


class _Steps(dict[str, int]):
    """How each name of a tag, with its slash, changes the depth: 1, -1 or 0."""

    def __missing__(self, name: str) -> int:
        step = 0 if name.lstrip("/").lower() in NEVER_DEEP else -1 if name[0] == "/" else 1
        if len(self) < MOST_NAMES:
            self[name] = step
        return step


STEPS = _Steps()


def nesting(text: str) -> int:
    """How deep tags are nested at most; what is closed without having been opened does not count."""
    names = TAG_NAME.findall(text)
    steps = np.fromiter(map(STEPS.__getitem__, names), dtype=np.int32, count=len(names))
    level = np.cumsum(steps)
    ground = np.minimum.accumulate(np.minimum(level, 0))
    return int((level - ground).max(initial=0))


def decode(body: bytes, declared: str | None, *, html: bool) -> tuple[str, int]:
    """(text, replaced characters) of `body`; a byte order mark wins over what was declared.

    NUL characters are replaced, for no text has any.
    """
    text, replaced = _decoded(body, declared, html=html)
    nuls = text.count("\0")
    return text.replace("\0", REPLACEMENT) if nuls else text, replaced + nuls


def _decoded(body: bytes, declared: str | None, *, html: bool) -> tuple[str, int]:
    for mark, name in MARKS:
        if body.startswith(mark):
            return _strict_or_replaced(body[len(mark) :], (name,))
    names = [_html_codec(declared) if html else declared] if declared else []
    if html or not names:
        names.append(_html_codec(detect_encoding(body, from_html_meta=html) or "utf-8"))
    return _strict_or_replaced(body, tuple(names))


def _strict_or_replaced(body: bytes, names: tuple[str, ...]) -> tuple[str, int]:
    for name in names:
        try:
            return body.decode(name), 0
        except UnicodeDecodeError:
            continue
    genuine = body.count(REPLACEMENT.encode()) if names[0] == "utf-8" else 0
    text = body.decode(names[0], "replace")
    return text, max(1, text.count(REPLACEMENT) - genuine)


def _html_codec(name: str) -> str:
    """The codec browsers use for this label, "utf-8" for a label nobody knows."""
    return map_encoding_to_html5(name.strip().lower(), fallback_utf8=True) or "utf-8"
