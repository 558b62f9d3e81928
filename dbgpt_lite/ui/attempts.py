"""The queries that were written for an answer and not used, with the reasons. Pure; everything escaped."""

from collections.abc import Sequence

from markupsafe import Markup

from dbgpt_lite.messages import Answer, SqlAttempt
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.markdown import code_block

_METHODS = ("greedy", "beam", "repair", "value", "edited", "example", "follow_up")
MAX_REASON = 120


def is_edited(answer: Answer) -> bool:
    """Whether its query is a reader's, in the place of the model's."""
    return any(attempt.method == "edited" for attempt in answer.attempts)


def origin_note(answer: Answer, language: Language) -> Markup:
    """Says so when no model wrote the query that was used, but rules: its reader should look twice."""
    used = next((one for one in answer.attempts if one.sql == answer.sql and not one.problem), None)
    if used is None or used.method not in ("example", "follow_up"):
        return Markup("")
    return Markup('<p class="asked">{}</p>').format(say(f"used_{used.method}", language))


def attempts_fold(answer: Answer, language: Language) -> Markup:
    """The queries that were written and not used, and why; in view at once when none could be used."""
    replaced = {one.sql for one in answer.attempts if one.method == "edited"}
    others = [
        one
        for one in answer.attempts
        if one.problem or (answer.sql and one.sql != answer.sql and (one.method == "edited" or one.sql not in replaced))
    ]
    if not others:
        return Markup("")
    rows = Markup("").join(
        Markup('<li><b class="try">{}</b>{}<p>{}</p></li>').format(
            say(_method_key(one.method), language),
            code_block(one.sql, "SQL", say("copy", language)) if one.sql else Markup(""),
            one.problem,
        )
        for one in others
    )
    opened = Markup("") if answer.sql else Markup(" open")
    return Markup('<details class="attempts fold"{}><summary>{}</summary><ol>{}</ol></details>').format(
        opened, _attempts_title(answer, others, language), rows
    )


def _method_key(method: str) -> str:
    """The name of the text for a method; "beam 2" is a beam."""
    first = method.partition(" ")[0]
    return f"try_{first}" if first in _METHODS else "try_other"


def _attempts_title(answer: Answer, others: Sequence[SqlAttempt], language: Language) -> str:
    """What the fold holds, in a line: a repair and its reason, a query before an edit, or nothing that worked."""
    failed = [one for one in others if one.problem]
    one = "_one" if len(others) == 1 else ""
    if not answer.sql:
        return say(f"unanswered{one}", language, count=len(others))
    if failed and not is_edited(answer):
        problem = (
            failed[0].problem if len(failed[0].problem) <= MAX_REASON else f"{failed[0].problem[: MAX_REASON - 1]}…"
        )
        return say("repaired_one" if len(failed) == 1 else "repaired", language, count=len(failed), problem=problem)
    if not failed and is_edited(answer):
        return say("before_edit", language)
    return say(f"attempts{one}", language, count=len(others))
