"""Whether a question can be understood without the conversation before it. Pure: rules for English and Chinese.

A question leans on the conversation when it points back ("does it have...", 它, "the other one"), when its own subject
or verb is missing ("and in 2023?", "那电池呢？") or when it is only a question word ("why?", 多少钱？). The rules
prefer to leave a question alone: a whole question that is rewritten brings back the wrong passages.
"""

import re

from dbgpt_lite.knowledge.words import is_chinese, words

_MOST_LETTERS = 160
"""Longer questions say what they are about."""

_INTERJECTION = re.compile(
    r"^(?:(?:ok(?:ay)?|oh|ah|hm+|well|so|right|great|good|yes|no|i see|thanks|thank you|please|sorry)\b[\s,.!;:-]*"
    r"|(?:好的|好|嗯|哦|噢|谢谢|多谢|明白了|知道了|了解|请问|对了|那请问)[\s，。！、,.!]*)+",
    re.IGNORECASE,
)
_SMALL_TALK = re.compile(
    r"(?:(?:hi|hello|hey|bye|goodbye|good (?:morning|evening|night|job)|thanks?(?: you)?(?: a lot| very much| so much)?"
    r"|perfect|cool|nice|awesome|cheers|never ?mind|that(?:'s| is| was) (?:all|great|good|helpful|fine|enough))\b"
    r"|你好|您好|再见|拜拜|辛苦了?|太好了|不用了|没事了?|没问题|就这些|多谢|谢谢你?)[\s\w!,.，。！～~]{0,25}$",
    re.IGNORECASE,
)

# English -------------------------------------------------------------------------------------------------------------
_LEADING = re.compile(
    r"^(?:and|but|or|also|plus|then|otherwise|in that case|what about|how about|what else|anything else|what if not"
    r"|same for|even|only|except|including|not|without|with|in|on|at|for|from|by|since|until|per|during|after)\b",
    re.IGNORECASE,
)
_ALWAYS_LEADING = re.compile(
    r"^(?:and|but|or|also)?\s*(?:(?:what|how) about|what else|anything else|same for|in that case|otherwise|what if not"
    r"|(?:please )?(?:tell me more|(?:give me )?(?:more details?|an example|some examples|examples?)|go on|continue"
    r"|explain(?: further| more| why)?|elaborate|why not|how come|how so|since when|for how long|like what)\W*$)",
    re.IGNORECASE,
)
_ONES = re.compile(
    r"\b(?:the|that|this|which|another|any|each|either)(?: [a-z]+)? ones?\b(?! (?:of|that|which|who|in|for|with)\b)"
    r"|\b(?:the (?:former|latter|above|aforementioned|previous|other two|others|rest)|another|either|neither|both)\W*$"
    r"|\bthe same(?: (?:for|applies|apply|true|with|about)\b|\W*$)",
    re.IGNORECASE,
)
_PRONOUN = re.compile(
    r"\b(?P<possessive>its|their|theirs|his|her|hers)\b|\b(?P<personal>it|they|them|he|she|him|these|those)\b"
    r"|\b(?P<pointing>this|that)\b",
    re.IGNORECASE,
)
_EXPLETIVE = re.compile(
    r"^it (?:(?:is|was|be|would be|also|ever|really|still|not) )*(?:possible|allowed|permitted|necessary|required|true"
    r"|mandatory|ok|okay|safe|legal|important|better|best|enough|worth|raining|cold|hot|late|rude|normal|common|now)\b"
    r"|^it (?:take|takes|cost|costs|need|needs|mean|require)\b.*\b(?:to|for|until|if|when)\b \w+"
    r"|^(?:these|those) (?:who|that|which|documents?|files?|days|people)\b"
    r"|^(?:this|that) (?:app|application|page|site|program|tool|assistant|chat|conversation|database|space|knowledge"
    r"|documents?|files?|contract|report|paper|text|book|company|year|month|week|quarter|morning|evening)\b",
    re.IGNORECASE,
)
_IT_IS = re.compile(r"\b(?:is|was|isn't|would|will)\s+$", re.IGNORECASE)
_IS_IT = re.compile(
    r"^it (?:possible|allowed|permitted|necessary|required|true|mandatory|ok|okay|safe|legal|important|better|worth"
    r"|raining|cold|hot|late|normal|common|be possible|be allowed)\b.*\b(?:to|that|for|if)\b \w+|^it (?:raining|now)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[,;:.?!—]|\b(?:and|but|if|when|because|after|before|while|or|that|which|who|whether)\b", re.I)
_BACK_WORD = re.compile(
    r"\b(?:does|do|did|is|was|are|were|about|for|with|like|after|before|of|on|in|to|at|by|from|why|how|what|can|will"
    r"|would|should|could|must|explain|say|mean|change|means?)\s+$|^\s*$",
    re.IGNORECASE,
)
_QUESTION_WORD = re.compile(
    r"\b(?:who|whom|whose|what|when|where|which|why|how|is|are|was|were|do|does|did|can|could|may|must|should|will"
    r"|would|have|has|list|show|give|name|explain|tell|summari[sz]e|compare|describe|translate)\b",
    re.IGNORECASE,
)
# What a question can ask without saying about what: "Who pays?", "How do I apply?", 怎么申请？
_BARE = frozenset(
    "apply approve approves calculated calculate claim cost costs decide decides pay pays paid qualify request submit"
    " long often soon late early far big old happens happened next first sure example examples detail details reason"
    " 钱 多少钱 多久 多长 多大 多远 多高 多重 几天 几年 几个 几次 时候 时间 什么时候 何时 哪里 哪儿 原因 例子 举例 具体"
    " 详细 说明 解释 申请 计算 办理 使用 操作 处理 提交 修改 取消 收费 付款 负责 批准 审批 继续 一点 知道 算".split()
)

_TO_THE_ASSISTANT = re.compile(r"\b(?:you|your|yourself)\b|[你您]", re.IGNORECASE)

# Chinese -------------------------------------------------------------------------------------------------------------
_POINTS_BACK = re.compile(
    r"它们?|(?<![其吉])他们?(?!人)|她们?|前者|后者|上述|上面(?:的|提到|说)|刚才|刚刚|前面(?:的|提到|说)"
    r"|(?:另|另外)一[个种款项份条件台]|[这那](?:[个些种款项份条件台位]|一[个种款项份条])"
    r"|这里面|这样(?:做|的话)?(?=[会要可能有行吗好])|那样|(?<![应活不本])该(?=[产公商条规政文项部员款设服])"
    r"|^其(?![他它实次余])|其(?=价格|中|优点|缺点|原因|特点|作用|电池|功能|保修|重量|尺寸|颜色)|此(?=[外类项])"
)
_OWN_THING = re.compile(
    r"[这那][个份家款]?(?:应用|软件|系统|网站|页面|公司|文档|文件|知识库|助手|平台|合同|报告|月|年|季度|星期|周|数据库|程序|对话)"
)
_WHAT_OF = re.compile(r"呢\s*[？?。！!]*$")
_ASKS = re.compile(r"什么|怎么|怎样|多少|多久|多长|多大|几|哪|谁|为何|如何|吗|是否|能不能|可不可以|何时|有没有|要不要")
_ALSO = re.compile(r"也(?:一样|适用|如此|是(?:这样|吗|的)|包括|可以吗|行吗|要吗|有吗|算吗|能吗|支持吗)")
_MORE = re.compile(
    r"^(?:还有(?:呢|吗|别的|其他|什么|哪些)?|别的呢|其他的?呢?|除此之外.*|然后呢|接着呢|(?:请)?(?:继续|详细(?:说|讲|解释)?一?下?"
    r"|再?(?:举|说|讲)(?:个|几个|一个)?例子?|说说看|具体(?:说|讲)?一?下?|为什么.?|为啥|什么意思|怎么说))"
    r"(?:吗|呢)?[\s？?。！!]*$"
)
_THEN = re.compile(r"^(?:那么|那(?![边里年天时次])|还有|另外|以及|而且|但是|可是|不过|如果|换成)[，,\s]*")
_FRAGMENT = re.compile(r"^(?:在|对|对于|关于|到|从|比|除了|包括|按|没有|有|以及|和).{1,8}[？?]$")


def depends(question: str) -> bool:
    """Whether `question`, asked within a conversation, needs what was said before to be understood."""
    asked = question.strip()
    if not asked or len(asked) > _MOST_LETTERS or _SMALL_TALK.match(asked):
        return False
    rest = _INTERJECTION.sub("", asked).strip()
    if not rest.strip(" ?？!！.。,，"):
        return asked.endswith(("?", "？")) and rest == asked
    if _SMALL_TALK.match(rest):
        return False
    return _chinese(rest) if is_chinese(rest) else _english(rest)


def says_nothing_itself(question: str) -> bool:
    """Whether a question holds no word of its own to search for ("Why?", 多少钱？)."""
    if _TO_THE_ASSISTANT.search(question):
        return False
    return not (set(words(_INTERJECTION.sub("", question))) - _BARE)


def _english(question: str) -> bool:
    if says_nothing_itself(question) or _ALWAYS_LEADING.match(question) or _ONES.search(question):
        return True
    if points_back(question) or re.search(r"(?<!is )(?<!are )\bthere\W*$", question, re.IGNORECASE):
        return True
    lead = _LEADING.match(question)
    rest = question[lead.end() :] if lead else question
    short = len(rest.split()) <= 4
    if lead and not _QUESTION_WORD.search(rest) and len(rest.split()) <= 8:
        return question.endswith("?") or lead.group().lower() in ("and", "but", "or", "also") or short
    # "Batteries?" asks something of what was said before; "return policy" is a search of its own.
    return short and question.endswith("?") and len(rest.split()) <= 2 and not _QUESTION_WORD.search(rest)


def points_back(question: str) -> bool:
    """Whether an English question holds a pronoun for something that was said before it."""
    return any(_is_back(question, match) for match in _PRONOUN.finditer(question))


def _is_back(question: str, match: "re.Match[str]") -> bool:
    """Whether this pronoun stands for something said in an earlier turn and not for something in the question."""
    before, here = question[: match.start()], question[match.start() :]
    if _EXPLETIVE.match(here) or (_IT_IS.search(before) and _IS_IT.match(here)):
        return False
    if match["pointing"]:
        # "the lamp that blinks", "say that": no pointing after a noun or such a verb.
        return not before.rstrip(" ,").lower().endswith("so") and bool(_BACK_WORD.search(before))
    if match["possessive"]:
        return len(words(before)) < 2 or bool(re.search(r"\b(?:of|about)\s+$", before, re.IGNORECASE))
    ends = [clause.start() for clause in _CLAUSE.finditer(before)]
    return not any(set(words(before[:end])) - _BARE for end in ends)


def _chinese(question: str) -> bool:
    if _MORE.match(question) or _ALSO.search(question):
        return True
    own = _OWN_THING.sub("", question)
    if any(not _named_before(own, match.start()) for match in _POINTS_BACK.finditer(own)):
        return True
    if says_nothing_itself(question) or _FRAGMENT.match(question):
        return True
    if _WHAT_OF.search(question) and not _ASKS.search(_THEN.sub("", question)):
        return True
    then = _THEN.match(question)
    return bool(then) and len(set(words(question[then.end() if then else 0 :])) - _BARE) <= 1


def _named_before(question: str, place: int) -> bool:
    """Whether an earlier clause of the question itself says what a pronoun at `place` stands for."""
    clause = max(question.rfind(mark, 0, place) for mark in "，、；。,;")
    return clause > 0 and bool(words(_THEN.sub("", question[:clause])))
