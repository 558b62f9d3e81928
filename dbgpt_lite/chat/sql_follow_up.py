"""Follow-ups to a question that a database answered: whether one leans on it, and the whole question in words."""

import re
from collections.abc import Sequence

from dbgpt_lite.chat.follow_up import depends
from dbgpt_lite.chat.rewriting import carry_over
from dbgpt_lite.chat.sql_prompt import Previous
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.messages import Message

MOST_WORDS = 9
_CHANGES = re.compile(
    r"^(?:(?:and|but|ok(?:ay)?|now|then|please)[\s,]+)*"
    r"(?:(?:only|just)\b|(?:what|how) about\b|(?:can you )?(?:sort|order|rank)(?:ed)?\b.*\bby\b"
    r"|(?:the )?(?:top|first) \w+\W*$"
    r"|(?:show |list |give me )?(?:only |just )?the (?:top|first) \w+\W*$|(?:grouped |per |by |for each |broken down )"
    r"|(?:(?:with|without|excluding|except|including)\b)|(?:in|for|from|since|before|after|during)\b(?!.*\b(?:how|which|what|who)\b)"
    r"|(?:the )?same\b|as a percentage|(?:also|and) (?:show|add|with|the)\b|(?:in )?(?:ascending|descending|reverse)\b)"
    r"|\bonly\W*$|^(?:19|20)\d\d\W*$|\b(?:instead|as well)\W*$",
    re.IGNORECASE,
)
_CHINESE_CHANGES = re.compile(
    r"^(?:请)?(?:那么?|只看|只要|仅|只显示|筛选|换成|再|还要|加上|去掉|不要|除了|按照?|以.{1,8}排|前.{1,3}[个名条位行项]"
    r"|每个?.{1,6}$|分.{1,6}$)"
    r"|呢\W*$|(?:排序|排列|降序|升序|分组)\W*$|^(?:19|20)\d\d年\W*$"
)
_SORT = re.compile(r"(?:sort|order|rank)(?:ed)?(?: (?:them|it|these|this|that|the list|the rows))? by (.+?)\W*$", re.I)
_TOP = re.compile(r"\b(?:top|first) (\w+)\W*$", re.IGNORECASE)
_ONLY = re.compile(r"^\W*(?:(?:and|but|ok(?:ay)?|now|please)[\s,]+)*(?:only|just)\s+(.+?)\W*$|^(.+?)\s+only\W*$", re.I)
_YEAR = re.compile(r"(?:19|20)\d\d")
_PREPOSITION = re.compile(
    r"^(?:in|from|for|of|with|by|at|on|since|before|after|during|the ones|those)\b", re.IGNORECASE
)
_EACH = re.compile(r"^\W*(?:and )?(?:(?:grouped |broken down )?by|per|for each)\s+(.+?)\W*$", re.IGNORECASE)


def previous_query(history: Sequence[Message]) -> Previous | None:
    """The last question of the conversation if a query answered it, whole and with that query."""
    said = [message for message in history if message.role != "system"]
    if len(said) < 2 or not said[-1].sql or said[-2].role != "user":
        return None
    return Previous(said[-2].asked or said[-2].content, said[-1].sql)


def leans(question: str) -> bool:
    """Whether a question asked after a database's answer changes the question before it instead of being whole."""
    asked = question.strip()
    if is_chinese(asked):
        return len(asked) <= 2 * MOST_WORDS and (bool(_CHINESE_CHANGES.search(asked)) or depends(asked))
    return (len(asked.split()) <= MOST_WORDS and bool(_CHANGES.search(asked))) or depends(asked)


def completed(question: str, previous: str) -> str:
    """The previous question with the change in it, in plain words that a small model reads as well."""
    before = previous.strip().rstrip("?？。. ")
    if is_chinese(question):
        return _completed_chinese(question.strip().rstrip("?？。"), before)
    if found := _SORT.search(question):
        return f"{before}, sorted by {found[1]}?"
    if found := _TOP.search(question):
        return f"{before}, only the first {found[1]}?"
    if found := _EACH.match(question):
        return f"{before} for each {found[1]}?"
    if found := _ONLY.match(question):
        part = found[1] or found[2]
        return f"{before} {part}?" if _PREPOSITION.match(part) else f"{before}, only {part}?"
    return carry_over(question, [Message("user", previous)])


def _completed_chinese(change: str, before: str) -> str:
    """A Chinese change, of a Chinese question or of an English one: a year keeps the language of the question."""
    part = re.sub(r"^那么?|呢$", "", change)
    years = _YEAR.findall(before)
    if found := re.fullmatch(r"((?:19|20)\d\d)年?", part):
        if len(years) == 1:
            return f"{before.replace(years[0], found[1])}{'？' if is_chinese(before) else '?'}"
        if not is_chinese(before):
            return f"{before} in {found[1]}?"
    if is_chinese(before):
        whole = carry_over(change, [Message("user", before)])
        # What carry_over cannot place it puts into brackets.
        if "（" not in whole and whole != change:
            return whole
    return f"{before}（{part}）？"
