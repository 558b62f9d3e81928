"""Which expressions are integers, so that a division keeps SQLite's meaning in MySQL."""

from sqlglot import exp

_ALWAYS = (exp.Count, exp.Length, exp.StrPosition, exp.RowNumber, exp.IntDiv, exp.Boolean)
_AS_OPERAND = (exp.Paren, exp.Neg, exp.Sum, exp.Abs, exp.Window, exp.Filter, exp.Alias)
_AS_BOTH = (exp.Add, exp.Sub, exp.Mul, exp.Mod, exp.Div)
_INTEGER_TYPES = (
    exp.DataType.Type.INT,
    exp.DataType.Type.BIGINT,
    exp.DataType.Type.SMALLINT,
    exp.DataType.Type.TINYINT,
)
_MARK = "integer"


def mark_integer(column: exp.Column, integer: bool) -> None:
    """Note on a resolved column whether it holds integers."""
    column.meta[_MARK] = integer


def is_integer(node: exp.Expression | None) -> bool:
    """Whether the expression is an integer in SQLite; False when it cannot be told."""
    if node is None:
        return False
    if isinstance(node, exp.Column):
        return bool(node.meta.get(_MARK))
    if isinstance(node, exp.Literal):
        return not node.is_string and node.name.isdigit()
    if isinstance(node, exp.Cast):
        return bool(node.to.this in _INTEGER_TYPES)
    if isinstance(node, exp.Min | exp.Max):
        return is_integer(node.this) and all(is_integer(other) for other in node.expressions)
    if isinstance(node, _AS_OPERAND):
        return is_integer(node.this)
    if isinstance(node, _AS_BOTH):
        return is_integer(node.left) and is_integer(node.right)
    return isinstance(node, _ALWAYS) or _all_integer(node)


def _all_integer(node: exp.Expression) -> bool:
    """Nodes that choose one of several values."""
    if isinstance(node, exp.Coalesce):
        return all(is_integer(value) for value in (node.this, *node.expressions))
    if isinstance(node, exp.If):
        return is_integer(node.args.get("true")) and is_integer(node.args.get("false") or exp.Literal.number(0))
    if isinstance(node, exp.Case):
        values = [branch.args.get("true") for branch in node.args["ifs"]]
        return all(is_integer(value) for value in (*values, node.args.get("default") or exp.Literal.number(0)))
    if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Select):
        return len(node.this.expressions) == 1 and is_integer(node.this.expressions[0])
    return False
