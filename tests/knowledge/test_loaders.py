"""Every file type read from a real file; every kind of bad file named."""

import io
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

from dbgpt_lite.errors import Cancelled, DocumentError, TooLarge, UserError
from dbgpt_lite.knowledge import loaded, office_fences, webpage
from dbgpt_lite.knowledge.loaders import READERS, load

CHINESE = "公司年假制度：员工每年享有十五天年假。\n销售额由财务部每月公布。"
TRADITIONAL = "員工每年享有十五天年假。銷售額由財務部每月公佈，請參閱內部網站。"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stored"


def pdf_bytes(pages: list[list[str]], encrypt: str = "") -> bytes:
    stream = io.BytesIO()
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    canvas = Canvas(stream, encrypt=StandardEncryption(encrypt) if encrypt else None)
    for lines in pages:
        canvas.setFont("STSong-Light", 12)
        for number, line in enumerate(lines):
            canvas.drawString(70, 780 - 18 * number, line)
        canvas.showPage()
    canvas.save()
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (CHINESE.encode(), "utf-8"),
        (CHINESE.encode("utf-8-sig"), "utf-8"),
        (CHINESE.encode("utf-16"), "utf-16"),
        (CHINESE.encode("utf-16-le"), "utf-16-le"),
        (CHINESE.encode("gb18030"), "gb18030"),
    ],
)
def test_chinese_text_in_every_encoding(path: Path, content: bytes, encoding: str) -> None:
    path.write_bytes(content)
    document = load(path, "制度.txt")
    assert document.text == CHINESE
    assert document.encoding == encoding


def test_traditional_chinese_is_told_from_simplified(path: Path) -> None:
    path.write_bytes(TRADITIONAL.encode("big5"))
    document = load(path, "a.TXT")
    assert (document.text, document.encoding) == (TRADITIONAL, "big5")


def test_western_text(path: Path) -> None:
    text = "Le café était fermé; l'été dernier, nous avons dîné à côté de la forêt près du château. " * 3
    path.write_bytes(text.encode("cp1252"))
    assert load(path, "a.txt").text == text.strip()


def test_nothing_is_dropped_from_a_text_of_no_encoding(path: Path) -> None:
    for damage in (b"\xff\x00\x80\x81 \xff" * 20, bytes(range(128, 256))):
        path.write_bytes(CHINESE.encode("gb18030") + damage)
        with pytest.raises(DocumentError, match="UTF-8"):
            load(path, "a.txt")


def test_markdown_headings_become_paths(path: Path) -> None:
    path.write_text("# Policy\nIntro.\n\n## Refunds ##\nThirty days.\n```\n# no heading\n```\n# 附录\n文字")
    sections = load(path, "a.md").sections
    assert [section.heading for section in sections] == ["Policy", "Policy › Refunds", "附录"]
    assert "# no heading" in sections[1].text


def test_pdf_pages_and_joined_lines(path: Path) -> None:
    lines = ["The annual leave of every employee of this company is fifteen", "days. It starts in January."]
    path.write_bytes(pdf_bytes([lines, ["公司年假制度：员工每年享有十五天年假。"]]))
    document = load(path, "handbook.PDF")
    assert [section.page for section in document.sections] == [1, 2]
    assert document.pages == 2
    assert "is fifteen days. It starts" in document.sections[0].text
    assert "员工每年享有十五天年假" in document.sections[1].text


def test_pdf_words_broken_at_the_end_of_a_line(path: Path) -> None:
    lines = ["Use a medium-", "fine grind. The infor-", "mation about self-", "Made goods of X-", "200 is in Donau-",
             "dampf and in well-", "zog, so well-zog."]  # fmt: skip
    path.write_bytes(pdf_bytes([lines, ["A Donaudampf."]]))
    text = load(path, "a.pdf").sections[0].text.replace("\n", " ")
    assert text == (
        "Use a medium-fine grind. The information about self-Made goods of X-200 is in Donaudampf and in well-zog, "
        "so well-zog."
    )


def test_pdf_rows_of_a_table_stay_rows(path: Path) -> None:
    lines = ["Region North 1,200 1,350 12.5%", "Region South 2,100 1,980 -5.7%", "Region East 900 1,020 13.3%"]
    path.write_bytes(pdf_bytes([lines]))
    assert load(path, "a.pdf").text.splitlines() == lines


def test_pdf_bookmarks_are_headings(path: Path) -> None:
    stream = io.BytesIO()
    canvas = Canvas(stream)
    for number, (title, level) in enumerate([("One", 0), ("Detail", 1), ("", 0), ("Two", 0)]):
        if title:
            canvas.bookmarkPage(str(number))
            canvas.addOutlineEntry(title, str(number), level)
        canvas.drawString(70, 700, f"Text {number}.")
        canvas.showPage()
    canvas.save()
    path.write_bytes(stream.getvalue())
    headings = [(section.page, section.heading) for section in load(path, "a.pdf").sections]
    assert headings == [(1, "One"), (2, "One › Detail"), (3, "One › Detail"), (4, "Two")]


def test_docx_headings_paragraphs_and_tables(path: Path) -> None:
    document = docx.Document()
    document.add_heading("员工手册", 0)
    document.add_heading("Leave", 2)
    document.add_paragraph("Fifteen days.")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(
        [cell for row in table.rows for cell in row.cells], ["City", "Days", "北京", "15"], strict=True
    ):
        cell.text = text
    document.save(str(path))
    [section] = load(path, "a.docx").sections
    assert section.heading == "员工手册 › Leave"
    assert section.text == "Fifteen days.\n\nCity: 北京; Days: 15"


W14 = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'


def test_docx_text_wherever_word_keeps_it(path: Path) -> None:
    box = "<w:r><w:pict><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent></w:pict></w:r>"
    contents = '<w:sdtPr><w:docPartObj><w:docPartGallery w:val="Table of Contents"/></w:docPartObj></w:sdtPr>'
    docx_with(
        path,
        f"<w:sdt>{contents}<w:sdtContent>{paragraph('Leave ... 7')}</w:sdtContent></w:sdt>"
        f"<w:sdt><w:sdtContent>{paragraph('controlled')}</w:sdtContent></w:sdt>"
        "<w:p><w:ins><w:r><w:t>inserted</w:t></w:r></w:ins><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom></w:p>"
        f"<w:p><w:r><w:t>before</w:t></w:r>{box}<mc:AlternateContent {W14}><mc:Fallback>{box}</mc:Fallback>"
        "</mc:AlternateContent></w:p>"
        "<w:tbl><w:tr><w:tc><w:tbl><w:tr><w:tc><w:p><w:r><w:t>inner</w:t></w:r></w:p></w:tc></w:tr></w:tbl><w:p/>"
        "</w:tc></w:tr></w:tbl>",
    )
    assert load(path, "a.docx").text.split() == ["controlled", "inserted", "before", "boxed", "inner"]


def test_tables_with_titles_above_the_header(path: Path) -> None:
    path.write_text("Prices 2024,,\nItem,Colour,Fee\nBook,red,2\nItem,Colour,Fee\nPen,blue,3\n")
    assert load(path, "a.csv").text.splitlines() == [
        "Prices 2024",
        "Item: Book; Colour: red; Fee: 2",
        "Item: Pen; Colour: blue; Fee: 3",
    ]


def test_xlsx_merged_hidden_and_calculated_cells(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (
        ["Region", "Month", "Sum"],
        ["North", "May", 0.1 + 0.2],
        [None, "June", 4.0],
        [None, None, None],
        ["South", None, "=SUM(C2:C3)"],
    ):
        sheet.append(row)
    sheet.merge_cells("A2:A4")
    book.create_sheet("Internal").append(["secret list", "x"])
    book["Internal"].sheet_state = "hidden"
    book.save(path)
    assert load(path, "a.xlsx").text.splitlines() == [
        "Region: North; Month: May; Sum: 0.3",
        "Region: North; Month: June; Sum: 4",
        "Region: South; Sum: =SUM(C2:C3)",
    ]


def test_office_files_with_a_dtd_are_refused(path: Path) -> None:
    stream = io.BytesIO()
    openpyxl.Workbook().save(stream)
    secret = path.with_name("secret")
    secret.write_text("confidential")
    dtd = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
    for encoding in ("utf-8", "utf-16"):
        with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "xl/worksheets/sheet1.xml":
                    content = (dtd + content.decode()).encode(encoding)
                target.writestr(name, content)
        assert key_of(lambda: load(path, "a.xlsx")) == "knowledge.unreadable"


def test_xlsx_rows_read_alone(path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "Prices"
    for row in (["Product", "Price"], ["RX-200", 12.5], ["手机", 3000], [None, None]):
        book.active.append(row)
    book.create_sheet("Empty")
    book.save(path)
    [section] = load(path, "a.xlsx").sections
    assert section.heading == "Prices"
    assert section.text == "Product: RX-200; Price: 12.5\nProduct: 手机; Price: 3000"


def test_pptx_slides(path: Path) -> None:
    deck = pptx.Presentation()
    for title, body in (("Roadmap", "Ship in May"), ("销售", "华东增长")):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, body
    deck.slides[0].notes_slide.notes_text_frame.text = "Ask Ann first"
    deck.save(str(path))
    first, second = load(path, "a.pptx").sections
    assert (first.page, first.heading, first.text) == (1, "Roadmap", "Ship in May\n\nAsk Ann first")
    assert (second.page, second.heading, second.text) == (2, "销售", "华东增长")


def test_html_without_its_scripts(path: Path) -> None:
    page = """<html><head><title>Shop</title><script>steal()</script><style>p{}</style></head><body><h1>Returns</h1>
    <p>Within <b>30
    days</b>.</p><!-- hidden --><h2>费用</h2><table><tr><th>Item</th><th>Fee</th></tr><tr><td>Book</td><td>2</td></tr>
    </table><ul><li>One</li><li>Two</li></ul></body></html>"""
    path.write_text(page)
    returns, fees = load(path, "a.html").sections
    assert (returns.heading, returns.text) == ("Shop › Returns", "Within 30 days.")
    assert fees.heading == "Shop › Returns › 费用"
    assert fees.text.split() == "Item: Book; Fee: 2 One Two".split()
    assert "steal" not in load(path, "a.htm").text
    assert "hidden" not in load(path, "a.htm").text


def test_html_main_text_without_the_frame_of_the_page(path: Path) -> None:
    path.write_text(
        """<title>Guide - Shop</title><script>if(a<!b){x="<!--"}</script>
        <header><a>Home</a></header><nav>Menu<ul><li>Other</ul></nav><div role=navigation>crumbs</div>
        <main><h1>Guide</h1><p>First <b>bold</b> part<br>second line<p>Two &amp; more
        <ul><li>A<li>B<ul><li>deep</ul></ul>
        <table><caption>Prices</caption><tr><th>Item<th>Fee<tr><td>Book<td>2<tr><td>Pen<td><table><tr><td>x<td>y
        </table></table><h2>Code</h2><pre>def f():
    return 1</pre><aside>Mind the gap</aside><p hidden>secret</p></main><p>Outside</p><footer>Imprint</footer>"""
    )
    guide, code = load(path, "a.html").sections
    assert (guide.heading, code.heading) == ("Guide", "Guide › Code")
    assert guide.text.split("\n\n") == [
        "First bold part\nsecond line",
        "Two & more",
        "A\nB",
        "deep",
        "Prices\nItem: Book; Fee: 2\nItem: Pen; Fee: x | y",
    ]
    assert code.text == "def f():\n    return 1\n\nMind the gap"


@pytest.mark.parametrize(
    "piece", ["<!--", "<a ", "<div>", "<table><tr><td>", "<?", "<!D ", "<script>", "<title>", "&#9"]
)
def test_html_that_is_never_closed_takes_no_long_time(path: Path, piece: str) -> None:
    path.write_text("text " + piece * 40_000)
    with suppress(UserError):
        assert "text" in load(path, "a.html").text


def test_html_of_too_many_tags_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webpage, "MAX_TAGS", 100)
    path.write_text("<p>" * 101)
    assert key_of(lambda: load(path, "a.html")) == "knowledge.too_many_elements"


def test_html_in_the_encoding_it_declares(path: Path) -> None:
    path.write_bytes(f'<meta charset="gb2312"><p>{CHINESE}镕</p>'.encode("gb18030"))
    assert "镕" in load(path, "a.html").text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("name;city\nAnn;Berlin\nBob;北京\n", "name: Ann; city: Berlin\nname: Bob; city: 北京"),
        ("1,2\n3,4\n", "1 | 2\n3 | 4"),
        ('note,"a\nb"\n', "note | a b"),
    ],
)
def test_csv(path: Path, content: str, text: str) -> None:
    path.write_bytes(content.encode("gb18030"))
    assert load(path, "a.csv").text == text


def key_of(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert caught.value.render("zh")
    return caught.value.key


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("a.txt", b"", "knowledge.empty_file"),
        ("a.txt", b" \n\t ", "knowledge.no_text"),
        ("a.exe", b"MZ", "knowledge.unknown_type"),
        ("noname", b"text", "knowledge.unknown_type"),
        ("a.pdf", b"not a pdf", "knowledge.unreadable"),
        ("a.pdf", pdf_bytes([["text"]])[:300], "knowledge.unreadable"),
        ("a.pdf", pdf_bytes([["secret"]], encrypt="password"), "knowledge.encrypted_pdf"),
        ("a.pdf", pdf_bytes([[], []]), "knowledge.scanned_pdf"),
        ("a.docx", b"PK\x03\x04 broken", "knowledge.unreadable"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 old", "knowledge.encrypted_or_old_office"),
        ("a.pptx", b"plain text", "knowledge.unreadable"),
    ],
)
def test_bad_files_are_named(path: Path, name: str, content: bytes, key: str) -> None:
    path.write_bytes(content)
    assert key_of(lambda: load(path, name)) == key


def test_a_truncated_office_file_is_named(path: Path) -> None:
    stream = io.BytesIO()
    docx.Document().save(stream)
    path.write_bytes(stream.getvalue()[:-200])
    assert key_of(lambda: load(path, "a.docx")) == "knowledge.unreadable"


def test_decompression_bombs_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * 3_000_000)
    monkeypatch.setattr(office_fences, "MAX_EXPANDED_BYTES", 2_000_000)
    with pytest.raises(TooLarge, match="unpacks"):
        load(path, "a.docx")
    monkeypatch.setattr(loaded, "MAX_CHARACTERS", 1000)
    path.write_text("long " * 1000)
    with pytest.raises(TooLarge, match="1,000"):
        load(path, "a.txt")


def test_every_reader_answers_for_a_suffix() -> None:
    assert {".txt", ".md", ".pdf", ".docx", ".html", ".csv", ".xlsx", ".pptx"} <= READERS


def docx_with(path: Path, body: str) -> None:
    """A Word file with `body` (WordprocessingML) in its body."""
    stream = io.BytesIO()
    docx.Document().save(stream)
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "word/document.xml":
                content = content.replace(b"<w:sectPr", body.encode() + b"<w:sectPr", 1)
            target.writestr(name, content)


SHEET = (b"<sheetData>", b"</sheetData>")


def xlsx_with(path: Path, rows: str) -> None:
    """A workbook whose only sheet holds `rows` (SpreadsheetML)."""
    stream = io.BytesIO()
    openpyxl.Workbook().save(stream)
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "xl/worksheets/sheet1.xml":
                content, found = re.subn(rb"<sheetData */>|<sheetData></sheetData>", rows.encode().join(SHEET), content)
                assert found
            target.writestr(name, content)


def paragraph(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


def test_each_style_is_looked_up_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docx_with(path, paragraph("Leave", "Heading1") + "<w:p/>" * 5000 + paragraph("Fifteen days."))
    asked = []
    real = docx.text.paragraph.Paragraph.style.fget
    monkeypatch.setattr(
        docx.text.paragraph.Paragraph, "style", property(lambda found: asked.append(found) or real(found))
    )
    [section] = load(path, "a.docx").sections
    assert (section.heading, section.text) == ("Leave", "Fifteen days.")
    assert len(asked) <= 4


@pytest.mark.parametrize(
    ("limit", "value", "body", "key"),
    [
        ("MAX_PARAGRAPHS", 1000, "<w:p/>" * 1001, "too_many_paragraphs"),
        ("MAX_TAGS", 5000, "<w:p/>" * 5001, "too_many_elements"),
        ("MAX_CELLS", 100, "<w:tbl>" + "<w:tr><w:tc><w:p/></w:tc></w:tr>" * 51 + "</w:tbl>", "too_many_cells"),
        (
            "MAX_COLUMNS",
            1000,
            '<w:tbl><w:tr><w:tc><w:tcPr><w:gridSpan w:val="999999999"/></w:tcPr><w:p/></w:tc></w:tr></w:tbl>',
            "too_many_columns",
        ),
    ],
)
def test_docx_bombs_are_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, body: str, key: str
) -> None:
    docx_with(path, paragraph("text") + body)
    monkeypatch.setattr(office_fences, limit, value)
    assert key_of(lambda: load(path, "a.docx")) == f"knowledge.{key}"


def test_docx_cells_merged_down_thousands_of_rows(path: Path) -> None:
    def row(merge: str, first: str, second: str) -> str:
        merged = f"<w:tc><w:tcPr><w:vMerge{merge}/></w:tcPr>{paragraph(first)}</w:tc>"
        return f"<w:tr>{merged}<w:tc>{paragraph(second)}</w:tc></w:tr>"

    rows = row(' w:val="restart"', "North", "1") + "".join(row("", "", str(number)) for number in range(2, 3001))
    docx_with(path, f"<w:tbl>{rows}</w:tbl>")
    lines = load(path, "a.docx").text.splitlines()
    assert (len(lines), lines[0], lines[-1]) == (3000, "North | 1", "North | 3000")


def test_xlsx_rows_end_at_their_last_filled_cell(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    real = office_fences.Fences.row
    monkeypatch.setattr(office_fences.Fences, "row", lambda self, cells: widths.append(cells) or real(self, cells))
    xlsx_with(
        path,
        "".join(f'<row r="{n}"><c r="B{n}"><v>{n}</v></c><c r="XFD{n}" s="0"/></row>' for n in range(1, 51)),
    )
    assert load(path, "a.xlsx").text.splitlines()[-1] == "50"
    assert set(widths) == {2}


@pytest.mark.parametrize(
    ("rows", "key"),
    [
        ('<row r="1"><c r="XFD1"><v>1</v></c></row>', "too_many_columns"),
        (
            '<row r="1"><c r="A1"><v>1</v></c></row><row r="999999999"><c r="A999999999"><v>1</v></c></row>',
            "too_many_cells",
        ),
        ('<row r="1"/>' * 5001, "too_many_elements"),
    ],
)
def test_xlsx_bombs_are_named(path: Path, monkeypatch: pytest.MonkeyPatch, rows: str, key: str) -> None:
    xlsx_with(path, rows)
    monkeypatch.setattr(office_fences, "MAX_TAGS", 5000)
    assert key_of(lambda: load(path, "a.xlsx")) == f"knowledge.{key}"


def test_pptx_bombs_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    slide.shapes.add_table(30, 3, 0, 0, 100, 100)
    deck.save(str(path))
    for limit, key in (("MAX_CELLS", "too_many_cells"), ("MAX_COLUMNS", "too_many_columns")):
        with monkeypatch.context() as patched:
            patched.setattr(office_fences, limit, 2)
            assert key_of(lambda: load(path, "a.pptx")) == f"knowledge.{key}"
    monkeypatch.setattr(office_fences, "MAX_EXPANDED_BYTES", 10_000)
    assert key_of(lambda: load(path, "a.pptx")) == "knowledge.expands_too_much"


def many_rows(path: Path, name: str) -> None:
    if name == "a.docx":
        docx_with(path, "<w:p/>" * 3000)
    elif name == "a.xlsx":
        xlsx_with(path, "".join(f'<row r="{n}"><c r="A{n}"><v>{n}</v></c></row>' for n in range(1, 3001)))
    elif name == "a.html":
        path.write_text("<p>line</p>\n" * 3000)
    else:
        path.write_text("one,two\n" * 3000)


@pytest.mark.parametrize("name", ["a.docx", "a.xlsx", "a.html", "a.csv", "a.md"])
def test_reading_stops_when_asked(path: Path, name: str) -> None:
    many_rows(path, name)
    calls: list[str] = []

    def count() -> None:
        calls.append(name)

    many_rows(path, name)
    with suppress(UserError):
        load(path, name, count)
    last = len(calls)
    calls.clear()

    def stop_at_the_last() -> None:
        count()
        if len(calls) == last:
            raise Cancelled

    assert last > 3000 // loaded.WATCH_EVERY
    with pytest.raises(Cancelled):
        load(path, name, stop_at_the_last)


@pytest.mark.parametrize(
    ("page", "parts"),
    [
        ("<h2>Opening hours</h3><p>We open at nine.</p><p>Closed on Sundays.", ("nine", "Sundays")),
        ("<h1>Title<p>Text one.<p>Text two.<p>Text three.", ("one", "two", "three")),
        ("<h1><div>Title</div></h1><p>Body.", ("Body",)),
        ("<h1>A</h1><h2>Call 555-1234</h2><h2>B</h2><p>Body.", ("555-1234", "Body")),
        ("<h1>Only</h1><h2>headings</h2><h2>here</h2>", ("headings", "here")),
    ],
)
def test_html_headings_swallow_no_text(path: Path, page: str, parts: tuple[str, ...]) -> None:
    path.write_text(page)
    document = load(path, "a.html")
    for part in parts:
        assert part in document.text, part
    if "<div>Title" in page:
        assert document.sections[0].heading == "Title"


def test_a_heading_that_is_a_chapter_is_cut_and_kept_as_text(path: Path) -> None:
    path.write_text("# " + "word " * 150 + "end\n\nBody.\n")
    [section] = load(path, "a.md").sections
    assert len(section.heading) <= loaded.MAX_HEADING
    assert section.text.endswith("word end\n\nBody.")


def _with_sheet_named(name: str, before: bytes) -> bytes:
    """A workbook whose first sheet is stored under another name and begins with `before`."""
    plain = io.BytesIO()
    book = openpyxl.Workbook()
    book.active.append(["hello"])
    book.save(plain)
    changed = io.BytesIO()
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            content = source.read(entry).replace(b"worksheets/sheet1.xml", f"worksheets/{name}".encode())
            if entry == "xl/worksheets/sheet1.xml":
                target.writestr(f"xl/worksheets/{name}", before + content.partition(b"?>")[2] or content)
            else:
                target.writestr(entry, content)
    return changed.getvalue()


@pytest.mark.parametrize("name", ["sheet1.xml", "sheet1.dat", "sheet1.png", "printerSettings1.bin"])
def test_a_sheet_with_entities_is_refused_whatever_it_is_called(path: Path, name: str) -> None:
    path.write_bytes(_with_sheet_named(name, b'<!DOCTYPE w [<!ENTITY a "aaaa">]>'))
    assert key_of(lambda: load(path, "a.xlsx")) == "knowledge.unreadable"
    path.write_bytes(_with_sheet_named(name, b'\xef\xbb\xbf<!DOCTYPE w [<!ENTITY a "aaaa">]>'))
    assert key_of(lambda: load(path, "a.xlsx")) == "knowledge.unreadable"


def test_a_quotation_mark_that_is_never_closed_costs_no_csv(path: Path) -> None:
    rows = "\n".join(f"{number},Lantern {number}" for number in range(12_000))
    path.write_text(f'id,name\n1,"broken\n{rows}\n')
    text = load(path, "a.csv").text
    assert "Lantern 11999" in text
    assert "broken" in text
