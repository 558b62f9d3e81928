"""Markdown of a model -> HTML that can do nothing: no raw HTML, no images, links to http(s) only.

Syntax is CommonMark with tables and strikethrough, parsed by markdown-it-py (https://markdown-it-py.readthedocs.io).
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

from dbgpt_lite.ui.icons import icon

_MARKER = re.compile(r"\[(\d{1,2})\]")
_WEB_LINK = re.compile(r"https?://[^\s]+\Z", re.IGNORECASE)
_LANGUAGE = re.compile(r"[A-Za-z0-9+#._-]{1,20}")
MAX_HIGHLIGHTED = 20_000


@dataclass(frozen=True, slots=True)
class Flags:
    """Sentences of the source to underline, and the hint that says why."""

    sentences: tuple[str, ...] = ()
    hint: str = ""


def to_html(source: str, citations: Collection[int] = (), copy_label: str = "", flags: Flags | None = None) -> Markup:
    """Render `source`. Markers [n] with n in `citations` become buttons; `copy_label` names the copy buttons."""
    environment = {"citations": frozenset(citations), "copy": copy_label, "hint": flags.hint if flags else ""}
    parser = _parser()
    tokens = parser.parse(source, environment)
    for sentence in flags.sentences if flags else ():
        _flag(tokens, _shown(parser, sentence))
    return Markup(parser.renderer.render(tokens, parser.options, environment))


def _shown(parser: MarkdownIt, sentence: str) -> str:
    """The characters a reader sees of a sentence of the source."""
    return "".join(_letters(token)[0] for token in _leaves(parser.parseInline(sentence)))


def _flag(tokens: Sequence[Token], sentence: str) -> None:
    """Note in the text tokens which of their characters belong to `sentence`, at its first place not yet taken.

    Each text token is marked by itself, so that emphasis or a link within the sentence stays whole.
    """
    wanted = "".join(sentence.split())
    for block in tokens:
        leaves = _leaves([block]) if wanted else []
        letters = [(leaf, place) for leaf in leaves for place in _letters(leaf)[1]]
        plain = "".join(leaf.content[place] for leaf, place in letters)
        start = plain.find(wanted)
        if start < 0:
            continue
        for leaf, place in letters[start : start + len(wanted)]:
            leaf.meta.setdefault("flagged", set()).add(place)
        return


def _leaves(tokens: Sequence[Token]) -> list[Token]:
    """The tokens that hold the text of inline tokens."""
    return [child for token in tokens for child in token.children or () if child.type in ("text", "code_inline")]


def _letters(token: Token) -> tuple[str, list[int]]:
    """A token's text and the places of its characters that are not white space."""
    return token.content, [place for place, letter in enumerate(token.content) if not letter.isspace()]


def highlight(code: str, language: str) -> Markup:
    """Code as spans of the classes Pygments uses; plain text when the language is unknown or the code very long."""
    from pygments import highlight as colour  # type: ignore[import-untyped]
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]

    if len(code) > MAX_HIGHLIGHTED:
        return escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return escape(code)
    return Markup(colour(code, lexer, HtmlFormatter(nowrap=True)))


def code_block(code: str, language: str, copy_label: str, classes: str = "") -> Markup:
    """A block of code with its language and a copy button."""
    return Markup(
        '<figure class="code {}"><figcaption><span>{}</span>'
        '<button type="button" class="copy" data-copy="code" title="{}" aria-label="{}">{}</button></figcaption>'
        "<pre><code>{}</code></pre></figure>"
    ).format(classes, language, copy_label, copy_label, icon("copy"), highlight(code, language))


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer)
    parser.enable(["table", "strikethrough"])
    # A definition "[1]: https://..." would turn citation markers into links.
    parser.disable("reference")
    parser.validateLink = lambda url: bool(_WEB_LINK.match(url))  # type: ignore[method-assign]
    return parser


class _Renderer(RendererHTML):
    """The stock renderer but for what a model's text must not do, and for citations."""

    def text(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """Plain text, with known markers as buttons."""
        flagged = tokens[idx].meta.get("flagged")
        if not flagged:
            return str(_with_citations(tokens[idx].content, env["citations"]))
        return str(_underlined(tokens[idx].content, flagged, env))

    def code_inline(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """Code within a sentence; whole or not at all underlined."""
        shown = Markup("<code>{}</code>").format(tokens[idx].content)
        return str(_hinted(shown, env) if tokens[idx].meta.get("flagged") else shown)

    def image(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """An image is its description: loading it would tell its server who reads."""
        return str(escape(tokens[idx].content))

    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """Links open in a tab of their own and say nothing about this one."""
        tokens[idx].attrSet("target", "_blank")
        tokens[idx].attrSet("rel", "noopener noreferrer nofollow")
        return self.renderToken(tokens, idx, options, env)

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """A block of code in the language its fence names."""
        named = _LANGUAGE.match(tokens[idx].info.strip())
        return str(code_block(tokens[idx].content.rstrip("\n"), named.group() if named else "", env["copy"]))

    def code_block(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """Indented code."""
        return str(code_block(tokens[idx].content.rstrip("\n"), "", env["copy"]))

    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """Wide tables scroll in a box of their own."""
        return '<div class="table-box"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """End of the box."""
        return "</table></div>"


def _with_citations(text: str, known: Collection[int]) -> Markup:
    pieces = _MARKER.split(text)
    shown = [escape(pieces[0])]
    for number, after in zip(pieces[1::2], pieces[2::2], strict=True):
        shown += [_citation(int(number)) if int(number) in known else escape(f"[{number}]"), escape(after)]
    return Markup("").join(shown)


def _underlined(text: str, flagged: Collection[int], env: Any) -> Markup:
    first, last = min(flagged), max(flagged) + 1
    inside = _hinted(_with_citations(text[first:last], env["citations"]), env)
    return Markup("{}{}{}").format(
        _with_citations(text[:first], env["citations"]), inside, _with_citations(text[last:], env["citations"])
    )


def _hinted(shown: Markup, env: Any) -> Markup:
    return Markup('<span class="unsupported" title="{}">{}</span>').format(env["hint"], shown)


def _citation(number: int) -> Markup:
    return Markup('<button type="button" class="citation" data-number="{}">{}</button>').format(number, number)
