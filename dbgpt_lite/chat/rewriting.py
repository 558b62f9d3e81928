"""A question that leans on the conversation -> a whole one that can be searched for.

A loaded language model writes it (prompts/rewrite.*.txt), greedily and in few tokens; what it writes is used only if it
is a question in the same language, holds every figure of the question and brings in nothing that nobody said. Without
a model, or when its line does not hold, the words of the last whole question are carried over.
"""

import re
from collections.abc import Callable, Generator, Sequence
from threading import Event

from dbgpt_lite.chat.asked import Asked, asked
from dbgpt_lite.chat.follow_up import depends, points_back, says_nothing_itself
from dbgpt_lite.chat.markers import without_markers
from dbgpt_lite.chat.quoting import terms
from dbgpt_lite.errors import Cancelled, UserError
from dbgpt_lite.knowledge.words import STOP_WORDS, is_chinese, tokens
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.messages import Message, Prompt, Sampling, Spent, Step, Waiting
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.texts import Language

ROUNDS = 3  # of the conversation a model reads
TURN_LENGTH = 400  # characters of each turn
MAX_TOKENS = 96
LONGEST = 240  # characters a rewritten question may have beyond those of the question
CARRIED = 8  # words of the last question that are carried over
NEW_SHARE = 0.34  # share of a rewritten question's words that nobody said before

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_LABEL = re.compile(
    r"^(?:(?:standalone |rewritten |the )?(?:question|query|search)|改写后的?问题|完整的?问题|问题|检索词?)\s*[:：]\s*",
    re.IGNORECASE,
)
_WRAPPERS = " \t\"'“”‘’「」『』`*_"
_QUOTED_HEADING = re.compile(r"^(?P<heading>[^\n>]{2,80}?)[:：]\n\n> ", re.MULTILINE)
_ESCAPE = re.compile(r"\\([\\`*_~<>\[\]$|#.+-])")
_OF = re.compile(r"^(?P<subject>[^，。？！?]{1,14}?)(?P<rest>的(?![话时]).+)$")
_WHAT_OF = re.compile(r"^(?:那么?|还有|如果是?|换成|要是)?[，,]?(?P<subject>[^，。？！?]{1,14}?)呢\s*[？?。]*$")
_AND_IN = re.compile(
    r"^(?:and|but|or|also|what about|how about)?\s*(?P<part>(?P<word>in|on|for|at|with|without|from|during|after)"
    r" .{1,60}?)[\s?.]*$",
    re.IGNORECASE,
)
_PREPOSITIONS = frozenset("of in on for at with without from during after before to by".split())
_ASKING = frozenset(
    """give tell show list explain describe name many much long often please want know need apply applies happen happens
    多少 多久 多长 多大 几天 几个 什么 怎么 告诉 列出 说明 解释""".split()
)

Rewriting = Generator[Step | Waiting | Spent, None, str]
"""Tells what is done; returns the question."""


class FollowUps:
    """Makes questions whole. `engine` is whichever answers now."""

    def __init__(
        self,
        engine: Callable[[], Engine],
        prompts: Prompts,
        complete: Callable[[str, str], str] = lambda question, previous: question,
    ) -> None:
        """`complete(question, previous)` makes a question about rows whole by rules (sql_follow_up.completed)."""
        self._engine = engine
        self._prompts = prompts
        self._complete = complete

    def whole(
        self,
        question: str,
        history: Sequence[Message],
        language: Language,
        cancel: Event,
        owner: str = "",
        seconds: float = 0.0,
    ) -> Rewriting:
        """The question to search for: `question` itself unless it leans on `history`. Raises Cancelled when stopped.

        `seconds`: Sampling.seconds of a model that is asked for it.
        """
        said = [message for message in history if message.role != "system"]
        if not any(message.role == "user" for message in said) or not depends(question):
            return question
        found = yield from self._written(question, said, language, cancel, owner, seconds)
        return found or carry_over(question, said)

    def of_query(
        self,
        question: str,
        previous: str,
        history: Sequence[Message],
        language: Language,
        cancel: Event,
        owner: str = "",
        seconds: float = 0.0,
    ) -> Rewriting:
        """The same for a question that changes the one before it, `previous`, which a database answered."""
        said = [message for message in history if message.role != "system"]
        found = yield from self._written(question, said, language, cancel, owner, seconds)
        return found or self._complete(question, previous)

    def _written(
        self, question: str, said: Sequence[Message], language: Language, cancel: Event, owner: str, seconds: float
    ) -> Rewriting:
        """The loaded model's whole question; "" without a language model, or when its line does not hold."""
        engine = self._engine()
        if engine.info.kind == "builtin":
            return ""
        yield Step("rewrite")
        return (yield from self._ask(engine, question, said, language, cancel, owner, seconds))

    def _ask(
        self,
        engine: Engine,
        question: str,
        said: Sequence[Message],
        language: Language,
        cancel: Event,
        owner: str,
        seconds: float,
    ) -> Asked:
        """The model's line if it holds, else "". A model that fails here will say so when it answers."""
        template = self._prompts.get("rewrite", language)
        messages = template.render(history=transcript(said, language), question=question)
        prompt = Prompt("rewrite", messages, question, language, owner=owner, common=len(template.common()))
        try:
            sampling = Sampling(0.0, max_tokens=MAX_TOKENS, seconds=seconds)
            reply = yield from asked(engine.stream(prompt, sampling, cancel))
        except UserError:
            return ""
        finally:
            if cancel.is_set():
                raise Cancelled
        return sound(reply, question, said)


def transcript(said: Sequence[Message], language: Language) -> str:
    """The last rounds as text for the prompt, each turn on one line and cut."""
    names = {"user": "问" if language == "zh" else "User", "assistant": "答" if language == "zh" else "Assistant"}
    last = said[-2 * ROUNDS :]
    return "\n".join(f"{names[turn.role]}: {_cut(without_markers(turn.content))}" for turn in last)


def sound(reply: str, question: str, said: Sequence[Message]) -> str:
    """The question in a model's reply, or "" when it cannot be trusted.

    It must be one line in the language of the question, not much longer, keep its figures, share a word with it if it
    has any of its own, and use hardly a word or figure that was not said in the conversation.
    """
    lines = [line.strip(_WRAPPERS) for line in without_markers(reply).strip().splitlines()]
    line = _LABEL.sub("", next((line for line in lines if line), "")).strip(_WRAPPERS)
    if not line or len(line) > len(question) + LONGEST or is_chinese(line) != is_chinese(_spoken(question, said)):
        return ""
    talk = " ".join(turn.content for turn in said)
    have, own, known = terms(line), terms(question) - terms_of_asking(), terms(talk) | terms(question)
    numbers = set(_NUMBER.findall(line))
    if not set(_NUMBER.findall(question)) <= numbers or not numbers <= set(_NUMBER.findall(f"{talk} {question}")):
        return ""
    new = {term for term in have - known if not _NUMBER.fullmatch(term)}
    if not have or len(new) > NEW_SHARE * len(have) or (own and not own & have):
        return ""
    return line


def carry_over(question: str, said: Sequence[Message]) -> str:
    """`question` with what the last whole question was about; `question` itself when there is nothing to carry over.

    Where the sentence shows which part is replaced, the last question is asked with the new part; otherwise its words
    follow in brackets, with the heading of what was quoted in reply.
    """
    asked = ""
    heading = ""
    for turn in said:
        if turn.role == "user":
            asked = _joined(asked, heading, turn.content) if asked and depends(turn.content) else turn.content
        else:
            quoted = _QUOTED_HEADING.search(turn.content)
            heading = _ESCAPE.sub(r"\1", quoted["heading"]) if quoted else ""
    return _joined(asked, heading, question) if asked else question


def _joined(asked: str, heading: str, question: str) -> str:
    """One step of carry_over: the whole question before, the heading of its answer, the question that leans on it."""
    replaced = _replaced(asked, question)
    if replaced:
        return replaced
    own = terms(question)
    numbered = bool(_NUMBER.search(question))
    kept: list[str] = []
    for word in [*_topic(asked), *_topic(heading)]:
        repeated = terms(word) <= own or word.lower() in {one.lower() for one in kept}
        if not repeated and not (numbered and _NUMBER.fullmatch(word)):
            kept.append(word)
    names = [word for word in kept if word[:1].isupper()]
    if names and points_back(question):
        # "How much does it weigh?" has its own verb: of the last question only the thing is meant.
        kept = names
    chinese = is_chinese(asked)
    about = ("" if chinese else " ").join(kept[: CARRIED * (2 if chinese else 1)])
    if not about:
        return question
    bare = question.strip().rstrip("?？。.")
    if says_nothing_itself(question):
        # "Why?" adds nothing to search for but the question before it.
        return f"{asked.rstrip('?？。.')} — {bare}"
    return f"{bare}（{about}）" if chinese else f"{bare} ({about})"


def _replaced(asked: str, question: str) -> str:
    """The last question with the one part that `question` replaces, where that part is certain; else ""."""
    subject, of = _WHAT_OF.match(question.strip()), _OF.match(asked.strip())
    if subject and of and not _NUMBER.search(subject["subject"]):
        return f"{subject['subject']}{of['rest']}"
    part = _AND_IN.match(question.strip())
    if part:
        places = list(re.finditer(rf"\b{part['word']}\b[^?,.;]*", asked, re.IGNORECASE))
        # Only a last part can be exchanged: what follows it in the sentence would be lost.
        if len(places) == 1 and not asked[places[0].end() :].strip(" ?.") and _simple(places[0].group()):
            return f"{asked[: places[0].start()]}{part['part']}?"
    years = _NUMBER.findall(question)
    before = _NUMBER.findall(asked)
    if len(years) == len(before) == 1 and len(years[0]) == len(before[0]) == 4 and len(terms(question)) <= 4:
        return asked.replace(before[0], years[0])
    return ""


def _simple(part: str) -> bool:
    """Whether a part of a sentence ("in 2022") is one thing, with no other part behind it."""
    following = part.split()[1:]
    return len(following) <= 4 and not {word.lower() for word in following} & _PREPOSITIONS


def _topic(text: str) -> list[str]:
    """The words of a question that say what it is about, in order and as written."""
    if is_chinese(text):
        return [word for word in _han_words(text) if word not in STOP_WORDS and word not in _ASKING]
    found = re.findall(r"[^\W_]+(?:[-._/+&@][^\W_]+)*", text)
    return [word for word in found if word.lower() not in STOP_WORDS and word.lower() not in _ASKING]


def _han_words(text: str) -> list[str]:
    """Chinese words, each once and none inside another, in order."""
    found = tokens(text)
    return [word for word in dict.fromkeys(found) if not any(word != other and word in other for other in found)]


def terms_of_asking() -> frozenset[str]:
    """Words that ask and say nothing about what."""
    return frozenset(term for word in _ASKING for term in terms(word))


def _spoken(question: str, said: Sequence[Message]) -> str:
    """Text in the language of the conversation: "2023?" has none of its own."""
    if any(letter.isalpha() for letter in question):
        return question
    return next((turn.content for turn in reversed(said) if turn.role == "user"), question)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TURN_LENGTH else line[: TURN_LENGTH - 1] + "…"
