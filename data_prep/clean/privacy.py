"""Privacy: e-mail addresses, IP addresses and phone numbers in documents, replaced by ones nobody has.

What is found is what a stranger could use: public IP addresses, neither private ones nor what could be the
number of a section; phone numbers with a country code or written as in North America. The replacements
are reserved for examples (RFC 2606, 5737 and 3849; the 555-01xx block).
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Sequence

from data_prep.clean.presets import Mask

ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
EMAIL = re.compile(rf"(?<![\w.]){ATOM}(?:\.{ATOM})*@(?:{LABEL}\.)+[A-Za-z]{{2,63}}(?![\w-])")
IP_V4 = re.compile(r"(?<![\w.:-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
IP_V6 = re.compile(r"(?<![\w.:])(?=[0-9A-Fa-f]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:]{3,39}(?![\w:])")
PHONE = re.compile(
    r"(?<![\w+.-])(?:"
    r"\+[1-9]\d{0,2}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]?\d{2,5}){2,5}"
    r"|(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[.-]\d{4}"
    r")(?![\w-]|[.]\d)"
)
PHONE_DIGITS = range(8, 16)
GIVEN_OUT_V6 = ipaddress.ip_network("2000::/3")
LEAST_HIGHEST_PART = 32
EXAMPLE_EMAIL, EXAMPLE_V4, EXAMPLE_V6 = "email@example.com", "192.0.2.1", "2001:db8::1"
EXAMPLE_PHONE = "555-0100"


def masked(text: str, masks: Sequence[Mask]) -> tuple[str, Counter[str]]:
    """`text` with everything that `masks` name replaced, and how often that happened."""
    counts: Counter[str] = Counter()
    for name in masks:
        text, found = MASKS[name](text)
        if found:
            counts[name] = found
    return text, counts


def _mask_emails(text: str) -> tuple[str, int]:
    return EMAIL.subn(EXAMPLE_EMAIL, text) if "@" in text else (text, 0)


def _mask_ip_addresses(text: str) -> tuple[str, int]:
    text, old = _replaced(IP_V4, _is_public, EXAMPLE_V4, text)
    text, new = _replaced(IP_V6, _is_public, EXAMPLE_V6, text)
    return text, old + new


def _mask_phones(text: str) -> tuple[str, int]:
    return _replaced(PHONE, _is_phone, EXAMPLE_PHONE, text)


def _replaced(
    pattern: re.Pattern[str], counts: Callable[[str], bool], example: str, text: str
) -> tuple[str, int]:
    """`text` with `example` for every match that `counts`, and their number."""
    found = 0

    def instead(match: re.Match[str]) -> str:
        nonlocal found
        if not counts(match[0]):
            return match[0]
        found += 1
        return example

    return pattern.sub(instead, text), found


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        # Outside the block that is given out, `a::b` is more likely a name in a program.
        return found.is_global and found in GIVEN_OUT_V6
    # One address in 4096 has no higher part; of sections and versions hardly any has one.
    return found.is_global and max(found.packed) >= LEAST_HIGHEST_PART


def _is_phone(number: str) -> bool:
    return sum(map(str.isdigit, number)) in PHONE_DIGITS


MASKS: dict[Mask, Callable[[str], tuple[str, int]]] = {
    "emails": _mask_emails,
    "ip_addresses": _mask_ip_addresses,
    "phones": _mask_phones,
}
