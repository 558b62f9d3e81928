"""How much bytes look like text of an encoding: the share of characters that texts in its languages are made of.

A wrong encoding often decodes without an error, but into characters nobody writes. Frequent characters tell more than
the code tables' own common rows do: all Korean syllables of EUC-KR lie in the common rows of GB 2312.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

SIMPLIFIED = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如"
    "都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高"
    "间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解"
    "水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队"
    "形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清"
    "今切院让识候带导争运请假销售额价财办层级审批费用客户元节息休每须享度"
)
TRADITIONAL = SIMPLIFIED + (
    "這個們來為國說時會對於後過裡發學經麼動樣還開從實軍無與長機關點業將兩間問戰體見產話門員東聲認義條氣題別變總電數報結務場計資許統區隊"
    "決馬書則聽卻達強難權設記類據邊張該規萬領確傳師觀讓識帶導爭運請銷額價財辦層級審費戶節須當現進種沒當頭應並給處幾爾內從裏參閱網站佈佔"
)
KOREAN = (
    "이다는의에을가하고지로은한기사도리인자를어대아시해정나서수그일스라보부만과원있제전주장게상구여것면조들성연국니적유안비오동공신문치소세물"
    "행우관선경미생등중방발용러마업회학되개식품무법권계금규직월년급휴요습합했않없때각와터으까며든음간호산화진영위내할입통고객명"
)
# Hiragana, the long-vowel mark and the katakana of loan words; kanji come on top as letters.
_KANA = (
    "\u3041-\u3093ーアイウエオカキクコサシスセソタチッテトナニネノハバパヒビピフブプヘベペホポマミムメモ"
    "ャュョラリルレロワンジズダデドガグゴ"
)
# A tie goes to the language of more people: prior is what others start with.
_WESTERN = "àáâãäåæçèéêëìíîïñòóôõöøùúûüßœÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜŒ"
_CENTRAL = "ąćęłńóśźżáčďéěíňřšťúůýžäöüßőűôĺľŕăâîșțşţđĄĆĘŁŃÓŚŹŻÁČĎÉĚÍŇŘŠŤÚŮÝŽÄÖÜŐŰÂÎŞŢĐ"
_TURKISH = "çğıöşüâîûÇĞİÖŞÜ"
_PRINTERS_SIGNS = "€£¥§©®°±²³·½¼«»‘’‚“”„–—…•™¿¡\u00a0"
_WIDE_SIGNS = "\u3000-\u3002\u3005\u3008-\u3011\u3014-\u301b\uff01-\uff5e・‘’“”…—－～·￥"

_WORD = re.compile(r"[^\W\d_]+")
_HIGH = re.compile(r"[^\x00-\x7f]")
# What no text holds: control characters, private use, unassigned noise, half-width katakana, replaced bytes.
_NEVER = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ue000-\uf8ff\ufff0-\uffff\uff61-\uff9f\U000f0000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Charset:
    """An encoding: its name, the codecs that read it (the first that can), and the score of its texts.

    rate: decoded text without plain ASCII runs -> 0 (nobody's text) to 1.
    """

    name: str
    codecs: tuple[str, ...]
    rate: Callable[[str], float] = field(repr=False)


def _scored(text: str, common: "re.Pattern[str]", letters: "re.Pattern[str]") -> float:
    """Mean over the characters above ASCII: 1 for a common one, 0.4 for a letter, -1 for what no text holds."""
    high = len(_HIGH.findall(text))
    if not high:
        return 0.0
    frequent = len(common.findall(text))
    usual = len(letters.findall(text))
    return (frequent + 0.4 * (usual - frequent) - 2 * len(_NEVER.findall(text))) / high


def _ideographic(common: str, coded: str, rows: tuple[int, int]) -> Callable[[str], float]:
    """Score for Chinese: `coded` with the lead bytes of its common characters, which are ordered by use."""
    frequent = re.compile(f"[{common}{_WIDE_SIGNS}]")

    def rate(text: str) -> float:
        usual = {letter for letter in text if letter > "\u2fff" and _lead(letter, coded) in range(*rows)}
        return _scored(text, frequent, re.compile(f"[{common}{''.join(sorted(usual))}{_WIDE_SIGNS}]"))

    return rate


def _lead(letter: str, codec: str) -> int:
    encoded = letter.encode(codec, "ignore")
    return encoded[0] if len(encoded) == 2 else 0


def _japanese(text: str) -> float:
    """Kana carry Japanese; a third of the letters of any longer text is kana."""
    score = _scored(text, _JAPANESE_COMMON, _JAPANESE_LETTERS)
    kana = len(re.findall("[\u3041-\u3096\u30a1-\u30fc]", text))
    return score if 4 * kana >= len(_HIGH.findall(text)) else 0.5 * score


_JAPANESE_COMMON = re.compile(
    f"[{_KANA}{_WIDE_SIGNS}日本人年月大国会社員中出上生時分行前間事者的用金方部以内合休給与業務規定]"
)
_JAPANESE_LETTERS = re.compile(f"[{_KANA}{_WIDE_SIGNS}\u30a1-\u30fc\u4e00-\u9fff]")
_KOREAN_COMMON = re.compile(f"[{KOREAN}{_WIDE_SIGNS}]")
_KOREAN_LETTERS = re.compile(f"[{_WIDE_SIGNS}\uac00-\ud7a3]")


def _korean(text: str) -> float:
    return _scored(text, _KOREAN_COMMON, _KOREAN_LETTERS)


def _cased(letters: str, is_word: Callable[[str], bool] = str.isalpha) -> Callable[[str], float]:
    """Score for an alphabet of its own: its words hold no other letters, and capitals stand first or everywhere."""
    signs = re.compile(f"[{re.escape(_PRINTERS_SIGNS)}№]")
    own = re.compile(f"[{letters}]+", re.IGNORECASE)

    def worth(word: str) -> float:
        if not own.fullmatch(word) or not is_word(word):
            return 0.0
        if word.islower() or word[1:].islower() or len(word) == 1:
            return float(len(word))
        return 0.8 * len(word) if word.isupper() else 0.0

    def rate(text: str) -> float:
        high = len(_HIGH.findall(text))
        good = sum(map(worth, _WORD.findall(text))) + 0.5 * len(signs.findall(text))
        return (good - 2 * len(_NEVER.findall(text))) / high if high else 0.0

    return rate


def _is_greek(word: str) -> bool:
    """The final sigma stands last, and a longer word carries an accent."""
    accented = any(letter in "άέήίόύώΐΰΆΈΉΊΌΎΏ" for letter in word)
    return "ς" not in word[:-1] and (len(word) < 4 or word.isupper() or accented)


_UNRUSSIAN = re.compile(r"(?:\b|[аеёиоуыэюяьъй])[ьъы]|[бвгджзклмнпрстфхцчшщ]э", re.IGNORECASE)


def _is_russian(word: str) -> bool:
    """The signs follow consonants only; Greek read as Russian has them anywhere."""
    return not _UNRUSSIAN.search(word)


def _accented(letters: str, prior: float = 0.0) -> Callable[[str], float]:
    """Score for Latin letters: accents stand alone or in pairs among plain ones, signs beside words and not in them."""
    single = re.compile(f"(?<![^\x00-\x7f])[{letters}]{{1,2}}(?![^\x00-\x7f‘’“”«»…–—])")
    sign = f"[{re.escape(_PRINTERS_SIGNS)}]"
    signs = re.compile(f"(?<![a-zA-Z]){sign}|{sign}(?![a-zA-Z])|(?<=[a-zA-Z])’(?=[a-zA-Z])")

    def rate(text: str) -> float:
        high = len(_HIGH.findall(text))
        if not high or high > 0.4 * len(text):
            return 0.0
        good = sum(len(run) for run in single.findall(text)) + 0.9 * len(signs.findall(text))
        return (good - 2 * len(_NEVER.findall(text))) / high + prior

    return rate


_RUSSIAN = _cased("а-яёіїєґў", _is_russian)
_CHINESE = _ideographic(SIMPLIFIED, "gb2312", (0xA1, 0xD8))
_TAIWANESE = _ideographic(TRADITIONAL, "big5", (0xA1, 0xC7))


def _any_wide(text: str) -> float:
    """UTF-16 says nothing about the language."""
    ascii_share = len(re.findall(r"[\x09\x0a\x0d\x20-\x7e]", text)) / max(len(text), 1)
    return max(ascii_share, _CHINESE(text), _TAIWANESE(text), _japanese(text), _korean(text), _RUSSIAN(text))


# In the order in which a tie is decided.
CHARSETS: tuple[Charset, ...] = (
    Charset("gb18030", ("gb18030",), _CHINESE),
    Charset("big5", ("big5", "cp950", "big5hkscs"), _TAIWANESE),
    Charset("shift_jis", ("cp932",), _japanese),
    Charset("euc_jp", ("euc_jp",), _japanese),
    Charset("euc_kr", ("cp949",), _korean),
    Charset("windows-1251", ("cp1251",), _RUSSIAN),
    Charset("koi8-r", ("koi8_r",), _RUSSIAN),
    Charset("windows-1252", ("cp1252",), _accented(_WESTERN)),
    Charset("windows-1250", ("cp1250",), _accented(_CENTRAL, -0.05)),
    Charset("windows-1254", ("cp1254",), _accented(_TURKISH)),
    Charset("windows-1253", ("cp1253",), _cased("α-ωάέήίόύώϊϋΐΰς", _is_greek)),
    Charset("utf-16-le", ("utf-16-le",), _any_wide),
    Charset("utf-16-be", ("utf-16-be",), _any_wide),
)
