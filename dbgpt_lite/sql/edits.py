"""A query changed as a follow-up asks: other values, one more condition, another order, fewer rows. Without a model.

What cannot be told with certainty is left: the answer is then "" and somebody else has to write the query.
"""

import re

from sqlglot import exp

from dbgpt_lite.sql.conditions import Compared, comparisons, conjuncts, own_tables, parse, path, replace_where, through
from dbgpt_lite.sql.dialects import write
from dbgpt_lite.sql.lookup import Place, ValueFinder
from dbgpt_lite.sql.schema import Schema
from dbgpt_lite.sql.words import split

MOST_ROWS = 10_000
_CHINESE_NUMBERS = {"一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9, "十": 10}
_ENGLISH_NUMBERS = "one two three four five six seven eight nine ten"
_LEAD = r"(?:(?:and|but|ok(?:ay)?|now|then|please|show|give me|list)[\s,]+)*"
_TOP = re.compile(
    rf"^{_LEAD}(?:only |just )?(?:the )?(?:top|first)(?: (?P<en>\d+|{_ENGLISH_NUMBERS.replace(' ', '|')}))"
    r"(?: (?:rows?|of them|results?|ones?))?\W*$"
    r"|^(?:只看|只要|只显示|显示|取|要)?前(?P<zh>\d+|[一二两三四五六七八九十])[个名条位行项]?\W*$",
    re.IGNORECASE,
)
_SORT = re.compile(
    rf"^{_LEAD}(?:(?:can you )?(?:sort|order|rank)(?:ed)?(?: (?:them|it|these|this|that|the list|the rows))? )?"
    r"by (?P<en>.+?)\W*$"
    r"|^(?:请)?(?:按照?|以)(?P<zh>.+?)(?:来)?(?:排序|排列|排一下|排)\W*$",
    re.IGNORECASE,
)
_SORTS = re.compile(r"\b(?:sort|order|rank)|排", re.IGNORECASE)
_DOWN = re.compile(
    r"\b(?:desc(?:ending)?|highest|largest|biggest|latest|newest|most)(?:\s+\w+)?(?:\s+first)?\b|\breversed?\b|[，,]?\s*(?:降序|从高到低|从大到小|由高到低)",
    re.IGNORECASE,
)
_UP = re.compile(
    r"\b(?:asc(?:ending)?|lowest|smallest|oldest|earliest|cheapest)(?:\s+first)?\b|[，,]?\s*(?:升序|从低到高|从小到大|由低到高)",
    re.IGNORECASE,
)
_YEAR = re.compile(
    rf"^{_LEAD}(?:(?:what|how) about |only |just |the same )?(?:(?:in|for|of) )?(?:the year )?(?P<en>(?:19|20)\d\d)\W*$"
    r"|^(?:那么?|只看|换成)?(?P<zh>(?:19|20)\d\d)年?(?:的)?呢?\W*$",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"^(?P<zh_only>只看|只要|仅限?|只显示|筛选)(?P<zh1>.{1,20}?)的?\W*$|^那?么?(?P<zh2>.{1,20}?)的?呢\W*$"
    rf"|^{_LEAD}(?P<only>only|just)?\s*(?:(?:what|how) about )?(?P<only2>only|just)?\s*"
    r"(?:(?:the )?(?:ones|those) )?(?:(?:in|from|for|of|with|by) )?(?:the )?(?P<en>[^?,.;]{1,60}?)"
    r"(?: (?P<only3>only)| ones?)?\W*$",
    re.IGNORECASE,
)


def edited(sql: str, change: str, schema: Schema, dialect: str, finder: ValueFinder) -> str:
    """`sql`, in `dialect`, changed as the follow-up `change` says; "" when it says something else."""
    for edit in (_cut, _sorted, _of_year, _of_value):
        tree = parse(sql, dialect)
        if tree is not None and edit(tree, change.strip(), schema, finder):
            return write(tree, dialect)
    return ""


def _cut(tree: exp.Expression, change: str, schema: Schema, finder: ValueFinder) -> bool:
    found = _TOP.match(change)
    if found is None:
        return False
    word = (found["en"] or found["zh"]).lower()
    names = _ENGLISH_NUMBERS.split()
    grouped = not isinstance(tree, exp.Select) or tree.args.get("group")
    if not grouped and any(item.find(exp.AggFunc) for item in tree.selects):
        # One row is all there is.
        return False
    count = _CHINESE_NUMBERS.get(word) or (names.index(word) + 1 if word in names else int(word))
    if not 0 < count <= MOST_ROWS:
        return False
    tree.set("limit", exp.Limit(expression=exp.Literal.number(count)))
    return True


def _sorted(tree: exp.Expression, change: str, schema: Schema, finder: ValueFinder) -> bool:
    found = _SORT.match(change)
    if found is None or not isinstance(tree, exp.Select) or not (_SORTS.search(change) or tree.args.get("order")):
        return False
    if tree.args.get("limit"):
        # "The 5 most expensive", sorted by name, are other rows than the first 5 by name.
        return False
    said = found["en"] or found["zh"]
    down = bool(_DOWN.search(change)) and not _UP.search(change)
    column = _column(tree, _UP.sub("", _DOWN.sub("", said)), schema)
    if column is None:
        return False
    tree.set("order", exp.Order(expressions=[exp.Ordered(this=column, desc=down)]))
    return True


def _column(select: exp.Select, said: str, schema: Schema) -> exp.Expression | None:
    """What to sort by: a selected column first, else one of the tables, where rows are neither grouped nor merged."""
    wanted = set(split(said))
    if not wanted:
        return None
    for item in select.expressions:
        if item.alias_or_name and wanted <= set(split(item.alias_or_name)):
            return exp.column(item.alias) if item.alias else item.copy()
    grouped = select.args.get("group") or select.args.get("distinct") or select.find(exp.AggFunc)
    tables = {} if grouped else own_tables(select, schema)
    for alias, table in tables.items():
        for column in table.columns:
            if wanted <= set(split(f"{column.name} {column.comment}")):
                return exp.column(column.name, table=alias)
    return None


def _of_year(tree: exp.Expression, change: str, schema: Schema, finder: ValueFinder) -> bool:
    found = _YEAR.match(change)
    if found is None:
        return False
    year = found["en"] or found["zh"]
    dated = [(literal, old) for literal in tree.find_all(exp.Literal) if (old := _year_of(literal))]
    if len({old for _, old in dated}) != 1:
        return False
    bounds = [literal for literal, _ in dated if isinstance(literal.parent, exp.GT | exp.GTE | exp.LT | exp.LTE)]
    amounts = [literal for literal, _ in dated if not literal.is_string and not isinstance(literal.parent, exp.EQ)]
    if len(bounds) == 1 or amounts:
        # Before a year is not in another year, and a limit of 2000 rows is none.
        return False
    for literal, old in dated:
        literal.set("this", str(literal.this).replace(old, year))
    return True


def _year_of(literal: exp.Expression) -> str:
    """The year that a value is or begins with: 2024, '2024-%', '2024-03-01'."""
    match = re.match(r"((?:19|20)\d\d)(?:-|%|$)", str(literal.this))
    return match[1] if match else ""


def _of_value(tree: exp.Expression, change: str, schema: Schema, finder: ValueFinder) -> bool:
    """Ask for another value of a column that is compared already, or for one value only."""
    found = _VALUE.match(change)
    if found is None:
        return False
    value = found["en"] or found["zh1"] or found["zh2"]
    only = any(found[name] for name in ("only", "only2", "only3", "zh_only"))
    places = finder.places(value.strip())
    compared = [one for one in comparisons(tree, schema) if one.table and one.info and not one.negated]
    for one in compared:
        for place in places:
            if one.table and one.info and (one.table.name, one.info.name) == (place.table, place.column):
                same = [other for other in compared if other.info is one.info]
                if len(same) > 1 or "%" in str(one.literal.this) or isinstance(one.literal.parent, exp.In):
                    # Which of several values is meant, or how much of one, is for a model to tell.
                    return False
                one.literal.set("this", place.value)
                return True
    if not only:
        return _swapped(compared, places)
    return isinstance(tree, exp.Select) and _add(tree, places, schema)


def _swapped(compared: list[Compared], places: tuple[Place, ...]) -> bool:
    """ "and London?" after a country: another column of the same table, where only one of its columns is compared."""
    for place in places:
        same = [one for one in compared if one.table and one.table.name == place.table]
        if len(same) == 1 and isinstance(same[0].node, exp.EQ):
            same[0].literal.set("this", place.value)
            same[0].column.set("this", exp.to_identifier(place.column))
            return True
    return False


def _add(select: exp.Select, places: tuple[Place, ...], schema: Schema) -> bool:
    """One more condition, at the place that the fewest foreign keys away."""
    ways = []
    for alias, table in own_tables(select, schema).items():
        for place in places:
            target = schema.table(place.table)
            hops = path(schema, table, target) if target else None
            if hops is not None:
                ways.append((len(hops), alias, hops, place))
    if not ways:
        return False
    _, alias, hops, place = min(ways, key=lambda way: way[0])
    equal = exp.EQ(
        this=exp.column(place.column, table=None if hops else alias), expression=exp.Literal.string(place.value)
    )
    replace_where(select, [*(one.copy() for one in conjuncts(select)), through(alias, hops, equal)])
    return True
