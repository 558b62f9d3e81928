"""The figures folded under an answer: times, speed, and where the prompt's tokens went."""

from markupsafe import Markup

from dbgpt_lite.messages import Answer, Ledger, LedgerLine, Usage
from dbgpt_lite.texts import Language, text
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon

_SECTIONS = ("system", "schema", "examples", "passages", "history", "question")


def figures(answer: Answer, language: Language) -> Markup:
    """Who answered, how fast, and the prompt ledger; opened by the reader."""
    rows = [
        (say("answered_by", language), engine_name(answer.engine, language)),
        (
            say("first_token", language),
            duration(answer.usage.first_token_s, language) if answer.usage.first_token_s else "",
        ),
        (say("waited", language), duration(answer.usage.queue_s, language) if answer.usage.queue_s >= 0.1 else ""),
        (say("speed", language), _speed(answer.usage, language)),
        (say("answer_tokens", language), _count(answer.usage.completion_tokens)),
        (say("prompt_tokens", language), _prompt(answer.usage, language)),
        (say("spent_tokens", language), _spent(answer.spent, language)),
    ]
    shown = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(name, value) for name, value in rows if value)
    return Markup(
        '<details class="figures"><summary title="{}">{}<span class="brief">{}</span></summary>'
        '<div class="figures-box"><dl>{}</dl>{}</div></details>'
    ).format(say("figures", language), icon("info"), _brief(answer, language), shown, ledger(answer.ledger, language))


def engine_name(stored: str, language: Language) -> str:
    """The built-in assistant's name in the reader's language; a model's name is its own."""
    return text("assistant.name", language) if stored == text("assistant.name") else stored


def ledger(book: Ledger | None, language: Language) -> Markup:
    """The window as a bar of its sections, and each section's tokens and what was left out of it."""
    if book is None or book.window <= 0:
        return Markup("")
    parts = Markup("").join(
        Markup('<i data-section="{}" style="width:{}%"></i>').format(_kind(line), _share(line.tokens, book.window))
        for line in book.lines
    )
    reserved = Markup('<i data-section="answer" style="width:{}%"></i>').format(_share(book.reserved, book.window))
    lines = Markup("").join(_line(line, language) for line in book.lines)
    room = Markup('<tr><td><b data-section="answer"></b>{}</td><td>{}</td><td></td></tr>').format(
        say("ledger_answer", language), _count(book.reserved)
    )
    title = say("ledger_title", language, used=_count(book.used), window=_count(book.window))
    return Markup(
        '<div class="ledger"><p>{}</p><div class="ledger-bar" aria-hidden="true">{}{}</div><table>{}{}</table></div>'
    ).format(title, parts, reserved, lines, room)


def duration(value: float, language: Language) -> str:
    """A duration as people say it: 12 ms, 0.42 s, 13 s."""
    if value < 0.1:
        return say("milliseconds", language, value=max(round(value * 1000), 1))
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return say("seconds", language, value=f"{value:.{digits}f}")


def _line(line: LedgerLine, language: Language) -> Markup:
    told = "ledger_tables" if line.section == "schema" else "ledger_dropped"
    left_out = say(told, language, kept=line.kept, dropped=line.dropped) if line.dropped else ""
    name = say(f"ledger_{line.section}", language) if line.section in _SECTIONS else line.section
    return Markup('<tr><td><b data-section="{}"></b>{}</td><td>{}</td><td>{}</td></tr>').format(
        _kind(line), name, _count(line.tokens), left_out
    )


def _kind(line: LedgerLine) -> str:
    return line.section if line.section in _SECTIONS else "system"


def _share(tokens: int, window: int) -> str:
    return f"{min(100 * tokens / window, 100):.2f}"


def _brief(answer: Answer, language: Language) -> str:
    """The one line that is always in view."""
    usage, used = answer.usage, answer.usage + answer.spent
    parts = [engine_name(answer.engine, language)]
    if usage.seconds:
        parts.append(duration(usage.seconds, language))
    if usage.first_token_s:
        parts.append(say("brief_first", language, value=duration(usage.first_token_s, language)))
    if used.completion_tokens:
        read, written = _count(used.prompt_tokens), _count(used.completion_tokens)
        parts.append(say("brief_tokens", language, read=read or 0, written=written))
    if speed := _speed(usage, language) or _speed(answer.spent, language):
        parts.append(speed)
    return " · ".join(parts)


def _speed(usage: Usage, language: Language) -> str:
    rate = usage.tokens_per_second
    # A built-in answer is quoted, not decoded: thousands of tokens a second would mean nothing.
    if not 0 < rate < 10_000:
        return ""
    return say("tokens_per_second", language, value=f"{rate:.1f}" if rate < 10 else f"{rate:.0f}")


def _prompt(usage: Usage, language: Language) -> str:
    if not usage.cached_tokens:
        return _count(usage.prompt_tokens)
    return say("tokens_cached", language, count=_count(usage.prompt_tokens), cached=_count(usage.cached_tokens))


def _spent(usage: Usage, language: Language) -> str:
    """What the model read and wrote before the answer, and how fast it wrote."""
    if not usage.completion_tokens:
        return ""
    read, written = _count(usage.prompt_tokens), _count(usage.completion_tokens)
    cached = _count(usage.cached_tokens)
    facts = say("spent_cached" if cached else "spent", language, read=read, cached=cached, written=written)
    speed = _speed(usage, language)
    return " · ".join([facts, speed] if speed else [facts])


def _count(value: int) -> str:
    return f"{value:,}" if value else ""
