"""A conversation as HTML: stored turns, the turn being answered, citations and queries. Pure; everything escaped."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from dbgpt_lite.messages import (
    Answer,
    ChatEvent,
    Citation,
    Done,
    Found,
    Mode,
    Passage,
    ResultTable,
    Rewritten,
    Routed,
    Rows,
    Spent,
    SqlAttempt,
    SqlTried,
    Step,
    Token,
    Waiting,
)
from dbgpt_lite.store import StoredMessage
from dbgpt_lite.texts import Language, text
from dbgpt_lite.ui.attempts import attempts_fold, is_edited, origin_note
from dbgpt_lite.ui.figures import duration, figures
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import MODE_ICONS, icon
from dbgpt_lite.ui.markdown import Flags, to_html
from dbgpt_lite.ui.result import chart_block, query_block, result_block
from dbgpt_lite.ui.tables import result_table

EMPTY = Markup("")


@dataclass(frozen=True, slots=True)
class LiveTurn:
    """The turn being answered, as far as its events have told."""

    question: str
    step: Step | None = None
    mode: Mode | None = None
    asked: str = ""
    passages: tuple[Passage, ...] = ()
    attempts: tuple[SqlAttempt, ...] = ()
    sql: str = ""
    table: ResultTable | None = None
    text: str = ""
    waiting: Waiting | None = None

    def after(self, event: ChatEvent) -> "LiveTurn":
        """The turn once `event` has happened."""
        match event:
            case Step():
                return replace(self, step=event)
            case Routed(mode):
                return replace(self, mode=mode)
            case Rewritten(asked):
                return replace(self, asked=asked)
            case Found(passages):
                return replace(self, passages=passages)
            case SqlTried(attempt):
                return replace(self, attempts=(*self.attempts, attempt))
            case Rows(sql, table):
                return replace(self, sql=sql, table=table)
            case Token(piece):
                return replace(self, text=self.text + piece)
            case Waiting(position):
                return replace(self, waiting=event if position else None)
            case Done() | Spent():
                return self


def thread(messages: Sequence[StoredMessage], conversation: str, language: Language, running: bool = False) -> Markup:
    """A stored conversation, oldest turn first; `running`: the last question is being answered right now."""
    turns = EMPTY
    last = max((message.id for message in messages if message.role == "user"), default=0)
    for message, follower in zip(messages, [*messages[1:], None], strict=False):
        if message.role != "user":
            continue
        if follower is not None and follower.role == "assistant":
            turns += _turn(message, follower, language, last=message.id == last)
        elif running and message.id == last:
            turns += _pending(message, language)
        else:
            turns += _turn(message, None, language)
    return Markup('<div class="thread" data-conversation="{}">{}</div>').format(conversation, turns)


def live(turn: LiveTurn, conversation: str, language: Language) -> Markup:
    """The turn being answered: what is done now, for how long, and what is there already."""
    shown = _asked(turn.asked, language)
    if turn.table is not None:
        drawn = Markup('<div class="part-chart">{}</div>').format(chart_block(turn.table, None, language))
        drawn += result_table(turn.table, language)
        shown += query_block(turn.sql, language) + drawn
    if turn.text:
        numbers = range(1, len(turn.passages) + 1)
        shown += Markup('<div class="prose streaming">{}</div>').format(to_html(turn.text, numbers))
    return Markup(
        '<div class="turn running" data-conversation="{}">{}<div class="question-tools"></div>'
        '<div class="answer" aria-live="polite" aria-busy="true">{}{}{}</div></div>'
    ).format(conversation, _bubble(turn.question), _mode_label(turn.mode, language), shown, _progress(turn, language))


def error_box(message: str) -> Markup:
    """What went wrong and what to do."""
    return Markup('<div class="error" role="alert">{}<span>{}</span></div>').format(icon("alert"), message)


def passage_card(passage: Passage, number: int, quote: str, language: Language) -> Markup:
    """A source: file, page and text, the quoted words marked; opened by its citation."""
    score = say("similarity", language, percent=round(passage.score * 100)) if passage.score > 0 else ""
    return Markup(
        '<details class="passage" data-number="{}"><summary><span class="number">{}</span>'
        '<span class="file">{}</span><span class="place">{}</span><span class="score">{}</span></summary>'
        '<div class="passage-text">{}</div></details>'
    ).format(number, number, passage.document, place(passage, language), score, marked(passage.text, quote))


def place(passage: Passage, language: Language) -> str:
    """Page and heading of a passage, as far as the file has them."""
    page = say("page_number", language, page=passage.page) if passage.page is not None else ""
    return " · ".join(part for part in (page, passage.heading) if part)


def marked(passage: str, quote: str) -> Markup:
    """The passage with the quoted words in <mark>; white space may differ, as PDF lines break anywhere."""
    words = quote.split()
    found = re.search(r"\s*".join(map(re.escape, words)), passage) if words else None
    if found is None:
        return Markup("{}").format(passage)
    before, after = passage[: found.start()], passage[found.end() :]
    return Markup("{}<mark>{}</mark>{}").format(before, found.group(), after)


def _pending(question: StoredMessage, language: Language) -> Markup:
    """A stored question whose answer is being made, seen from elsewhere than where it streams."""
    body = Markup('<p class="stopped">{}</p>').format(say("being_answered", language))
    return Markup('<div class="turn pending" data-question="{}">{}<div class="answer">{}</div></div>').format(
        question.id, _bubble(question.content), body
    )


def _turn(question: StoredMessage, answered: StoredMessage | None, language: Language, last: bool = True) -> Markup:
    answer = answered.answer if answered else None
    if answered is None:
        body = error_box(say("interrupted", language)) + _retry(question.id, language)
    elif answer is None:
        body = Markup('<div class="prose">{}</div>').format(to_html(answered.content, (), say("copy", language)))
    else:
        body = answer_body(answer, question, answered.id, language, last)
    place = Markup('data-part="answer" data-of="{}"').format(of_answer(answered.id)) if answered else EMPTY
    tools = _button("edit-question", "pencil", say("edit", language)) + _copy("question", say("copy", language))
    return Markup(
        '<div class="turn" data-question="{}">{}<div class="question-tools">{}</div>'
        '<div class="answer" {}>{}</div></div>'
    ).format(question.id, _bubble(question.content), tools, place, body)


def of_answer(stored: int) -> str:
    """How the parts of a stored answer name it to page.js."""
    return f"answer:{stored}"


def answer_body(answer: Answer, question: StoredMessage, stored: int, language: Language, last: bool = True) -> Markup:
    """A stored answer; `last`: no turn comes after it."""
    numbers = {citation.number for citation in answer.citations}
    flags = Flags(answer.unsupported, say("unsupported", language))
    prose = to_html(answer.text, numbers, say("copy", language), flags) if answer.text else EMPTY
    parts = [
        _mode_label(answer.mode, language),
        _asked(answer.asked, language),
        _result(answer, question.content, stored, language),
        Markup('<div class="prose">{}</div>').format(prose) if prose else EMPTY,
        error_box(answer.error) if answer.error else EMPTY,
        _ended_early(answer, language),
        origin_note(answer, language),
        attempts_fold(answer, language),
        _sources(answer.citations, answer.passages, language),
        _near_misses(answer.near_misses, language),
        _retry(question.id, language) if answer.error else _tools(answer, question.id, stored, language, last),
    ]
    return EMPTY.join(parts)


def _bubble(question: str) -> Markup:
    return Markup('<div class="question"><div class="bubble">{}</div></div>').format(question)


def _asked(question: str, language: Language) -> Markup:
    """The question as it was searched for, where that is not the typed one."""
    return Markup('<p class="asked">{}</p>').format(say("asked", language, question=question)) if question else EMPTY


def _mode_label(mode: Mode | None, language: Language) -> Markup:
    if mode is None or mode == "auto":
        return EMPTY
    return Markup('<div class="answer-mode" data-mode="{}">{}<span>{}</span></div>').format(
        mode, icon(MODE_ICONS[mode]), say(f"mode_{mode}", language)
    )


def _progress(turn: LiveTurn, language: Language) -> Markup:
    """The running step; page.js counts the seconds, so that no message is sent for a clock."""
    what = text(f"chat.step_{turn.step.name}", language, **turn.step.facts) if turn.step else say("starting", language)
    if turn.waiting:
        what = queued(turn.waiting, language)
    quiet = "quiet" if turn.text else ""
    return Markup(
        '<div class="progress {}" role="status"><span class="pulse"></span><span class="step">{}</span>'
        '<span class="clock" aria-hidden="true"></span></div>'
    ).format(quiet, what)


def queued(waiting: Waiting, language: Language) -> str:
    """How many come first, and for how long where that is known."""
    if waiting.seconds is None:
        return say("ahead", language, count=waiting.position)
    wait = duration(max(1, round(waiting.seconds)), language)
    return say("ahead_for", language, count=waiting.position, wait=wait)


def _ended_early(answer: Answer, language: Language) -> Markup:
    """Why the answer ends where it does, unless it came to its own end."""
    key = {"length": "ended_length", "time": "ended_time"}.get(answer.usage.finish_reason, "")
    if answer.stopped:
        key = "stopped"
    return Markup('<p class="stopped">{}</p>').format(say(key, language)) if key else EMPTY


def _result(answer: Answer, question: str, stored: int, language: Language) -> Markup:
    """The query that ran, its chart, its rows and their files."""
    if answer.table is None:
        return EMPTY
    of = of_answer(stored)
    query = query_block(answer.sql, language, of, is_edited(answer))
    rows = result_block(answer.table, language, of, answer.chart, answer.asked or question)
    return Markup('<div class="result">{}{}</div>').format(query, rows)


def _sources(citations: Sequence[Citation], passages: Sequence[Passage], language: Language) -> Markup:
    """Cited passages as cards; what was found but not cited stays folded."""
    cited = EMPTY.join(
        passage_card(c.passage, c.number, c.quote, language) for c in sorted(citations, key=lambda c: c.number)
    )
    used = {citation.number for citation in citations}
    rest = [(n, passage) for n, passage in enumerate(passages, 1) if n not in used]
    others = EMPTY.join(passage_card(passage, n, "", language) for n, passage in rest)
    if others:
        title = say("also_found_one" if len(rest) == 1 else "also_found", language, count=len(rest))
        others = Markup('<details class="others fold"><summary>{}</summary>{}</details>').format(title, others)
    if not cited and not others:
        return EMPTY
    return Markup('<div class="sources">{}{}</div>').format(cited, others)


def _near_misses(passages: Sequence[Passage], language: Language) -> Markup:
    """What came closest to a question that the documents do not answer, folded; each opens like a source."""
    if not passages:
        return EMPTY
    cards = EMPTY.join(passage_card(passage, n, "", language) for n, passage in enumerate(passages, 1))
    title = say("near_misses_one" if len(passages) == 1 else "near_misses", language, count=len(passages))
    return Markup(
        '<div class="sources"><details class="near-misses fold"><summary>{}</summary>{}</details></div>'
    ).format(title, cards)


def _tools(answer: Answer, question: int, stored: int, language: Language, last: bool) -> Markup:
    # Answering an earlier question anew takes the turns after it along: ask first.
    sure = "" if last else say("regenerate_earlier", language)
    again = _button("again", "again", say("regenerate", language), question, sure)
    copy = _copy("answer", say("copy", language), answer.text)
    rate = _thumbs(answer, stored, language) if answer.sql else EMPTY
    return Markup('<div class="answer-tools">{}{}{}{}</div>').format(copy, again, rate, figures(answer, language))


def _thumbs(answer: Answer, stored: int, language: Language) -> Markup:
    """Whether the query was right; pressing a given thumb again takes it back."""
    return EMPTY.join(
        Markup(
            '<button type="button" class="rate {}" data-action="rate" data-of="{}" data-yes="{}" aria-pressed="{}" '
            'title="{}" aria-label="{}">{}</button>'
        ).format(
            name,
            of_answer(stored),
            "" if answer.rated is yes else str(yes).lower(),
            str(answer.rated is yes).lower(),
            say(f"rate_{name}", language),
            say(f"rate_{name}", language),
            icon(f"thumb_{name}"),
        )
        for name, yes in (("up", True), ("down", False))
    )


def _retry(question: int, language: Language) -> Markup:
    return Markup(
        '<button type="button" class="retry" data-action="ask" data-id="{}">{}<span>{}</span></button>'
    ).format(question, icon("again"), say("retry", language))


def _copy(what: str, label: str, source: str = "") -> Markup:
    return Markup(
        '<button type="button" class="copy" data-copy="{}" data-text="{}" title="{}" aria-label="{}">{}</button>'
    ).format(what, source, label, label, icon("copy"))


def _button(name: str, picture: str, label: str, question: int | str = "", sure: str = "") -> Markup:
    asks = Markup('data-action="ask" data-id="{}"').format(question) if question else EMPTY
    if sure:
        asks += Markup(' data-confirm="{}" data-ok="{}"').format(sure, label)
    return Markup('<button type="button" class="{}" {} title="{}" aria-label="{}">{}</button>').format(
        name, asks, label, label, icon(picture)
    )
