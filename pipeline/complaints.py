"""What is said about a wrong value: what was given, what is allowed, and the nearest name.

A complaint is one line, so long values are shortened, and of many names the nearest are listed.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any

VALUE_CHARACTERS = 60
LIST_CHARACTERS = 120


def nearest(word: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` when a name is close to `word`, else nothing."""
    close = difflib.get_close_matches(str(word), list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def shown(value: Any) -> str:
    """A value as it is quoted in a message: as JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 3] + "..."


def listed(names: Iterable[str], word: str = "") -> str:
    """`names` with commas; of more than a line holds, those nearest to `word` and how many more."""
    whole = list(names)
    if len(text := ", ".join(whole)) <= LIST_CHARACTERS:
        return text
    near = sorted(whole, key=lambda name: -difflib.SequenceMatcher(None, word, name).ratio())
    kept = len(near) - 1
    while kept > 1 and len(", ".join(near[:kept])) > LIST_CHARACTERS:
        kept -= 1
    return f"{', '.join(near[:kept])} and {len(near) - kept} more"


_NEEDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text (in quotes if it looks like a number)",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "keys and values",
    "dataclass_type": "keys and values",
    "path_type": "a path",
    "finite_number": "a finite number",
    "none_required": "nothing",
}
_LIMITS = {
    "greater_than": ("gt", "a number above"),
    "greater_than_equal": ("ge", "a number of at least"),
    "less_than": ("lt", "a number below"),
    "less_than_equal": ("le", "a number of at most"),
    "too_short": ("min_length", "at least this many items:"),
    "too_long": ("max_length", "at most this many items:"),
}
MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")


def explained(error: Any, owner: Any, path: Sequence[str], tags: Sequence[str] = ()) -> str:
    """What one of pydantic's errors says about the value at `path`.

    `owner` is the config class around it, `tags` are the types it may have when it is a variant.
    """
    kind, context, given = error["type"], error.get("ctx", {}), shown(error.get("input"))
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        keys = [field.name for field in dataclasses.fields(owner)] if owner else []
        near = nearest(path[-1], keys) or ";"
        return f"unknown key{near} allowed: {listed(keys, path[-1])}"
    if kind in MISSING:
        return "missing: this key is needed"
    if kind == "union_tag_invalid":
        allowed = [name.strip("' ") for name in context["expected_tags"].split(",")]
        wrong = str(context["tag"])
        return f"got {shown(wrong)}; allowed: {', '.join(allowed)}{nearest(wrong, allowed)}"
    if kind == "union_tag_not_found":
        return f"needs the key {context['discriminator']} to say which variant it is"
    if kind == "literal_error":
        allowed = [w.strip("' ") for w in context["expected"].replace(" or ", ", ").split(",")]
        near = nearest(str(error["input"]), allowed)
        return f"got {given}; allowed: {', '.join(allowed)}{near}"
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"got {given}; allowed: {words} {context[key]}"
    if kind in _NEEDS:
        return f"got {given}; allowed: {_NEEDS[kind]}{_example(error.get('input'), kind, tags)}"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    return f"got {given}: {error['msg']}"


def _example(value: Any, kind: str, tags: Sequence[str]) -> str:
    """How a word that stands where keys and values belong is meant to be written."""
    if _NEEDS[kind] != _NEEDS["dict_type"] or not isinstance(value, str) or not tags:
        return ""
    if value.endswith(".yaml"):
        return f", for example {{extends: {value}}}"
    close = difflib.get_close_matches(value, tags, n=1, cutoff=0.6)
    return f", for example {{type: {(close or tags)[0]}}}"
