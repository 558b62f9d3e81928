"""The three jobs as a person does them: click, type, read."""

import csv
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import docx
import pytest
from playwright.sync_api import Page, expect
from reportlab.pdfgen import canvas

from tests.conftest import MariaDB
from tests.e2e.conftest import App
from tests.e2e.pages import ask, choose_mode, last_answer, upload


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, mariadb: MariaDB) -> Iterator[App]:
    """The default app with one more connection: a MariaDB account that may write as well."""
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE DATABASE library CHARACTER SET utf8mb4")
        cursor.execute("CREATE TABLE library.books (id INT PRIMARY KEY, title VARCHAR(80), pages INT)")
        rows = [(1, "红楼梦", 1200), (2, "Emma", 474), (3, "<img src=x onerror=alert(1)>", 12)]
        cursor.executemany("INSERT INTO library.books VALUES (%s, %s, %s)", rows)
    settings = {"DATABASES": f"library={mariadb.url('owner', 'library')}"}
    running = App(tmp_path_factory.mktemp("app") / "data", settings).start()
    yield running
    running.stop()
    assert mariadb.owner_password not in running.log.read_text()


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A real two-page PDF."""
    buffer = BytesIO()
    pdf = canvas.Canvas(buffer)
    pdf.drawString(72, 720, "Annual report of the Heron Bay observatory.")
    pdf.showPage()
    pdf.drawString(72, 720, "The telescope mirror measures 340 centimetres and weighs 4 tonnes.")
    pdf.save()
    file = tmp_path / "heron-bay.pdf"
    file.write_bytes(buffer.getvalue())
    return file


@pytest.fixture
def chinese_notes(tmp_path: Path) -> Path:
    """A real Chinese Word file."""
    document = docx.Document()
    document.add_heading("观测站管理办法", 1)
    document.add_paragraph("夜间观测须提前三天预约。观测站的参观时间为每周六下午两点至五点。")
    file = tmp_path / "观测站.docx"
    document.save(str(file))
    return file


def test_chat_answers_from_the_help_pages(page: Page) -> None:
    choose_mode(page, "chat")
    ask(page, "What can you do?")
    expect(last_answer(page)).to_contain_text("your documents")
    expect(page.locator("#badge")).to_contain_text("Built-in assistant")


def test_uploaded_pdf_and_docx_answer_with_citations(page: Page, report: Path, chinese_notes: Path) -> None:
    upload(page, report, chinese_notes)
    ask(page, "How large is the telescope mirror?")
    expect(last_answer(page)).to_contain_text("340 centimetres")
    source = last_answer(page).locator(".passage").first
    expect(source.locator("summary")).to_contain_text("heron-bay.pdf")
    expect(source.locator("summary")).to_contain_text("2")
    last_answer(page).locator(".citation").first.click()
    expect(source.locator("mark")).to_be_visible()
    expect(source.locator("mark")).to_contain_text("The telescope mirror measures 340 centimetres")
    ask(page, "观测站什么时候可以参观？")
    expect(last_answer(page)).to_contain_text("每周六下午两点至五点")
    expect(last_answer(page).locator(".passage summary").first).to_contain_text("观测站.docx")


def test_question_the_documents_do_not_answer_is_refused(page: Page) -> None:
    choose_mode(page, "documents")
    ask(page, "What is the boiling point of mercury?")
    expect(last_answer(page)).to_contain_text(re.compile("not in these documents|do not contain", re.IGNORECASE))
    expect(last_answer(page).locator(".near-misses")).to_have_count(1)
    expect(last_answer(page).locator(".citation")).to_have_count(0)


def test_sample_database_gives_query_rows_and_csv(page: Page, tmp_path: Path) -> None:
    choose_mode(page, "database")
    page.locator("#source select").select_option("shop")
    ask(page, "How many customers are there in each city?")
    answer = last_answer(page)
    expect(answer.locator(".sql")).to_contain_text("SELECT")
    expect(answer.locator(".result-table tbody tr").first).to_be_visible()
    with page.expect_download() as download:
        answer.locator(".csv").click()
    file = tmp_path / "rows.csv"
    download.value.save_as(file)
    with file.open(encoding="utf-8-sig", newline="") as rows:
        assert len(list(csv.reader(rows))) > 10


def test_mariadb_is_asked_in_plain_words_and_by_hand(page: Page, mariadb: MariaDB) -> None:
    choose_mode(page, "database")
    page.locator("#source select").select_option("library")
    ask(page, "How many books are there?")
    expect(last_answer(page)).to_contain_text("The answer is 3")
    ask(page, "What are the titles of the books?")
    expect(last_answer(page).locator(".result-table")).to_contain_text("红楼梦")
    expect(last_answer(page).locator(".result-table")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("#thread img").count() == 0
    page.goto(page.url.split("#")[0] + "#/data")
    page.locator("#connection select").select_option("library")
    expect(page.locator("#schema")).to_contain_text("books")
    expect(page.locator(".account-warning")).to_contain_text("ALL PRIVILEGES")
    page.locator("#sql-editor textarea").fill("DELETE FROM books")
    page.locator("#run-sql").click()
    expect(page.locator("#sql-result .error")).to_be_visible()
    page.locator("#sql-editor textarea").fill("SELECT title FROM books WHERE pages > 1000")
    page.locator("#run-sql").click()
    expect(page.locator("#sql-result .result-table")).to_contain_text("红楼梦")
    with mariadb.connect("library") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM books")
        assert cursor.fetchone() == (3,)
    assert mariadb.owner_password not in page.content()


def test_auto_finds_the_right_place(page: Page) -> None:
    ask(page, "How many customers are there?")
    expect(last_answer(page).locator(".sql")).to_be_visible()
    ask(page, "工龄满五年有多少天年假？")
    expect(last_answer(page)).to_contain_text("15 天")


def test_example_questions_answer_at_once(page: Page) -> None:
    page.locator(".example").first.click()
    expect(last_answer(page).locator(".prose")).to_be_visible()


def test_conversation_is_named_found_renamed_and_deleted(page: Page) -> None:
    ask(page, "What can you do?")
    row = page.locator(".conversation").first
    expect(row).to_contain_text("What can you do?")
    page.locator("#search textarea, #search input").first.fill("zzz-nothing")
    expect(page.locator(".conversation")).to_have_count(0)
    page.locator("#search textarea, #search input").first.fill("can you")
    expect(page.locator(".conversation")).to_have_count(1)


def test_nobody_else_sees_a_conversation(page: Page, app: App) -> None:
    ask(page, "What can you do?")
    page.wait_for_url(re.compile("#/c/"))
    address = page.url
    assert page.context.browser
    other = page.context.browser.new_context().new_page()
    other.goto(address)
    expect(other.locator(".empty")).to_be_visible()
    expect(other.locator(".conversation")).to_have_count(0)
    other.context.close()
