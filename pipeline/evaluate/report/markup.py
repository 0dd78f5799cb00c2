"""HTML and SVG whose every text and attribute is escaped, because only `tag` makes markup."""

import html


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | None


def tag(name: str, *children: Child, **attributes: object) -> Markup:
    """An element; children that are not Markup are escaped, and None is left out.

    Attributes lose a trailing underscore and have `-` for `_`; those that are None are left out.

    >>> tag("p", "1 < 2", class_="x")
    '<p class="x">1 &lt; 2</p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Children one after the other, escaped where they are not markup."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(child)
            for child in children
            if child is not None
        )
    )
