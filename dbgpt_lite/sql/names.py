"""Every name in a query against the schema: tables, CTEs, aliases, columns. Says what was probably meant."""

from collections.abc import Iterator

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, traverse_scope

from dbgpt_lite.errors import QueryRefused
from dbgpt_lite.sql.allowed import is_system_table
from dbgpt_lite.sql.kinds import is_integer, mark_integer
from dbgpt_lite.sql.schema import Schema, similar

# Parts of a query when each CTE stands wherever it is named. SQLite plans them all, with no look at the clock.
_MOST_PARTS = 1000
_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.In, exp.Between, exp.Is)


def check_tables(tree: exp.Expression, schema: Schema) -> list[Scope]:
    """Refuse a table that is neither in the schema nor a CTE in sight; give tables the schema's own spelling.

    Returns the scopes of the query, inner ones first.
    """
    _spell_ctes(tree, schema)
    _check_repeats(tree)
    scopes = _scopes(tree)
    ctes = {id(node) for scope in scopes for node, source in _selected(scope) if isinstance(source, Scope)}
    for node in tree.find_all(exp.Table):
        if is_system_table(node.name):
            raise QueryRefused("sql.system_table", name=node.name)
        if id(node) not in ctes:
            _spell_table(node, schema)
    return scopes


def resolve(tree: exp.Expression, schema: Schema, quoted_text: bool) -> None:
    """Refuse unknown tables and columns; give qualifiers the spelling of their source.

    With `quoted_text`, "text" in double quotes that names no column is a string, as SQLite takes it; only where it
    is compared with something, so that a misspelt column is not taken for text.
    """
    check_tables(tree, schema)
    for scope in _scopes(tree):
        _check_using(scope, schema)
        for column in list(scope.find_all(exp.Column)):
            if isinstance(column.this, exp.Star):
                _check_qualifier(column, scope, schema)
            elif column.table:
                _check_qualified(column, scope, schema)
            else:
                _check_bare(column, scope, schema, quoted_text)


def _check_using(scope: Scope, schema: Schema) -> None:
    """Columns of USING, which sqlglot does not keep as columns: each is one of the table that is joined."""
    for join in scope.expression.args.get("joins") or ():
        found = scope.selected_sources.get(join.this.alias_or_name)
        names = _columns_of(found[1], schema) if found else None
        for identifier in join.args.get("using") or ():
            if names is None:
                raise QueryRefused("sql.too_complex")
            if identifier.name.lower() not in {name.lower() for name in names}:
                _refuse_column(identifier.name, join.this.alias_or_name, names, schema)


def _scopes(tree: exp.Expression) -> list[Scope]:
    try:
        return list(traverse_scope(tree))
    except SqlglotError:
        raise QueryRefused("sql.not_parsed") from None


def _selected(scope: Scope) -> Iterator[tuple[exp.Expression, object]]:
    try:
        yield from scope.selected_sources.values()
    except SqlglotError:
        raise QueryRefused("sql.not_parsed") from None


def _spell_ctes(tree: exp.Expression, schema: Schema) -> None:
    """References to a CTE get its spelling, since sqlglot compares them by case and the databases do not.

    A CTE may not be named as a hidden table: where sqlglot and a database disagree on what it covers, the table would
    be read.
    """
    names = {cte.alias.lower(): cte.alias for cte in tree.find_all(exp.CTE)}
    for name in names:
        if is_system_table(name):
            raise QueryRefused("sql.system_table", name=name)
        if name in schema.hidden:
            raise QueryRefused("sql.taken_name", name=name)
    for table in tree.find_all(exp.Table):
        spelling = names.get(table.name.lower())
        if spelling and not table.db and spelling != table.name:
            table.set("this", exp.to_identifier(spelling))


def _check_repeats(tree: exp.Expression) -> None:
    """Refuse CTEs that name each other twice and again: twenty of them are a million subqueries."""
    ctes: dict[str, list[exp.CTE]] = {}
    for cte in tree.find_all(exp.CTE):
        ctes.setdefault(cte.alias.lower(), []).append(cte)
    if ctes and _parts(tree, ctes, {}) > _MOST_PARTS:
        raise QueryRefused("sql.too_complex")


def _parts(node: exp.Expression, ctes: dict[str, list[exp.CTE]], known: dict[str, int]) -> int:
    """`known` gets the parts of each CTE, by name; one that names itself counts once there."""
    count = 1
    for table in node.find_all(exp.Table):
        name = table.name.lower()
        if name in ctes and name not in known:
            known[name] = 1
            known[name] = sum(_parts(cte.this, ctes, known) for cte in ctes[name])
        count += known.get(name, 1)
    return count


def _spell_table(node: exp.Table, schema: Schema) -> None:
    table = schema.table(node.name)
    if table is None:
        near = schema.similar_table(node.name)
        if near:
            raise QueryRefused("sql.no_table_similar", name=node.name, similar=near)
        raise QueryRefused("sql.no_table", name=node.name)
    if table.name != node.name:
        node.set("this", exp.to_identifier(table.name, quoted=True))


def _columns_of(source: object, schema: Schema, depth: int = 0) -> list[str] | None:
    """Column names of a table, CTE or subquery; None when they cannot be told."""
    if isinstance(source, exp.Table):
        table = schema.table(source.name)
        return None if table is None else [column.name for column in table.columns]
    if not isinstance(source, Scope) or depth > 20:
        return None
    expression = source.expression
    parent = expression.parent
    # What a recursive CTE reads of itself is, to sqlglot, the first query of its UNION.
    while isinstance(parent, exp.SetOperation):
        parent = parent.parent
    if isinstance(parent, exp.CTE | exp.Subquery) and parent.alias_column_names:
        return list(parent.alias_column_names)
    first = expression
    while isinstance(first, exp.SetOperation):
        first = first.left
        if isinstance(first, exp.Subquery):
            first = first.this
    if not isinstance(first, exp.Select):
        return None
    if first is not expression:
        inner = next((scope for scope in source.traverse() if scope.expression is first), None)
        return _columns_of(inner, schema, depth + 1) if inner else None
    return _selected_columns(source, first, schema, depth)


def _selected_columns(scope: Scope, select: exp.Select, schema: Schema, depth: int) -> list[str] | None:
    names: list[str] = []
    for item in select.expressions:
        if not item.is_star or isinstance(item, exp.Count):
            names.append(item.alias_or_name)
            continue
        wanted = item.table if isinstance(item, exp.Column) else ""
        for name, source in scope.sources.items():
            if wanted and name.lower() != wanted.lower():
                continue
            columns = _columns_of(source, schema, depth + 1)
            if columns is None:
                return None
            names.extend(columns)
    return names


def _chain(scope: Scope) -> Iterator[Scope]:
    """The scopes whose sources may be named in `scope`, from within.

    A CTE or a subquery in FROM sees neither what stands beside it nor itself, only the queries around the one that
    holds it. LATERAL would; the guard allows none.
    """
    current: Scope | None = scope
    while current is not None:
        yield current
        while current.parent is not None and (current.is_derived_table or current.is_cte):
            current = current.parent
        current = current.parent


def _find_source(scope: Scope, name: str) -> tuple[str, object] | None:
    """The source that a qualifier means, from the scope outwards: the same spelling first, then any case."""
    for current in _chain(scope):
        selected = {alias: source for alias, (_, source) in current.selected_sources.items()}
        if name in selected:
            return name, selected[name]
        for alias, source in selected.items():
            if alias.lower() == name.lower():
                return alias, source
    return None


def _check_qualifier(column: exp.Column, scope: Scope, schema: Schema) -> tuple[str, object] | None:
    if not column.table:
        return None
    if column.args.get("db") or column.args.get("catalog"):
        raise QueryRefused("sql.other_database", name=column.sql(), table=column.table)
    found = _find_source(scope, column.table)
    if found is None:
        aliases = [alias for current in _chain(scope) for alias in current.selected_sources]
        named = ", ".join(dict.fromkeys(aliases))
        raise QueryRefused("sql.no_qualifier", name=column.table, column=column.name, tables=named)
    alias, source = found
    spelling = schema.table(source.name) if isinstance(source, exp.Table) else None
    if spelling and isinstance(source, exp.Table) and not source.alias:
        alias = spelling.name
    if alias != column.table:
        column.set("table", exp.to_identifier(alias))
    return alias, source


def _check_qualified(column: exp.Column, scope: Scope, schema: Schema) -> None:
    found = _check_qualifier(column, scope, schema)
    if found is None:
        return
    alias, source = found
    names = _columns_of(source, schema)
    if names is None:
        raise QueryRefused("sql.too_complex")
    if column.name.lower() not in {name.lower() for name in names}:
        table = source.name if isinstance(source, exp.Table) else alias
        _refuse_column(column.name, table, names, schema)
    mark_integer(column, _holds_integers(source, column.name, schema))


def _check_bare(column: exp.Column, scope: Scope, schema: Schema, quoted_text: bool) -> None:
    known: list[str] = []
    for current in _chain(scope):
        for _, source in _selected(current):
            names = _columns_of(source, schema)
            if names is None:
                raise QueryRefused("sql.too_complex")
            if column.name.lower() in {name.lower() for name in names}:
                mark_integer(column, _holds_integers(source, column.name, schema))
                return
            known.extend(names)
        # The output names of a UNION are for its own ORDER BY, not for the queries that it is made of.
        if current is scope or not isinstance(current.expression, exp.SetOperation):
            known.extend(_aliases(current.expression))
    if column.name.lower() in {name.lower() for name in known}:
        return
    if quoted_text and column.this.quoted and isinstance(column.parent, _COMPARISONS):
        column.replace(exp.Literal.string(column.name))
        return
    selected = scope.selected_sources.items()
    tables = [source.name if isinstance(source, exp.Table) else alias for alias, (_, source) in selected]
    _refuse_column(column.name, ", ".join(dict.fromkeys(tables)), known, schema)


def _holds_integers(source: object, column: str, schema: Schema) -> bool:
    if isinstance(source, exp.Table):
        table = schema.table(source.name)
        found = table.column(column) if table else None
        return found is not None and found.kind == "INTEGER"
    if isinstance(source, Scope) and isinstance(source.expression, exp.Select):
        items = source.expression.expressions
        return any(is_integer(item) for item in items if item.alias_or_name.lower() == column.lower())
    return False


def _aliases(expression: exp.Expression) -> list[str]:
    """Names that ORDER BY and the like may use beside columns: output names of a set operation, aliases of a SELECT."""
    if isinstance(expression, exp.SetOperation):
        return list(expression.named_selects)
    return [item.alias for item in expression.expressions if isinstance(item, exp.Alias)]


def _refuse_column(column: str, table: str, names: list[str], schema: Schema) -> None:
    """Say where the column is, or which one was meant."""
    near = similar(column, names)
    elsewhere = [other.name for other in schema.tables if other.column(column)]
    if elsewhere:
        raise QueryRefused("sql.no_column_elsewhere", column=column, table=table, tables=", ".join(elsewhere[:4]))
    if near:
        raise QueryRefused("sql.no_column_similar", column=column, table=table, similar=near)
    raise QueryRefused("sql.no_column", column=column, table=table)


def keep_to_listed_columns(tree: exp.Expression, schema: Schema) -> None:
    """Put `(SELECT its listed columns FROM t) AS t` in the place of every table with hidden columns.

    Then no star, natural join, alias or rule of name resolution can reach the others.
    """
    scopes = _scopes(tree)
    ctes = {id(node) for scope in scopes for node, source in _selected(scope) if isinstance(source, Scope)}
    for node in list(tree.find_all(exp.Table)):
        table = None if id(node) in ctes else schema.table(node.name)
        if table is None or not table.partial:
            continue
        columns = [exp.column(exp.to_identifier(column.name, quoted=True)) for column in table.columns]
        inner = exp.Select(expressions=columns, from_=exp.From(this=exp.Table(this=node.this.copy())))
        alias = exp.TableAlias(this=exp.to_identifier(node.alias or node.name, quoted=True))
        node.replace(exp.Subquery(this=inner, alias=alias, joins=node.args.get("joins")))
