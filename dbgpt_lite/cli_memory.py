"""The command line's memory, glossary, queries and audit: what the app was taught about databases, and what it asked.

The one who runs commands is the operator: everybody's entries are shown. Times are UTC.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dbgpt_lite.cli_knowledge import Add
from dbgpt_lite.errors import ConfigError, UserError
from dbgpt_lite.messages import Origin
from dbgpt_lite.texts import text

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

Open = Callable[[], "Services"]
Work = Callable[["Services", argparse.Namespace], None]
_AGO = re.compile(r"(\d{1,5})([dh])")


def add_memory(add: Add, owner: str, services: Open) -> None:
    """Add `memory`, `glossary`, `queries` and `audit`; what they add belongs to `owner`."""
    memory = _group(add, services, "memory", _list_examples, "example questions with their SQL, shown to the model")
    memory("list", _list_examples, "list the examples (also without an action)", "--database", "--search", "--json")
    memory("add", partial(_add_example, owner), "remember a question and its SQL", "question", "sql", "--database")
    memory("remove", _remove_examples, "forget examples by number", "ids")
    memory(
        "import", partial(_import_examples, owner), "take in a JSONL file, whole or not at all", "file", "--database"
    )
    memory("export", _export_examples, "write the examples as JSONL (default: standard output)", "out", "--database")
    terms = _group(add, services, "glossary", _list_terms, "business terms and what they mean, shown to the model")
    terms("list", _list_terms, "list the terms (also without an action)", "--database", "--json")
    terms("add", partial(_add_term, owner), "explain a term", "term", "meaning", "--sql", "--database")
    terms("remove", _remove_terms, "forget terms by number", "ids")
    terms("import", partial(_import_terms, owner), "take in a JSONL file, whole or not at all", "file", "--database")
    terms("export", _export_terms, "write the terms as JSONL (default: standard output)", "out", "--database")
    queries = add("queries", partial(_run, services, _list_queries), "list the queries that people have saved")
    _arguments(queries, ("--owner", "--database", "--json"))
    audit = add("audit", partial(_run, services, _list_audit), "list the statements that were sent to databases")
    _arguments(audit, ("--owner", "--connection", "--origin", "--since", "--limit", "--all", "--json"))


def _group(add: Add, services: Open, name: str, default: Work, help: str) -> Callable[..., None]:
    """A command with actions; returns what adds an action: (name, work, help, *arguments)."""
    group = add(name, partial(_run, services, default), help)
    group.set_defaults(database="", search="", json=False)
    actions = group.add_subparsers(metavar="action")

    def action(name: str, work: Work, help: str, *arguments: str) -> None:
        sub = actions.add_parser(name, help=help, description=help)
        sub.set_defaults(command=partial(_run, services, work))
        _arguments(sub, arguments)

    return action


_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "ids": {"nargs": "+", "type": int, "metavar": "NUMBER"},
    "file": {"type": Path, "metavar": "FILE", "help": "JSONL in UTF-8; - reads standard input"},
    "out": {"type": Path, "nargs": "?", "metavar": "FILE"},
    "--database": {"default": "", "metavar": "NAME", "help": "name of the connection"},
    "--connection": {"default": "", "metavar": "NAME", "help": "only of this connection"},
    "--owner": {"default": "", "help": "only of this person, as listed (user:ana, api:reports, cli)"},
    "--origin": {"default": "", "choices": get_args(Origin), "help": "only from there"},
    "--all": {"action": "store_true", "help": "also what the app reads of schemas for itself (origin schema)"},
    "--search": {"default": "", "metavar": "TEXT", "help": "only those that hold this text"},
    "--since": {"default": "", "metavar": "WHEN", "help": "a date or time (UTC), or 7d, 12h"},
    "--limit": {"type": int, "default": 100, "metavar": "N", "help": "the newest N (default: 100)"},
    "--sql": {"default": "", "help": "how the term is written in SQL, e.g. SUM(total)"},
    "--json": {"action": "store_true", "help": "one JSON object a line"},
}


def _arguments(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    for name in names:
        parser.add_argument(name, **_OPTIONS.get(name, {}))


def _run(open_services: Open, work: Work, options: argparse.Namespace) -> int:
    with open_services() as services:
        work(services, options)
    return 0


def _list_examples(services: "Services", options: argparse.Namespace) -> None:
    for one in services.memory.listed(options.database, options.search):
        problem = str(one.problem) if one.problem else ""
        if options.json:
            _print_json({**asdict(one.example), "problem": problem})
            continue
        example = one.example
        print(_shown(f"{example.id}  {example.connection}  {example.question}  ({example.origin}, {example.owner})"))
        print(f"    {_shown(example.sql)}")
        if problem:
            print(f"    {_shown(text('queries.not_shown', reason=problem))}")


def _add_example(owner: str, services: "Services", options: argparse.Namespace) -> None:
    made = services.memory.remember(owner, options.database, options.question, options.sql, "imported")
    print(text("queries.added", id=made.id))


def _remove_examples(services: "Services", options: argparse.Namespace) -> None:
    for number in options.ids:
        services.queries.examples.remove(number)
    print(text("queries.removed", count=len(options.ids)))


def _import_examples(owner: str, services: "Services", options: argparse.Namespace) -> None:
    found = services.memory.read(_content(options.file), options.database)
    services.queries.examples.add_all(owner, found)
    print(text("queries.imported", count=len(found), name=options.file.name))


def _export_examples(services: "Services", options: argparse.Namespace) -> None:
    from dbgpt_lite.chat.memory_files import one_a_question, write_examples

    found = one_a_question(services.queries.examples.all(options.database))
    _write(options.out, write_examples(found), len(found))


def _list_terms(services: "Services", options: argparse.Namespace) -> None:
    for term in services.queries.glossary.all(options.database or None):
        if options.json:
            _print_json(asdict(term))
            continue
        sql = f"  [{term.sql}]" if term.sql else ""
        print(_shown(f"{term.id}  {term.connection or '*'}  {term.term}: {term.meaning}{sql}"))


def _add_term(owner: str, services: "Services", options: argparse.Namespace) -> None:
    from dbgpt_lite.query_store import NewTerm

    name = services.databases.get(options.database).name if options.database else ""
    made = services.queries.glossary.add(owner, NewTerm(options.term, options.meaning, options.sql, name))
    print(text("queries.added", id=made.id))


def _remove_terms(services: "Services", options: argparse.Namespace) -> None:
    for number in options.ids:
        services.queries.glossary.remove(number)
    print(text("queries.removed", count=len(options.ids)))


def _import_terms(owner: str, services: "Services", options: argparse.Namespace) -> None:
    from dbgpt_lite.chat.memory_files import read_terms

    found = read_terms(_content(options.file), options.database)
    services.queries.glossary.add_all(owner, found)
    print(text("queries.imported", count=len(found), name=options.file.name))


def _export_terms(services: "Services", options: argparse.Namespace) -> None:
    from dbgpt_lite.chat.memory_files import write_terms

    found = services.queries.glossary.all(options.database or None)
    _write(options.out, write_terms(found), len(found))


def _list_queries(services: "Services", options: argparse.Namespace) -> None:
    saved = services.queries.saved
    found = saved.of(options.owner, options.database) if options.owner else saved.all(options.database)
    for query in found:
        if options.json:
            _print_json(asdict(query))
            continue
        print(_shown(f"{query.id}  {query.connection}  {query.name}  ({query.owner})"))
        print(f"    {_shown(query.sql)}")


def _list_audit(services: "Services", options: argparse.Namespace) -> None:
    since = _since(options.since, datetime.now(UTC))
    origin = options.origin
    # A reading of a schema that samples values is hundreds of statements, all of the app's own.
    without = () if options.all or origin or options.owner else ("schema",)
    limit = max(options.limit, 1)
    for entry in services.queries.audit.entries(options.owner, options.connection, since, limit, origin, without):
        if options.json:
            _print_json(asdict(entry))
            continue
        took = "" if entry.milliseconds is None else f"  {entry.milliseconds} ms  {entry.rows} rows"
        when = entry.started.strftime("%Y-%m-%d %H:%M:%S")
        print(_shown(f"{when}  {entry.owner}  {entry.connection}  {entry.origin}  {entry.outcome}{took}"))
        print(f"    {_shown(entry.statement)}")


def _since(value: str, now: datetime) -> datetime | None:
    """ "" is no limit; a date or a time (UTC unless it says otherwise), or 7d, 12h before `now`. Raises ConfigError."""
    if not value:
        return None
    if ago := _AGO.fullmatch(value):
        return now - (timedelta(days=int(ago[1])) if ago[2] == "d" else timedelta(hours=int(ago[1])))
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError("queries.bad_since") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _content(file: Path) -> bytes:
    from dbgpt_lite.chat.memory_files import MAX_BYTES

    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError:
        raise UserError("queries.cannot_read", name=file.name) from None


def _write(file: Path | None, content: str, count: int) -> None:
    if file is None:
        print(content, end="")
        return
    try:
        file.write_text(content, encoding="utf-8")
    except OSError:
        raise UserError("app.cannot_write", name=file.name) from None
    print(text("queries.exported", count=count, name=file.name))


def _print_json(facts: Mapping[str, object]) -> None:
    print(json.dumps(facts, ensure_ascii=False, default=str))


def _shown(line: str) -> str:
    """One line for a terminal: nothing in it moves the cursor or changes colours."""
    return "".join(letter if letter.isprintable() else " " for letter in line)
