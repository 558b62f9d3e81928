"""Whether a message asks to change data instead of asking about it: it is told so, and no query is written for it.

This is courtesy, not a fence: what may reach a database is decided by sql/guard.py. When in doubt it is a question.
"""

import re

_POLITE = re.compile(
    r"^\W*(?:(?P<asked>(?:can|could|would|will) you(?: please)?)\b[\s,]*"
    r"|(?:please|kindly|now|ok|okay|go ahead and|i want (?:you )?to)\b[\s,]*)*",
    re.IGNORECASE,
)
_WHICH = r"(?:all|every|everything|any|the|this|that|these|those|my|our)\b"
_OWN = r"(?:user|account|index|database|schema|trigger|row|record|entry)s?\b"
# How a result is shown may be changed; only the data may not.
_SHOWN = r"(?!\w* ?(?:date|time|period|range|filter|limit|group|sort|order\b|chart|axis|unit|currency|format|title))"
_ENGLISH = re.compile(
    # statements
    r"(?:delete from|insert into|truncate table|alter table|drop (?:table|database|schema|view|index|column)"
    r"|update \w+ set|create (?:table|view|index) \w+ ?(?:\(|as\b|on\b)"
    r"|(?:grant|revoke) (?:all|select|insert|update|delete|usage)\b)"
    # words
    rf"|(?:delete|erase|wipe|overwrite|alter|rename|update|remove) {_WHICH}"
    r"|delete \w+ (?:\d|with|where|number|id|named|called|older|before)"
    r"|truncate \w+\W*$|drop (?!rates?\b|in\b|off\b)(?:\w+\W*$|all\b|every\b|the\b)"
    r"|insert (?:an?|the|new|this|these|values)\b"
    rf"|create (?:an? |the )?(?:new )?{_OWN}|add (?:an? )?(?:new\b|{_OWN})"
    r"|create (?:an? |the )?(?:new )?(?:table|view) (?:named|called|for (?!each|every|all))"
    rf"|(?:set|change) (?:all|every|the) {_SHOWN}.+ to\b",
    re.IGNORECASE,
)
_ALSO_ASKS = re.compile(r"\b(?:show|list|count|tell|how many|which|what|compute|calculate)\b", re.IGNORECASE)
_CHINESE = re.compile(
    r"^\W*(?:请|请你|帮我|麻烦|你|现在)*(?:"
    r"(?:删除|删掉|清空|插入)(?!的|了|时间|日期|率|数|过|最|标记)|(?:新增|添加|新建|创建)一[个条位张行](?!图)"
    r"|(?:把|将).{1,40}(?:删除|删掉|清空|(?:更新|修改)(?!时间|日期|人|者|数|率)|改为|改成|设为|设置为)"
    r"|(?:更新|修改)(?!时间|日期|人|者|数|率|的).{1,30}[为成])"
)
_CHINESE_ASKS = re.compile(
    r"多少|几[个条位名]|哪|什么|列出|显示|查询|统计|数量|总数|占比|比例|趋势|分布|排列|排序|范围|分组|图|单位|[？?]\s*$|吗"
)


def asks_to_write(message: str) -> bool:
    """Whether a message, in English or Chinese, tells the app to change data or tables and asks nothing.

    For a message that begins a conversation: after a result, "remove the cancelled ones" means the result.
    """
    polite = _POLITE.match(message)
    told = message[polite.end() :] if polite else message
    if _ENGLISH.match(told):
        question = told.rstrip().endswith("?") and not (polite and polite["asked"])
        return not question and not _ALSO_ASKS.search(told)
    return bool(_CHINESE.search(message)) and not _CHINESE_ASKS.search(message)
