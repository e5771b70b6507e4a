from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from storagering.catalog.report.html import element, join


class Reader(HTMLParser):
    """What a reader of HTML sees."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_an_element_looks_like() -> None:
    built = element("p", "a<b", element("b", 1), None, ["x", ["&"]], class_="n", data_v=1.5, id=None)
    assert built == '<p class="n" data-v="1.5">a&lt;b<b>1</b>x&amp;</p>'
    assert element("input", hidden="", http_equiv="x") == '<input hidden="" http-equiv="x">'
    assert join(["a", element("i")]) == "a<i></i>"


def test_control_characters_and_lone_halves_are_written_out() -> None:
    assert element("p", "a\x00\x1b[2J\x9b\n\ud800") == "<p>a\\x00\\x1b[2J\\x9b\n\\ud800</p>"
    assert element("p", "\U0001f642é").encode() == "<p>\U0001f642é</p>".encode()


@given(text=st.text(max_size=60) | st.sampled_from(["<script>", '"><img src=x onerror=alert(1)>', "</style>", "&lt;"]))
def test_text_is_never_markup(text: str) -> None:
    read = Reader(element("p", text, title=text))
    assert [tag for tag, _ in read.tags] == ["p"]
    assert [name for name, _ in read.tags[0][1]] == ["title"]
    shown = join(text).encode().decode()  # it can be written as UTF-8
    assert Reader(f"<p>{shown}</p>").text == read.text == read.tags[0][1][0][1]
