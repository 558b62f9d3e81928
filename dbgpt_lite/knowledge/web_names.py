"""What a fetched page is called and how it is read: from its type, its address, its headers and its title."""

import hashlib
import html
import re
from pathlib import PurePosixPath
from urllib.parse import unquote

import httpx

from dbgpt_lite.errors import UserError
from dbgpt_lite.knowledge.encodings import readers
from dbgpt_lite.knowledge.names import file_name

_OFFICE = "application/vnd.openxmlformats-officedocument."
# Media type -> suffix of the reader.
SUFFIXES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "application/pdf": ".pdf",
    "application/x-pdf": ".pdf",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/x-markdown": ".md",
    "text/csv": ".csv",
    "application/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    f"{_OFFICE}wordprocessingml.document": ".docx",
    f"{_OFFICE}spreadsheetml.sheet": ".xlsx",
    f"{_OFFICE}presentationml.presentation": ".pptx",
}
# Types that say nothing: then the name decides.
_VAGUE = ("", "application/octet-stream", "binary/octet-stream", "application/zip", "application/x-download")
# Servers send these as plain text.
_PLAIN = (".md", ".markdown", ".csv", ".tsv", ".log", ".text")
_KNOWN = frozenset((*SUFFIXES.values(), *_PLAIN, ".htm"))

_EXTENDED_NAME = re.compile(r"filename\*\s*=\s*(?:utf-8|iso-8859-1)'[^']*'([^;\s]+)", re.IGNORECASE)
_PLAIN_NAME = re.compile(r'filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))', re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]{0,200}>(.{1,2000}?)</title", re.IGNORECASE | re.DOTALL)
_TITLE_WITHIN = 100_000
_MAX_PLACE = 60


def media_type(headers: httpx.Headers) -> str:
    """The media type alone, "text/html"; "" when none is given."""
    return str(headers.get("content-type", "")).partition(";")[0].strip().lower()


def reader_suffix(headers: httpx.Headers, url: httpx.URL) -> str:
    """The suffix of the reader for an answer. Raises UserError (knowledge.url_wrong_type) when there is none."""
    kind, named = media_type(headers), _suffix(_given_name(headers) or _last_part(url))
    if kind in _VAGUE and named in _KNOWN:
        return named
    if kind == "text/plain" and named in _PLAIN:
        return named
    if kind not in SUFFIXES:
        raise UserError("knowledge.url_wrong_type", type=kind or "?", known=" ".join(sorted(set(SUFFIXES.values()))))
    return SUFFIXES[kind]


def page_name(headers: httpx.Headers, url: httpx.URL, suffix: str, beginning: bytes, charset: str) -> str:
    """A display name with the suffix of its reader.

    A file keeps its name. A web page is called by its title and its place, since thousands are called index.html and
    a document replaces another of the same name.
    """
    name = _given_name(headers) or ("" if suffix == ".html" else _last_part(url))
    if not name:
        title = _title(beginning, charset) if suffix == ".html" else ""
        name = f"{title} ({_place(url)})" if title else _place(url)
        name = name.replace("/", "\u2215").replace("\\", " ") + suffix
    elif _suffix(name) not in _KNOWN or (suffix not in _PLAIN and _suffix(name) != suffix):
        name += suffix
    return file_name(name)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _last_part(url: httpx.URL) -> str:
    return unquote(url.raw_path.split(b"?")[0].rsplit(b"/", 1)[-1].decode("ascii", "replace"))


def _given_name(headers: httpx.Headers) -> str:
    """The file name of a Content-Disposition header (RFC 6266), as untrusted as all of it."""
    header = headers.get("content-disposition", "")
    if extended := _EXTENDED_NAME.search(header):
        return unquote(extended[1])
    if plain := _PLAIN_NAME.search(header):
        return re.sub(r"\\(.)", r"\1", plain[1] or plain[2] or "")
    return ""


def _title(beginning: bytes, charset: str) -> str:
    found = _TITLE.search(beginning[:_TITLE_WITHIN])
    if not found:
        return ""
    words = html.unescape(found[1].decode(readers(charset or "utf-8")[0], "replace"))
    return "" if "\ufffd" in words else " ".join(words.split())[:80].strip()


def _place(url: httpx.URL) -> str:
    """Host, path and query in words; a long one ends in a digest, so that two pages never share it."""
    path = unquote(url.raw_path.decode("ascii", "replace"))
    place = " ".join(f"{url.host} {path}".replace("/", " ").split())
    if len(place) <= _MAX_PLACE:
        return place
    return f"{place[:_MAX_PLACE]}… {hashlib.sha256(str(url).encode()).hexdigest()[:6]}"
