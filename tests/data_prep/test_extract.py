"""Character sets and text of pages."""

import random
import time

import pytest

from data_prep.extract import NEVER_DEEP, decode, extract, nesting
from data_prep.sources import Page

WORD = "Größe “quoted”"


@pytest.mark.parametrize(
    ("body", "declared", "expected"),
    [
        (WORD.encode(), "utf-8", (WORD, 0)),
        (WORD.encode("cp1252"), "iso-8859-1", (WORD, 0)),
        (WORD.encode(), None, (WORD, 0)),
        (
            b'<meta charset="windows-1251">' + "Привет".encode("cp1251"),
            None,
            ('<meta charset="windows-1251">Привет', 0),
        ),
        (b"\xef\xbb\xbf" + WORD.encode(), "cp1252", (WORD, 0)),
        ("\ufeff<p>".encode("utf-16-le"), "utf-8", ("<p>", 0)),
        (b"abc", "no-such-charset", ("abc", 0)),
        ("\ufeff<p>".encode("utf-16-be"), None, ("<p>", 0)),
        (b"a\0b", "utf-8", ("a\ufffdb", 1)),
    ],
)
def test_character_sets(body, declared, expected):
    assert decode(body, declared, html=True) == expected


def test_what_cannot_be_read_is_replaced_and_counted():
    body = b"good \xff text \xef\xbf\xbd and \xfe"
    text, replaced = decode(body, "utf-8", html=False)
    assert text.count("\ufffd") == 3
    assert replaced == 2


def test_binary_files_are_not_readable_and_one_bad_byte_is_no_harm():
    assert not extract(
        Page("u", "", 0, bytes(range(128, 256)) * 9, "utf-8", is_html=False)
    ).is_readable
    assert extract(Page("u", "", 0, b"a" * 200 + b"\xff", "utf-8", is_html=False)).is_readable


def test_html_gives_one_line_a_block_without_navigation():
    body = b"""<html><head><title> A
        title </title></head><body><nav><a href="/">Home is here.</a></nav>
        <main><h1>Head</h1><p>First
        <b>paragraph</b> of it.</p><ul><li>An item.</li></ul><script>var x = {}</script></main></body></html>"""
    page = extract(Page("u", "", 0, body, None, is_html=True))
    assert page.title == "A title"
    assert [line.strip() for line in page.text.splitlines() if line.strip()] == [
        "Head",
        "First paragraph of it.",
        "An item.",
    ]


def page(html):
    return Page("u", "", 0, html.encode(), "utf-8", is_html=True)


HTML = """<html><head><title>T</title></head><body><nav><p><a href="/">Home is here.</a></nav><main>
<p>The first paragraph of it says a thing or two about the matter.</p>
<p>The second paragraph of it says a good deal more about the matter.</p></main></body></html>"""


def test_all_shows_what_the_main_content_leaves_out():
    assert "Home" not in extract(page(HTML)).text
    assert "Home" in extract(page(HTML), "all").text
    assert "first paragraph" in extract(page(HTML), "all").text


def test_the_quality_mode_finds_the_main_content():
    # Its library works only with this one, which its own dependencies ask for as an extra.
    pytest.importorskip("lxml_html_clean")
    found = extract(page(HTML), "quality")
    assert found.title == "T"
    assert [line[:10] for line in found.text.splitlines()][-2:] == ["The first ", "The second"]


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 30_000 + "<p>Here it is.",
        "<table><tbody><tr><td><div>" * 5_000 + "Here it is.",
        "<div " + " ".join(f"a{n}=1" for n in range(50_000)) + "><p>Here it is.",
    ],
)
def test_pages_that_would_take_minutes_are_read_at_once(html):
    start = time.process_time()
    assert "Here it is." in extract(page(html)).text
    assert time.process_time() - start < 2


def test_nesting_is_what_counting_tag_by_tag_gives():
    generator = random.Random(0)
    names = ["div", "/div", "DIV", "/Div", "br", "p", "/p", "/li", "b", "/b", "x-y", "!--", "1"]
    for _ in range(200):
        tags = generator.choices(names, k=generator.randrange(60))
        text = "a < b" + "".join(f"<{tag} class='n'>text" for tag in tags)
        depth = deepest = 0
        for tag in tags:
            if tag[0] in "!1" or tag.lstrip("/").lower() in NEVER_DEEP:
                continue
            depth = max(0, depth - 1) if tag[0] == "/" else depth + 1
            deepest = max(deepest, depth)
        assert nesting(text) == deepest
