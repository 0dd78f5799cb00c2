"""What would lead to a person is replaced and counted; what only looks like it stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.clean import Cleaning, cleaner_of
from data_prep.clean.presets import NoLanguage
from data_prep.clean.privacy import MASKS, masked

EMAIL, V4, V6, PHONE = "email@example.com", "192.0.2.1", "2001:db8::1", "555-0100"


@pytest.mark.parametrize(
    ("name", "text", "instead"),
    [
        ("emails", "Write to jane.doe+list@mail.uni-x.ac.uk.", f"Write to {EMAIL}."),
        ("emails", "<a_b@x.org>, or me@y.io!", f"<{EMAIL}>, or {EMAIL}!"),
        ("ip_addresses", "from 8.8.4.99: 130.149.7.201.", f"from {V4}: {V4}."),
        ("ip_addresses", "[2a00:1450:4001:81b::200e]:443", f"[{V6}]:443"),
        ("phones", "Call +49 30 1234567 or +1 (415) 555-2671.", f"Call {PHONE} or {PHONE}."),
        ("phones", "(415) 555-2671, 415-555-2671, 415.555.2671", f"{PHONE}, {PHONE}, {PHONE}"),
    ],
)
def test_it_is_replaced_and_counted(name, text, instead):
    assert masked(text, (name,)) == (
        instead,
        {name: sum(map(instead.count, (EMAIL, V4, V6, PHONE)))},
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("emails", "git@host, @someone, a@b.c, user@localhost, x @ y.org, 3@4.56"),
        (
            "ip_addresses",
            "10.0.0.1, 192.168.1.1, 127.0.0.1, ::1, fe80::1, 300.1.1.1, § 6.3.11.31, 1.2.3.4.5, v1.2.3.4",
        ),
        ("ip_addresses", "at 12:30:45, std::vector, a::b, 2:3, ::, ratio 1:2:3, dead:beef"),
        (
            "phones",
            "2020-11-23, 978-3-16-148410-0, 1,000,000.00, 3.14159265, 12345678, +5, + 1 2 3",
        ),
        ("phones", "123-456-7890123, a415-555-2671, 415-555-2671-1, +12 345"),
    ],
)
def test_what_only_looks_like_it_stays(name, text):
    assert masked(text, (name,)) == (text, {})


@given(st.text("ab1.@:+- ()[]3f", max_size=60))
def test_masking_leaves_the_rest_alone(text):
    for name in MASKS:
        now, counts = masked(text, (name,))
        found = counts.total()
        assert (now == text) == (found == 0)
        assert masked(now, (name,))[0] == now


def test_documents_are_masked_when_they_settle():
    text = "Mail me at me@there.org today. Call +49 30 1234567 now. Or wait for 8.8.8.8 to answer."
    cleaning = Cleaning(language=NoLanguage(), mask=("emails", "phones"))
    settled = cleaner_of(cleaning).settle(text, "")
    assert settled.masked == {"emails": 1, "phones": 1}
    assert settled.text == text.replace("me@there.org", EMAIL).replace("+49 30 1234567", PHONE)
    assert cleaner_of(Cleaning(language=NoLanguage())).settle(text, "").text == text
