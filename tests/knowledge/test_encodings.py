"""Text in every encoding read right, or said not to be: real sentences, whole and in pieces."""

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import DocumentError
from dbgpt_lite.knowledge import preview
from dbgpt_lite.knowledge.encodings import OFFERED, SAMPLE, canonical, decode, guess, sample
from dbgpt_lite.knowledge.loaders import load
from dbgpt_lite.knowledge.preview import preview_text

SIMPLIFIED = (
    "员工每年享有十五天年假。销售额由财务部每月公布。请假须提前三天向主管申请，经批准后方可离开工作岗位。客户退换货应在收到商品后七日内提出，"
    "并附上发票和完整包装。北京是中国的首都，也是全国的政治和文化中心。天气预报说明天会下雨，记得带伞。他们在图书馆里看书，准备下个星期的考试。"
)
TRADITIONAL = (
    "員工每年享有十五天年假。銷售額由財務部每月公佈，請參閱內部網站。本公司為保障員工權益，特訂定本辦法。請假須於三日前向主管申請，經核准後方可"
    "離開工作崗位。台北捷運系統是服務都會區的大眾運輸系統，目前共有六條路線。天氣預報說明天會下雨，記得帶傘。他們在圖書館裡讀書。"
)
JAPANESE = (
    "従業員は年間十五日の有給休暇を取得できます。売上高は毎月財務部が発表します。詳しくは社内サイトをご覧ください。"
    "この製品の保証期間は購入日から一年間です。カメラの電池を交換してから、もう一度電源を入れてください。吾輩は猫である。名前はまだ無い。"
)
KOREAN = (
    "직원은 매년 십오 일의 연차 휴가를 사용할 수 있습니다. 매출액은 재무부에서 매월 발표합니다. 휴가를 신청하려면 사흘 전까지 상사에게 알려야 "  # noqa: E501
    "합니다. 서울은 대한민국의 수도이며 인구가 가장 많은 도시이다. 배터리를 교체한 다음 전원을 다시 켜 주세요."
)
RUSSIAN = (
    "Каждый сотрудник имеет право на пятнадцать дней отпуска в год. Отдел финансов ежемесячно публикует объём продаж. "
    "Москва — столица России. Гарантия на изделие действует один год со дня покупки."
)
FRENCH = (
    "Le café était fermé ; l’été dernier, nous avons dîné à côté de la forêt près du château. Chaque salarié a droit à "
    "quinze jours de congé. « Voilà », dit-il. Les prix sont indiqués en euros (12 €)."
)
GERMAN = (
    "Jeder Mitarbeiter erhält fünfzehn Tage Urlaub. Bitte prüfen Sie die Größe. Grüße aus München! Übermäßige Gebühren."
)
SPANISH = (
    "¿Cuándo se publican las ventas? El año pasado comió en España con los niños; también habló inglés. ¡Qué mañana!"
)
POLISH = (
    "Każdy pracownik ma prawo do piętnastu dni urlopu w roku. Sprzedaż jest ogłaszana co miesiąc. Święta są w grudniu."
)

# Text, the codec it is written with, the encoding it is read as, and the characters that are enough to tell.
SAMPLES = [
    (SIMPLIFIED, "gb18030", "gb18030", 20),
    (SIMPLIFIED, "gbk", "gb18030", 20),
    (SIMPLIFIED, "utf-16-le", "utf-16-le", 30),
    (SIMPLIFIED, "utf-16-be", "utf-16-be", 30),
    (SIMPLIFIED, "utf-16", "utf-16", 4),
    (SIMPLIFIED, "utf-8", "utf-8", 4),
    (SIMPLIFIED, "utf-8-sig", "utf-8", 1),
    (TRADITIONAL, "big5", "big5", 20),
    (TRADITIONAL, "cp950", "big5", 20),
    (JAPANESE, "shift_jis", "shift_jis", 40),
    (JAPANESE, "euc_jp", "euc_jp", 40),
    (JAPANESE, "iso2022_jp", "iso2022_jp", 4),
    (KOREAN, "euc_kr", "euc_kr", 30),
    (RUSSIAN, "cp1251", "windows-1251", 60),
    (RUSSIAN.replace("—", "-"), "koi8_r", "koi8-r", 60),
    (FRENCH, "cp1252", "windows-1252", 120),
    (GERMAN, "cp1252", "windows-1252", 80),
    (SPANISH, "cp1252", "windows-1252", 80),
    (POLISH, "cp1250", "windows-1250", 100),
]


@pytest.mark.parametrize(("text", "codec", "name", "enough"), SAMPLES, ids=lambda value: str(value)[:12])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_pieces_of_real_text_in_every_encoding(
    text: str, codec: str, name: str, enough: int, data: st.DataObject
) -> None:
    # Whole sentences and words: a file does not begin inside a word.
    starts = [0, *(place + 1 for place, letter in enumerate(text) if letter in " 。，" and place + enough < len(text))]
    start = data.draw(st.sampled_from(starts))
    piece = text[start : data.draw(st.integers(start + enough, len(text)))]
    content = piece.encode(codec)
    assume(not content.isascii() or codec == "iso2022_jp")
    decoded = decode(content)
    assert (decoded.text, decoded.undecodable) == (piece, 0)
    assert decoded.encoding == name


@pytest.mark.parametrize(("text", "codec", "name", "enough"), SAMPLES, ids=lambda value: str(value)[:12])
def test_whole_texts_leave_no_doubt_where_there_is_none(text: str, codec: str, name: str, enough: int) -> None:
    found = guess((text * 2).encode(codec))
    assert found.encodings[0] == name
    # Of Latin letters the Central European table has the same ones in the same places.
    assert found.certain or codec in ("cp1252", "cp1250")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([sample for sample in SAMPLES if sample[1] not in ("utf-8", "utf-16")]), st.data())
def test_certainty_about_short_texts_is_never_wrong(known: tuple[str, str, str, int], data: st.DataObject) -> None:
    text, codec, _, _ = known
    start = data.draw(st.integers(0, len(text) - 1))
    piece = text[start : start + data.draw(st.integers(1, 6))]
    found = guess(piece.encode(codec))
    # In UTF-16 some Chinese characters are two ASCII letters.
    if found.certain and not piece.encode(codec).isascii():
        assert decode(piece.encode(codec)).text == piece


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_what_is_utf8_is_read_as_such(text: str) -> None:
    assume("\x00" not in text and "\x1b$" not in text and not text.startswith("\ufeff"))
    assert decode(text.encode()).text == text


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_bytes_decode_back_to_themselves_or_fail(content: bytes) -> None:
    try:
        decoded = decode(content)
    except DocumentError:
        return
    codec = {"utf-8": "utf-8-sig"}.get(decoded.encoding, decoded.encoding)
    # Some tables have two places for one character; reading them again gives the same text.
    assert decode(decoded.text.encode(codec), encoding=decoded.encoding).text == decoded.text
    assert decoded.undecodable == 0


def test_text_that_is_ascii_for_long_is_judged_by_the_rest() -> None:
    for codec in ("gb18030", "big5", "utf-8"):
        text = TRADITIONAL if codec == "big5" else SIMPLIFIED
        content = b"plain line\n" * (SAMPLE // 5) + text.encode(codec)
        assert len(sample(content)) < len(content)
        assert decode(content).text.endswith(text)
        assert decode(content).encoding == codec


def test_a_damaged_text_is_refused_with_its_places_and_read_when_chosen(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes(SIMPLIFIED.encode("gb18030") + b"\xff" + SIMPLIFIED.encode("gb18030") + b"\xff\n")
    with pytest.raises(DocumentError) as caught:
        load(path, "a.txt")
    assert caught.value.key == "knowledge.undecodable_bytes"
    assert caught.value.facts == {"encoding": "gb18030", "places": "2"}
    document = load(path, "a.txt", encoding="GBK")
    assert (document.encoding, document.undecodable) == ("gb18030", 2)
    assert document.text.count("\ufffd") == 2
    found = preview_text(path, "a.txt")
    assert found is not None
    assert (found.encoding, found.certain, found.undecodable) == ("gb18030", False, 2)


def test_damaged_utf8_is_not_taken_for_something_else() -> None:
    with pytest.raises(DocumentError, match="utf-8"):
        decode(FRENCH.encode() + b"\xff" + FRENCH.encode())


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.html"])
def test_a_chosen_encoding_is_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / "stored"
    # The same bytes are text in both.
    path.write_bytes("价格,说明\n低,好\n".encode("gb18030"))
    assert "价格" in load(path, name).text
    chosen = load(path, name, encoding="windows-1252")
    assert chosen.encoding == "windows-1252"
    assert "¼Û" in chosen.text
    with pytest.raises(DocumentError) as caught:
        load(path, name, encoding="hex")
    assert caught.value.key == "knowledge.unknown_encoding"
    assert "gb18030" in caught.value.render("zh")


@pytest.mark.parametrize(
    "name", ["utf-7", "unicode_escape", "hex", "punycode", "idna", "rot13", "", "\x00", "nonsense"]
)
def test_what_is_no_encoding_of_text_is_not_read(name: str) -> None:
    assert canonical(name) == ""


def test_names_of_encodings() -> None:
    assert [canonical(name) for name in ("GBK", "gb2312", "Latin-1", "UTF8", "ms932", "x", "cp949")] == [
        "gb18030", "gb18030", "windows-1252", "utf-8", "shift_jis", "", "euc_kr",
    ]  # fmt: skip
    assert all(canonical(name) == name for name in OFFERED)


def test_preview(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes((SIMPLIFIED * 100).encode("gb18030"))
    found = preview_text(path, "制度.txt")
    assert found is not None
    assert (found.name, found.encoding, found.certain, found.undecodable) == ("制度.txt", "gb18030", True, 0)
    assert found.text == (SIMPLIFIED * 100)[: preview.SHOWN]
    assert found.choices[0] == "gb18030"
    assert set(OFFERED) <= set(found.choices)
    other = preview_text(path, "制度.txt", "big5")
    assert other is not None
    assert (other.encoding, other.certain) == ("big5", False)
    assert other.undecodable > 0
    assert preview_text(path, "a.pdf") is None
    with pytest.raises(DocumentError, match="nonsense"):
        preview_text(path, "a.txt", "nonsense")


def test_a_preview_counts_what_lies_beyond_what_it_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "_JUDGED", 1000)
    monkeypatch.setattr(preview, "_BLOCK", 7)
    path = tmp_path / "stored"
    path.write_bytes(b"plain\n" * 500 + SIMPLIFIED.encode("gb18030"))
    found = preview_text(path, "a.txt")
    assert found is not None
    assert (found.encoding, found.certain) == ("utf-8", False)
    assert found.undecodable > 0
    path.write_bytes(("plain\n" * 500 + SIMPLIFIED).encode())
    found = preview_text(path, "a.txt")
    assert found is not None
    assert (found.certain, found.undecodable) == (True, 0)


def test_a_page_previews_in_the_encoding_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes('<meta charset="gb2312"><p>镕</p>'.encode("gb18030"))
    found = preview_text(path, "a.html")
    assert found is not None
    assert (found.encoding, found.certain) == ("gb18030", True)
    assert "镕" in found.text
