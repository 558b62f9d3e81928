"""Build dbgpt_lite/samples/documents/ from the Markdown in tools/sample_sources/.

    python tools/make_sample_documents.py [--chromium /usr/bin/chromium]

PDF files are printed by Chromium (it embeds the subset of the CJK font that is used); Word files are written by
python-docx; Markdown files are copied. Needed only after a source was edited: the built files are committed.
"""

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from docx import Document
from docx.document import Document as WordDocument
from docx.oxml.ns import qn
from docx.shared import Pt, RGBColor
from markdown_it import MarkdownIt
from markdown_it.token import Token

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "sample_sources"
TARGET = HERE.parent / "dbgpt_lite" / "samples" / "documents"
# Each source and the format it ships in.
FORMATS = {
    "product-handbook.md": ".pdf",
    "returns-and-warranty.md": ".md",
    "travel-and-expenses.md": ".docx",
    "产品指南.md": ".pdf",
    "员工手册.md": ".docx",
    "客户服务规范.md": ".md",
}
PAGE_STYLE = """
@page { size: A4; margin: 22mm 24mm }
body { font: 10.5pt/1.6 "Noto Sans CJK SC", sans-serif; color: #1c2430; hyphens: none }
h1 { font-size: 22pt; line-height: 1.25; margin: 0 0 4pt; color: #0b3b4a }
h1 + p { color: #56616e; margin-top: 0; padding-bottom: 10pt; border-bottom: 1.5pt solid #d9a441 }
h2 { font-size: 14.5pt; margin: 20pt 0 4pt; color: #0b3b4a; break-after: avoid }
h3 { font-size: 11.5pt; margin: 13pt 0 2pt; break-after: avoid }
p { margin: 0 0 7pt; orphans: 3; widows: 3 }
table { border-collapse: collapse; margin: 8pt 0; font-size: 9.5pt; width: 100%; break-inside: avoid }
th, td { text-align: left; padding: 3.5pt 8pt 3.5pt 0; border-bottom: .5pt solid #c5ccd4 }
"""


def main() -> None:
    """Build every document."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--chromium", default="chromium", help="program that prints HTML to PDF")
    chromium = str(arguments.parse_args().chromium)
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, suffix in FORMATS.items():
        source, target = SOURCES / name, (TARGET / name).with_suffix(suffix)
        if suffix == ".pdf":
            write_pdf(source, target, chromium)
        elif suffix == ".docx":
            write_docx(source, target)
        else:
            shutil.copyfile(source, target)
        print(f"{target.relative_to(HERE.parent)}: {target.stat().st_size:,} bytes")


def write_pdf(source: Path, target: Path, chromium: str) -> None:
    """Print one Markdown file to PDF."""
    text = source.read_text(encoding="utf-8")
    title = text.partition("\n")[0].lstrip("# ")
    language = "zh-CN" if title[0] > "\u2e80" else "en"
    body = MarkdownIt().enable("table").render(text)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{PAGE_STYLE}</style>'
    page = f'<!doctype html><html lang="{language}">{head}{body}'
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "page.html"
        html.write_text(page, encoding="utf-8")
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={folder}/profile",
        ]
        subprocess.run([chromium, *options, f"--print-to-pdf={target}", html.as_uri()], check=True, capture_output=True)


def write_docx(source: Path, target: Path) -> None:
    """Write one Markdown file (headings and paragraphs) as a Word document."""
    document = Document()
    _style(document)
    for kind, text in _blocks(source.read_text(encoding="utf-8")):
        if kind == "p":
            document.add_paragraph(text)
        else:
            document.add_heading(text, level=int(kind[1]) - 1)
    document.core_properties.author = "Lanternfish Goods"
    document.core_properties.title = source.stem
    document.save(str(target))


def _blocks(markdown: str) -> Iterator[tuple[str, str]]:
    """(tag, text) of each block: tag is p, h1, h2 or h3."""
    opened: Token | None = None
    for token in MarkdownIt().parse(markdown):
        if token.type in ("paragraph_open", "heading_open"):
            opened = token
        elif token.type == "inline" and opened is not None:
            yield opened.tag, token.content


def _style(document: WordDocument) -> None:
    """One sans-serif for Latin and Chinese, calm headings."""
    for name, size in (("Normal", 10.5), ("Title", 22.0), ("Heading 1", 14.0), ("Heading 2", 11.5)):
        style = document.styles[name]
        style.font.name, style.font.size = "Calibri", Pt(size)
        fonts = style.element.get_or_add_rPr().get_or_add_rFonts()
        fonts.set(qn("w:eastAsia"), "Microsoft YaHei")
        if name != "Normal":
            style.font.color.rgb = RGBColor(0x0B, 0x3B, 0x4A)


if __name__ == "__main__":
    main()
