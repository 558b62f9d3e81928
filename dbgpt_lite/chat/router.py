"""Auto mode: documents, database or plain chat, decided from what each has to offer for the question.

Three pieces of evidence. Documents and help pages: how well their best sentence answers, as a share of the score the
built-in assistant asks for before it quotes (1.0 = it would answer). Database: the share of the question's words that
are names in the schema or mean the same, more when the question asks to count, list or compare, less when it asks for
a rule or a way to do something.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from dbgpt_lite.chat.answerable_words import ASKING, SAME
from dbgpt_lite.chat.context import Route, search_spaces
from dbgpt_lite.chat.extractive import ExtractiveEngine
from dbgpt_lite.chat.help_pages import HELP_RULE
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.knowledge.words import words as segmented
from dbgpt_lite.messages import ChatRequest, Mode
from dbgpt_lite.sql.database import Databases
from dbgpt_lite.sql.thesaurus import chinese_words, synonyms
from dbgpt_lite.sql.words import content_words, split

_CUES = frozenset(
    """many count number total sum average mean minimum maximum most least top highest lowest list show each per latest
    newest oldest cheapest distributed distribution breakdown
    多少 几个 几位 几种 总数 总额 总共 一共 合计 平均 最大 最小 最高 最低 最多 最少 列出 显示 每个 各个
    各有 排名 统计 数量 最近 最新""".split()
)
# What a business is measured by, in questions that often name nothing of the schema: "revenue per month".
_MEASURES = frozenset(
    """revenue turnover sale profit income earn earned earning spend spent sold bought selling bestselling best worst
    biggest largest smallest per daily weekly monthly yearly
    销售额 营业额 收款额 收入 利润 销量 卖 售出 赚""".split()
)
# Who asks which one wants rows, though no figure.
_WHICH = ("which", "Which", "哪些", "哪个", "哪几", "哪家", "哪款", "哪位", "哪一", "谁")
# Polite ways to begin, which say nothing about what is asked for.
_OPENING = re.compile(
    r"^(?:(?:please|kindly|(?:can|could|would|will) you(?: please)?|let me (?:know|see)|(?:tell|show|give) me|how about"
    r"|(?:can|could|may) i (?:please )?(?:see|get|have|know)"
    r"|i (?:want|need|wish|would like) to (?:know|see)|i['’]d like to (?:know|see))\b[ ,]*"
    r"|(?:请问?|麻烦|劳驾|帮我?|给我|替我|告诉我|我(?:想|要|需要)(?:知道|看看?|了解)|(?:查|看|算)(?:一下|一查|看)?"
    r"|(?:你能不能|[你您]?(?:能否|可否|可以|能)|[你您])(?=[帮给替告列查统显算]))[ ,，]*)+",
    re.IGNORECASE,
)
# Who asks what they may or must do, or how, asks for a rule, which is written in documents; or wants to talk.
_RULES = re.compile(
    r"\b(?:can|may|could|should|must|am|do|will|would|if|when) (?:i|you)\b(?! have\b)|\bwhat happens\b"
    r"|\bhow (?:to|do|can|should)\b|^write\b|\b(?:translate|polic(?:y|ies)|procedure|manual)\b"
    r"|\ballowed\b|\b(?:can|cannot|may|must|should) (?:\w+ ){0,2}be\b"
    r"|^(?:can|may|must|should)\b|能不能|能否|可否|允许|必须|要不要"
    r"|如何|怎么|怎样|为什么|为何|流程|政策|规定|制度|说明书|写一|翻译",
    re.IGNORECASE,
)
# The same in questions that ask for no figure, no list and not which: "my best customers" are rows.
_RULES_UNLESS_ROWS = re.compile(
    r"\b(?:do (?:i|you) have|my|your|how (?:is|are)|summari[sz]e|ha(?:ve|s) to|need to)\b"
    r"|我(?!们)|你|您|可以|应该|需要|总结",
    re.IGNORECASE,
)
# Set with the questions of tests/chat/test_router.py and of both exams: 84 % of the English and 82 % of the Chinese
# questions of the text-to-SQL exam find the database, and with the documents of the retrieval exam at hand 1 of 168
# English and 3 of 168 Chinese questions about them go there wrongly.
ALIKE = 0.8  # weight of a word that means what something in the schema is called
NO_CUE = 0.75  # weight of schema words in a question that asks for no figure and no list
CUE_ALONE = 0.35  # a question for a business figure that names nothing
CHINESE_CUE = 0.15  # what asking for a figure adds to a Chinese question over a schema with English names
RULE = 0.35  # weight of schema words in a question for a rule
HELP_AHEAD = 0.3  # how much more help pages must have to say than the database
NEEDED = 0.3  # evidence below which the database is taken not to know
NEEDED_AGAINST_DOCUMENTS = 0.5  # the same when documents would just answer too, and what is added when they do so twice
NEEDED_MORE = 0.3


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for each mode; 1.0 and more means it would answer. `connection` is the database that fits best."""

    documents: float = 0.0
    database: float = 0.0
    chat: float = 0.0
    connection: str = ""


def choose(evidence: Evidence) -> Mode:
    """The mode the evidence speaks for; documents when in doubt, as they say so when they do not know."""
    if evidence.chat >= max(1.0, evidence.documents, evidence.database + HELP_AHEAD):
        return "chat"
    sure = NEEDED_AGAINST_DOCUMENTS + NEEDED_MORE * (evidence.documents - 1.0)
    if evidence.database >= (NEEDED if evidence.documents < 1.0 else sure):
        return "database"
    return "documents" if evidence.documents >= 0.5 else "chat"


def schema_evidence(question: str, schema_words: frozenset[str]) -> float:
    """How much of what the question is about is something in the schema, 0 to 1."""
    asked = _OPENING.sub("", question)
    for_rows = _is_cued(asked) or any(word in asked for word in _WHICH)
    for_rule = _RULES.search(asked) or (_RULES_UNLESS_ROWS.search(asked) and not for_rows)
    return _schema_share(asked, schema_words) * (RULE if for_rule else 1.0)


def _is_cued(question: str) -> bool:
    """Whether a question asks for a figure or a list."""
    return any(cue in question for cue in _CUES if not cue.isascii()) or bool((_CUES | _MEASURES) & {*split(question)})


def _schema_share(question: str, schema_words: frozenset[str]) -> float:
    cued = _is_cued(question)
    if is_chinese(question) and not any(is_chinese(word) for word in schema_words):
        return _chinese_evidence(question, cued, schema_words) if schema_words else 0.0
    content = {word for word in content_words(question) if not word.isdecimal()} - _CUES
    named = {word: share for word in content if (share := _named(word, schema_words)) or word not in ASKING}
    if not named:
        # Words of asking only, and for a figure.
        return CUE_ALONE if schema_words and content & _MEASURES else 0.0
    share = sum(named.values()) / len(named)
    return share if cued else share * NO_CUE


def _chinese_evidence(question: str, cued: bool, schema_words: frozenset[str]) -> float:
    """The share of a Chinese question that has a meaning in a schema with English names, by characters."""
    meant = {word for word in chinese_words(question) if synonyms()[word] & schema_words}
    content = [word for word in segmented(question) if is_chinese(word) and word not in _CUES]
    share = sum(_explained(word, meant) for word in content) / (sum(map(len, content)) or 1)
    if not cued and not any(word in question for word in _WHICH):
        share *= NO_CUE
    alone = CUE_ALONE if cued and any(measure in question for measure in _MEASURES if not measure.isascii()) else 0.0
    return min(1.0, max(share + CHINESE_CUE * cued, alone))


def _explained(word: str, meant: Collection[str]) -> int:
    """How many characters of a word have a meaning. One within a longer word, the 日 of 日本, is itself only."""
    if any(word in term or (len(term) > 1 and term in word) for term in meant):
        return len(word)
    return sum(character in meant for character in word)


def _named(word: str, schema_words: frozenset[str]) -> float:
    """Whether a word is one of the schema's, or means the same as one."""
    if word in schema_words:
        return 1.0
    alike = synonyms().get(word, frozenset()) | SAME.get(word, frozenset())
    return ALIKE if alike & schema_words else 0.0


class Router:
    """Chooses the mode of a request in auto mode."""

    def __init__(
        self,
        knowledge: KnowledgeBase,
        databases: Databases,
        quoter: ExtractiveEngine,
        top_k: int,
        schema_words: Callable[[str], frozenset[str]] | None = None,
    ) -> None:
        self._knowledge = knowledge
        self._databases = databases
        self._quoter = quoter
        self._top_k = top_k
        self._schema_words = schema_words or self._words_of

    def __call__(self, request: ChatRequest) -> Route:
        """Where `request` belongs."""
        evidence = self.weigh(request.question)
        mode = choose(evidence)
        return Route(mode, evidence.connection if mode == "database" else "")

    def weigh(self, question: str) -> Evidence:
        """Look into documents, help pages and schemas."""
        database, connection = self._database(question)
        return Evidence(self._documents(question), database, self._help(question), connection)

    def _documents(self, question: str) -> float:
        spaces = [space.id for space in self._knowledge.spaces() if space.documents]
        if not spaces:
            return 0.0
        selection = self._quoter.select(question, search_spaces(self._knowledge, spaces, question, self._top_k))
        return selection.score / selection.needed

    def _database(self, question: str) -> tuple[float, str]:
        """The best evidence among the connections, and its name; the first one wins a tie."""
        weighed = [(schema_evidence(question, self._schema_words(name)), name) for name in self._databases.names()]
        return max(weighed, key=lambda pair: pair[0], default=(0.0, ""))

    def _help(self, question: str) -> float:
        _, score = self._quoter.nearest_help(question)
        return score / HELP_RULE["zh" if is_chinese(question) else "en"].needed

    def _words_of(self, name: str) -> frozenset[str]:
        # Only what is known already: a server that is slow or down must not keep documents from answering.
        schema = self._databases.get(name).known_schema()
        return schema.words if schema else frozenset()
