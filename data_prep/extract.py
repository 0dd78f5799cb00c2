"""Extraction: bytes of a page to its text.

The character set is the declared one if the bytes are valid in it, else the detected one; what
neither can read is replaced and counted. HTML is reduced to its main content, one line a block,
which is what line rules need.
"""

import codecs
import re
from dataclasses import dataclass

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

from data_prep.sources import Page

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_REPLACED_SHARE = 0.01
# The extractor takes every plain <ul> for navigation and leaves ordered lists alone, so lists are
# shown to it as ordered ones; lists of links go later, for they have no end marks.
LIST_TAG = re.compile(r"(</?)ul\b", re.IGNORECASE)


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


def extract(page: Page) -> Extracted:
    """Text and title of a page."""
    text, replaced = decode(page.body, page.charset, html=page.is_html)
    if not page.is_html:
        return Extracted(text, "", replaced)
    tree = HTMLTree.parse(LIST_TAG.sub(r"\1ol", text))
    main = extract_plain_text(
        tree, main_content=True, list_bullets=False, alt_texts=False, comments=False
    )
    return Extracted(main, " ".join((tree.title or "").split()), replaced)


def decode(body: bytes, declared: str | None, *, html: bool) -> tuple[str, int]:
    """(text, replaced characters) of `body`; a byte order mark wins over what was declared."""
    for mark, name in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le")):
        if body.startswith(mark):
            return _strict_or_replaced(body[len(mark) :], (name,))
    names = [_python_name(declared)] if declared else []
    if html or not names:
        names.append(_python_name(detect_encoding(body, from_html_meta=html) or "utf-8"))
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


def _python_name(name: str) -> str:
    """The codec browsers use for this label, "utf-8" for a label nobody knows."""
    return map_encoding_to_html5(name.strip().lower(), fallback_utf8=True) or "utf-8"
