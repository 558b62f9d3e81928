"""Readers of docx and pptx files."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dbgpt_lite.knowledge import office_fences
from dbgpt_lite.knowledge.loaded import Check, LoadedDocument, Sections, never, watched
from dbgpt_lite.knowledge.office_fences import Fences, check_zip
from dbgpt_lite.knowledge.tables import table_lines

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
# Second copies of shapes, and text that was deleted or moved away.
_NOT_SHOWN = (f"{_MC}Fallback", f"{_W}del", f"{_W}moveFrom")
# Wrappers: content controls, tracked insertions, custom tags.
_WRAPPERS = frozenset(_W + name for name in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag"))
_SIGNS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_NOTES = ("/footnotes", "/endnotes")


def read_docx(path: Path, check: Check = never) -> LoadedDocument:
    """Paragraphs and tables under their headings, also those inside content controls and boxes; then the notes."""
    import docx

    check_zip(path, check)
    document = docx.Document(str(path))
    sections, fences = Sections(), Fences()
    levels: dict[str | None, int] = {}
    _take_out(document.element.body, check)
    for block in watched(_blocks(document.element.body, ("p", "tbl")), check):
        if block.tag == f"{_W}tbl":
            for line in table_lines(watched(_docx_rows(block, fences), check)):
                sections.line(line)
            sections.line("")
            continue
        fences.paragraph()
        text = _paragraph_text(block)
        # Looking up a style searches all styles, so it is done once for each id, not for each paragraph.
        style = block.style
        if style not in levels:
            levels[style] = _heading_level(document, block)
        if levels[style] and text.strip():
            sections.heading(levels[style], text)
        else:
            # Word's paragraphs are what blank lines are in plain text.
            sections.line(text + "\n")
    for note in watched(_notes(document), check):
        fences.paragraph()
        sections.line(note + "\n")
    return sections.document()


def _take_out(body: Any, check: Check) -> None:
    for element in watched(list(body.iter(*_NOT_SHOWN)), check):
        parent = element.getparent()
        if parent is not None:
            parent.remove(element)


def _blocks(element: Any, names: tuple[str, ...]) -> Iterator[Any]:
    """The children of these names, also those inside wrappers, in order; no table of contents."""
    wanted = {_W + name for name in names}
    waiting = [iter(element)]
    while waiting:
        child = next(waiting[-1], None)
        if child is None:
            waiting.pop()
        elif child.tag in wanted:
            yield child
        elif child.tag in _WRAPPERS and not _is_contents(child):
            waiting.append(iter(child))


def _is_contents(wrapper: Any) -> bool:
    gallery = wrapper.find(f"{_W}sdtPr/{_W}docPartObj/{_W}docPartGallery")
    return gallery is not None and gallery.get(f"{_W}val") == "Table of Contents"


def _paragraph_text(paragraph: Any) -> str:
    """All words of a paragraph, those of links, insertions and boxes too."""
    parts = []
    for element in paragraph.iter(f"{_W}t", f"{_W}p", *_SIGNS):
        if element.tag == f"{_W}t":
            parts.append(element.text or "")
        elif element.tag == f"{_W}p":
            parts.append("\n" if parts else "")
        else:
            # Tab stops of the paragraph's properties have the tag of a tab.
            parts.append(_SIGNS[element.tag] if element.getparent().tag == f"{_W}r" else "")
    return "".join(parts)


def _docx_rows(table: Any, fences: Fences) -> Iterator[list[str]]:
    """The texts of the rows; a merged cell counts in each column and row it covers.

    ``row.cells`` does the same, but follows a merge upwards anew for each row and believes any width.
    """
    above: list[str] = []
    widest = office_fences.MAX_COLUMNS + 1
    for tr in _blocks(table, ("tr",)):
        row = [""] * min(tr.grid_before, widest)
        for tc in _blocks(tr, ("tc",)):
            if tc.vMerge == "continue":
                text = above[len(row)] if len(row) < len(above) else ""
            else:
                text = "\n".join(_cell_texts(tc, fences))
            row.extend([text] * min(tc.grid_span, widest))
            if len(row) >= widest:
                break
        fences.row(len(row))
        above = row
        yield row


def _cell_texts(tc: Any, fences: Fences) -> Iterator[str]:
    """The paragraphs of a cell; a table inside it reads as its cells one after the other."""
    for paragraph in tc.iter(f"{_W}p"):
        fences.paragraph()
        if next(paragraph.iterancestors(f"{_W}txbxContent"), None) is None:
            yield _paragraph_text(paragraph)


def _heading_level(document: Any, paragraph: Any) -> int:
    """Word's built-in styles: "Title" and "Heading 1" to "Heading 9"; 0 for any other."""
    from docx.text.paragraph import Paragraph

    style = Paragraph(paragraph, document._body).style
    name = (style.name if style is not None else "") or ""
    if name == "Title":
        return 1
    found = re.fullmatch(r"[Hh]eading (\d)", name)
    return int(found[1]) if found else 0


def _notes(document: Any) -> Iterator[str]:
    """Foot- and endnotes."""
    from docx.oxml import parse_xml

    for relation in document.part.rels.values():
        if not relation.is_external and relation.reltype.endswith(_NOTES):
            for paragraph in parse_xml(relation.target_part.blob).iter(f"{_W}p"):
                yield _paragraph_text(paragraph)


def read_pptx(path: Path, check: Check = never) -> LoadedDocument:
    """A section a slide, its number as the page, its title as the heading; the speaker's notes follow its text."""
    import pptx

    check_zip(path, check)
    slides = pptx.Presentation(str(path)).slides
    sections, fences = Sections(keep_bare=False), Fences()
    for page, slide in enumerate(slides, start=1):
        check()
        title = slide.shapes.title
        heading = title.text_frame.text if title is not None else ""
        sections.heading(1, heading)
        for text in watched(_shape_texts(slide.shapes, title, fences), check):
            sections.line(text)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            sections.line("\n" + slide.notes_slide.notes_text_frame.text)
        if heading.strip() and sections.is_blank():
            sections.line(heading)
        sections.end(page)
    return sections.document(pages=len(slides))


def _shape_texts(shapes: Iterable[Any], title: Any, fences: Fences) -> Iterator[str]:
    waiting = list(shapes)[::-1]
    while waiting:
        shape = waiting.pop()
        fences.paragraph()
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if hasattr(shape, "shapes"):
            waiting.extend(list(shape.shapes)[::-1])
        elif shape.has_text_frame:
            yield shape.text_frame.text
        elif getattr(shape, "has_table", False):
            yield from table_lines(_pptx_rows(shape.table, fences))
            yield ""


def _pptx_rows(table: Any, fences: Fences) -> Iterator[list[str]]:
    """The texts of the rows; ``table.rows`` would search the table anew for each."""
    for tr in table._tbl.tr_lst:
        row = [tc.text for tc in tr.tc_lst]
        fences.row(len(row))
        yield row
