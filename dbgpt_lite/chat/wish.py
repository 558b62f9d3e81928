"""Whether a message asks to change data instead of asking about it: it is told so, and no query is written for it.

This is courtesy, not a fence: what may reach a database is decided by sql/guard.py. When in doubt it is a question.
"""

import re

_POLITE = (
    r"^\W*(?:(?:please|kindly|now|ok|okay|go ahead and|(?:can|could|would|will) you(?: please)?|i want (?:you )?to)\b"
    r"[\s,]*)*"
)
_THING = r"(?:table|view|index|column|row|record|entry|user|account|database|schema|trigger)s?\b"
_ENGLISH = re.compile(
    _POLITE + r"(?:(?:delete|truncate|erase|wipe|overwrite|insert)\b(?! (?:rate|date|time)s?\b)"
    r"|(?:drop|remove|update|alter|rename) (?:all|every|the|this|that|these|those|table|column|row|record)\b"
    rf"|(?:create|add) (?:an? |the )?(?:new )?{_THING}|add an? new\b|(?:grant|revoke) .+ (?:to|from)\b"
    r"|(?:set|change) (?:all|every|the) .+ to\b)",
    re.IGNORECASE,
)
_ALSO_ASKS = re.compile(r"\b(?:show|list|count|tell|how many|which|what|compute|calculate)\b|\?\s*$", re.IGNORECASE)
_CHINESE = re.compile(
    r"^\W*(?:请|请你|帮我|麻烦|你|现在)*(?:"
    r"(?:删除|删掉|清空|插入|新增一|添加一|新建)(?!的|了|时间|日期|率|数|过|最)"
    r"|(?:把|将).{1,40}(?:删除|删掉|清空|更新|修改|改为|改成|设为|设置为))"
)
_CHINESE_ASKS = re.compile(r"多少|几[个条位名]|哪|什么|列出|显示|查询|统计|[？?]\s*$|吗")


def asks_to_write(message: str) -> bool:
    """Whether a message, in English or Chinese, tells the app to change data or tables and asks nothing."""
    if _ENGLISH.search(message):
        return not _ALSO_ASKS.search(re.sub(_POLITE, "", message, flags=re.IGNORECASE))
    return bool(_CHINESE.search(message)) and not _CHINESE_ASKS.search(message)
