"""SQLite's text functions for statements that can make texts longer than they found: the same values, bounded work.

SQLite looks at the clock between the steps of its machine. Within one step its own instr, trim, replace, LIKE and GLOB
take the product of two lengths, which for a text that a query built itself can be hours.
"""

import re
import sqlite3
from collections.abc import Callable
from functools import lru_cache
from typing import NoReturn

from dbgpt_lite.errors import QueryFailed

MOST_BYTES = 2**20
"""Bytes of one value in a statement that builds texts."""
MOST_PATTERN = 500
"""Bytes of a pattern of LIKE and GLOB."""
# Functions and words before a parenthesis that give nothing longer than the longest of what they are given.
_STEADY_TEXT = """
    count sum avg min max total abs round ceil ceiling floor sqrt power pow exp ln log sign mod pi trunc random
    lower upper length substr substring trim ltrim rtrim instr unicode typeof coalesce ifnull nullif iif like glob
    likely unlikely date time datetime julianday unixepoch cast row_number rank dense_rank percent_rank cume_dist ntile
    lag lead first_value last_value nth_value
    in and or not as select from join on using over exists where when then else by having values filter all any union
    except intersect between is distinct case limit offset
"""
_STEADY = frozenset(_STEADY_TEXT.split())
_BEFORE_PARENTHESIS = re.compile(r"([^\s(),=<>+\-*/%!~&|]*)\s*\(")
# Places of a pattern that are tried between two looks at the clock.
_CHUNK = 4096

Value = str | bytes | int | float | None


def builds_texts(sql: str) -> bool:
    """Whether a statement may make a text longer than its own and than those of the tables. In doubt it does."""
    if "||" in sql or "/*" in sql or "--" in sql:
        return True
    return any(word and word.lower() not in _STEADY for word in _BEFORE_PARENTHESIS.findall(sql))


class TextFunctions:
    """The functions of one connection. `problem` is what the last one that failed had to say."""

    def __init__(self, must_stop: Callable[[], bool]) -> None:
        self._must_stop = must_stop
        self._sqlite = sqlite3.connect(":memory:")
        # Builds of SQLite differ in whether a blob is ever LIKE something.
        self._blob_like = bool(self._sqlite.execute("SELECT x'61' LIKE 'a'").fetchone()[0])
        self.problem: QueryFailed | None = None

    def install(self, connection: sqlite3.Connection) -> None:
        """Put them in the place of the connection's own."""
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        for name, count, function in (
            ("instr", 2, self.instr),
            ("replace", 3, self.replace),
            ("trim", 1, self.trim),
            ("trim", 2, self.trim),
            ("ltrim", 1, self.ltrim),
            ("ltrim", 2, self.ltrim),
            ("rtrim", 1, self.rtrim),
            ("rtrim", 2, self.rtrim),
            ("like", 2, self.like),
            ("like", 3, self.like_escaped),
            ("glob", 2, self.glob),
        ):
            connection.create_function(name, count, self._watched(function), deterministic=True)

    def close(self) -> None:
        """Free what they used."""
        self._sqlite.close()

    def instr(self, text: Value, part: Value) -> int | None:
        """Where `part` begins, in characters from 1; in bytes when both are blobs; 0 when it does not occur."""
        if text is None or part is None:
            return None
        if isinstance(text, bytes) and isinstance(part, bytes):
            return text.find(part) + 1
        if isinstance(text, bytes) or isinstance(part, bytes):
            return _place(self._bytes(text), self._bytes(part))
        return self._text(text).find(self._text(part)) + 1

    def replace(self, text: Value, old: Value, new: Value) -> Value:
        """`text` with `new` for each `old`; `text` as it is when `old` is empty."""
        if text is None or old is None:
            return None
        part = self._text(old)
        if not part or part[0] == "\0":
            return self._text(text) if isinstance(text, bytes) else text
        if new is None:
            return None
        whole, other = self._text(text), self._text(new)
        growth = len(other.encode()) - len(part.encode())
        if growth > 0 and len(whole.encode()) + growth * whole.count(part) > MOST_BYTES:
            self._fail(QueryFailed("sql.db_too_big"))
        return whole.replace(part, other)

    def trim(self, text: Value, letters: Value = " ") -> str | None:
        """Without those letters, or spaces, at both ends."""
        return self._trimmed(text, letters, left=True, right=True)

    def ltrim(self, text: Value, letters: Value = " ") -> str | None:
        """Without those letters, or spaces, at the beginning."""
        return self._trimmed(text, letters, left=True, right=False)

    def rtrim(self, text: Value, letters: Value = " ") -> str | None:
        """Without those letters, or spaces, at the end."""
        return self._trimmed(text, letters, left=False, right=True)

    def like(self, pattern: Value, text: Value) -> int | None:
        """Whether the whole text is like the pattern: % is any text, _ any letter; A to Z equal a to z."""
        return self._matches(pattern, text, "")

    def like_escaped(self, pattern: Value, text: Value, escape: Value) -> int | None:
        """The same; the letter after an `escape` means itself."""
        if escape is None:
            return 0 if self._is_never_like(pattern, text) else None
        letter = self._text(escape).partition("\0")[0]
        if len(letter) != 1 and not self._is_never_like(pattern, text):
            self._fail(QueryFailed("sql.failed", code="ESCAPE"))
        return self._matches(pattern, text, letter)

    def glob(self, pattern: Value, text: Value) -> int | None:
        """Whether the whole text is like the pattern: * is any text, ? any letter, [a-z] one of these."""
        return self._matches(pattern, text, None)

    def _trimmed(self, text: Value, letters: Value, left: bool, right: bool) -> str | None:
        if text is None or letters is None:
            return None
        whole, those = self._text(text), frozenset(self._text(letters).partition("\0")[0])
        start, end = 0, len(whole)
        while left and start < end and whole[start] in those:
            start += 1
        while right and start < end and whole[end - 1] in those:
            end -= 1
        return whole[start:end]

    def _is_never_like(self, pattern: Value, text: Value) -> bool:
        return not self._blob_like and (isinstance(pattern, bytes) or isinstance(text, bytes))

    def _matches(self, pattern: Value, text: Value, escape: str | None) -> int | None:
        """`escape` as for `_pieces`."""
        if self._is_never_like(pattern, text):
            return 0
        if pattern is None or text is None:
            return None
        form, whole = (self._text(value).partition("\0")[0] for value in (pattern, text))
        if len(form.encode()) > MOST_PATTERN:
            self._fail(QueryFailed("sql.db_too_big"))
        first, *others = _pieces(form, escape)
        whole = whole if escape is None else _lower(whole)
        if not first.begins(whole, 0):
            return 0
        if not others:
            return int(first.length == len(whole))
        place = first.length
        for piece in others[:-1]:
            place = self._end_of(piece, whole, place)
            if place < 0:
                return 0
        last = len(whole) - others[-1].length
        return int(last >= place and others[-1].begins(whole, last))

    def _end_of(self, piece: "_Piece", text: str, start: int) -> int:
        """Where the first place of the piece from `start` on ends; -1 when there is none."""
        if isinstance(piece.form, str):
            place = text.find(piece.form, start)
            return -1 if place < 0 else place + piece.length
        while start + piece.length <= len(text):
            self._look_at_the_clock()
            found = piece.form.search(text, start, start + _CHUNK + piece.length)
            if found:
                return found.end()
            start += _CHUNK + 1
        return -1

    def _text(self, value: Value) -> str:
        """The value as SQLite makes it text."""
        if isinstance(value, str):
            return value
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return str(self._sqlite.execute("SELECT CAST(? AS TEXT)", (value,)).fetchone()[0])

    def _bytes(self, value: Value) -> bytes:
        return value if isinstance(value, bytes) else self._text(value).encode()

    def _watched(self, function: Callable[..., Value]) -> Callable[..., Value]:
        """Between many of these within one step, a statement is stopped too."""

        def call(*values: Value) -> Value:
            self._look_at_the_clock()
            return function(*values)

        return call

    def _look_at_the_clock(self) -> None:
        if self._must_stop():
            raise InterruptedError

    def _fail(self, problem: QueryFailed) -> NoReturn:
        """SQLite passes on only that a function failed."""
        self.problem = problem
        raise problem


class _Piece:
    """What stands between two stars of a pattern: so many letters."""

    def __init__(self, form: str | re.Pattern[str], length: int) -> None:
        self.form = form
        self.length = length

    def begins(self, text: str, place: int) -> bool:
        """Whether it stands in the text at this place."""
        if isinstance(self.form, str):
            return text.startswith(self.form, place)
        return self.form.match(text, place) is not None


def _lower(text: str) -> str:
    """A to Z alone, as LIKE folds letters."""
    return text.lower() if text.isascii() else text.encode().lower().decode()


def _place(text: bytes, part: bytes) -> int:
    """As SQLite counts in bytes taken for UTF-8: those that continue a letter neither count nor begin a match."""
    place = text.find(part)
    while place > 0 and text[place] & 0xC0 == 0x80:
        place = text.find(part, place + 1)
    return 0 if place < 0 else 1 + sum(byte & 0xC0 != 0x80 for byte in text[1 : place + 1])


@lru_cache(maxsize=256)
def _pieces(pattern: str, escape: str | None) -> tuple[_Piece, ...]:
    """The pattern between its stars. `escape` is None for GLOB, "" for a LIKE without one."""
    if escape == "" and "_" not in pattern:
        return tuple(_Piece(_lower(part), len(part)) for part in pattern.split("%"))
    fold = str if escape is None else _lower
    one, star = ("?", "*") if escape is None else ("_", "%")
    pieces, forms, rest = list[_Piece](), list[str](), list(reversed(pattern))
    while rest:
        letter = rest.pop()
        if escape and letter == escape:
            forms.append(re.escape(fold(rest.pop())) if rest else "(?!)")
        elif letter == star:
            pieces.append(_Piece(re.compile("".join(forms), re.DOTALL), len(forms)))
            forms = []
        elif letter == one:
            forms.append(".")
        else:
            forms.append(_one_of(rest) if letter == "[" and escape is None else re.escape(fold(letter)))
    return (*pieces, _Piece(re.compile("".join(forms), re.DOTALL), len(forms)))


def _one_of(rest: list[str]) -> str:
    """The set of letters that `rest`, from its end, begins with; what is not closed matches nothing."""
    ranges, prior, inverted = list[str](), "", False
    if rest and rest[-1] == "^":
        inverted = bool(rest.pop())
    letter = rest.pop() if rest else ""
    if letter == "]":
        ranges.append(r"\]")
        letter = rest.pop() if rest else ""
    while letter and letter != "]":
        if letter == "-" and prior and rest and rest[-1] != "]":
            letter = rest.pop()
            if prior <= letter:
                ranges.append(f"{re.escape(prior)}-{re.escape(letter)}")
            prior = ""
        else:
            ranges.append(re.escape(letter))
            prior = letter
        letter = rest.pop() if rest else ""
    if not letter or not (ranges or inverted):
        return "(?!)"
    return f"[{'^' * inverted}{''.join(ranges)}]" if ranges else "."
