"""Whether rendered HTML is harmless: what a browser would make of it is looked at, not its words."""

import re
from html.parser import HTMLParser

from dbgpt_lite.messages import Passage

HOSTILE = "\"><img src=x onerror=alert(1)><script>alert(1)</script>'</details></template>"
ALLOWED = {
    "a", "article", "b", "blockquote", "br", "button", "circle", "code", "dd", "del", "desc", "details", "div", "dl",
    "dt", "em", "figcaption", "figure", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "i", "input",
    "label", "li", "line", "mark", "ol", "option", "p", "path", "polyline", "pre", "rect", "s", "section", "select",
    "small", "span", "strong", "summary", "svg", "table", "tbody", "td", "text", "textarea", "th", "thead", "tr", "ul",
}  # fmt: skip


class Tags(HTMLParser):
    """Every element and attribute a browser would make of some HTML, and its text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(str(markup))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def check_harmless(markup: str) -> Tags:
    """No element or attribute that runs, loads or leads anywhere but to http(s)."""
    seen = Tags(markup)
    assert seen.tags <= ALLOWED, seen.tags - ALLOWED
    for tag, name, value in seen.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "srcset", "srcdoc", "formaction", "action", "poster", "background"), (tag, name)
        assert name != "href" or re.match(r"https?://|#/", value), value
        assert name != "style" or re.fullmatch(r"width:[\d.]+%|text-align:(left|right|center)", value), value
    return seen


def passage(**facts: object) -> Passage:
    return Passage(**{"id": 1, "text": "One. Two.", "document_id": "d", "document": "a.pdf", **facts})  # type: ignore[arg-type]
