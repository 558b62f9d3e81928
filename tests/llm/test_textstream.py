"""Whole characters only, and nothing of a stop string."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.llm.textstream import Detokenizer, StopScanner

TEXT = "Hello 你好，世界 👩‍👩‍👧 café naïve\n\ttab 🇨🇳 end"


def decode_bytes(ids: Any) -> str:
    return bytes(ids).decode("utf-8", "replace")


def test_no_half_characters_byte_by_byte() -> None:
    stream = Detokenizer(decode_bytes)
    pieces = [stream.push(byte) for byte in TEXT.encode()]
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + stream.flush() == TEXT


def test_cut_character_is_shown_at_the_end_only() -> None:
    stream = Detokenizer(decode_bytes)
    pieces = [stream.push(byte) for byte in "好".encode()[:2]]
    assert pieces == ["", ""]
    assert stream.flush() == "\ufffd"


def test_real_tokenizer(engine: Any) -> None:
    ids = engine._tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    stream = Detokenizer(engine._text)
    assert "".join(stream.push(index) for index in ids) + stream.flush() == TEXT


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=40))
def test_any_text_survives(text: str) -> None:
    stream = Detokenizer(decode_bytes)
    data = text.encode()
    assert "".join(stream.push(byte) for byte in data) + stream.flush() == data.decode()


def scan(pieces: list[str], stop: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stop)
    shown = [scanner.push(piece) for piece in pieces]
    return "".join(shown) + scanner.flush(), scanner.stopped


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("ab#\n", max_size=4), max_size=10), st.lists(st.text("ab#\n", min_size=1, max_size=4), max_size=3)
)
def test_stop_strings_across_any_borders(pieces: list[str], stop: list[str]) -> None:
    whole = "".join(pieces)
    shown, stopped = scan(pieces, stop)
    assert stopped == any(word in whole for word in stop)
    if not stopped:
        assert shown == whole
    else:
        assert whole.startswith(shown)
        assert not any(word in shown for word in stop)


def test_partial_stop_is_held_back_then_given() -> None:
    scanner = StopScanner(["### Human:"])
    assert scanner.push("ok ### Hu") == "ok "
    assert scanner.push("mble") == "### Humble"
    assert scanner.push("###") == ""
    assert scanner.flush() == "###"
