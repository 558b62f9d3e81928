"""Command line: serve, ask, sql, space, ingest, memory, glossary, queries, audit, plan, evaluate, quantize, download,
hash-password, new-api-key.

The same services as the page.

Exit codes: 0 done, 1 could not be done (one line on stderr says why), 2 wrong usage or settings, 130 interrupted,
141 nobody reads the output any more (`| head`).
"""

import argparse
import csv
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from dbgpt_lite import __version__
from dbgpt_lite.cli_download import add_download
from dbgpt_lite.cli_evaluate import add_evaluate
from dbgpt_lite.cli_knowledge import add_commands, find_space, thrown_in
from dbgpt_lite.cli_memory import add_memory
from dbgpt_lite.cli_models import add_models
from dbgpt_lite.cli_progress import LoadingLine
from dbgpt_lite.cli_quantize import add_quantize
from dbgpt_lite.errors import ConfigError, UserError
from dbgpt_lite.messages import MODES, Answer, ChatRequest, Done, Mode, ResultTable, Sampling, Step, Token
from dbgpt_lite.texts import text

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

OWNER = "cli"


def main(arguments: Sequence[str], serve: Callable[[], int]) -> int:
    """Run one command; returns the exit code. `serve` starts the app: the command line knows no other front end."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] | None = options.command
    if command is None:
        return serve()
    try:
        code = command(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _nobody_reads()
    except ConfigError as error:
        return _complain(error, 2)
    except UserError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dbgpt_lite", description="Private chat over your own documents and database.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="command")

    def add(name: str, command: Callable[[argparse.Namespace], int] | None, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=command)
        return sub

    add("serve", None, "start the browser app (also without a command)")
    ask = add("ask", _ask, "ask a question and print the answer with its sources")
    ask.add_argument("question")
    ask.add_argument("--mode", choices=MODES, default="auto")
    ask.add_argument("--source", default="", help="knowledge space (name or id) or connection; default: all spaces")
    ask.add_argument(
        "--file", action="append", metavar="FILE", help="ask this file, which is read for this question only"
    )
    sql = add("sql", _sql, "ask a database in plain words and print the query and its rows")
    sql.add_argument("question")
    sql.add_argument("--database", default="", help="name of the connection")
    sql.add_argument("--csv", type=Path, help="write the rows to this file")
    add_commands(add, _services)
    add_memory(add, OWNER, _opened)
    add_models(add)
    add_evaluate(add)
    add_quantize(add)
    add_download(add)
    add("hash-password", _hash_password, "make a value for AUTH_USERS")
    add("new-api-key", _new_api_key, "make an API key and its value for API_KEYS")
    return parser


def _ask(options: argparse.Namespace) -> int:
    samples = options.mode in ("auto", "documents") and not options.file
    with ExitStack() as opened:
        services = opened.enter_context(_services(samples))
        mode: Mode = "documents" if options.file else options.mode
        if mode == "auto" and options.source:
            mode = "database" if options.source in services.databases.names() else "documents"
        source = options.source
        if options.file:
            source = opened.enter_context(thrown_in(services, OWNER, options.file))
        elif source and mode == "documents":
            source = find_space(services, source).id
        answer = _answer(services, options.question, mode, source)
        for citation in answer.citations:
            page = f", p. {citation.passage.page}" if citation.passage.page else ""
            print(f"[{citation.number}] {citation.passage.document}{page}")
        if answer.sql:
            print(f"\n{answer.sql}")
    return 0


def _sql(options: argparse.Namespace) -> int:
    with _services() as services:
        answer = _answer(services, options.question, "database", options.database)
        if answer.table is None:
            return 1
        print(f"\n{answer.sql}\n")
        if options.csv:
            _write_csv(options.csv, answer.table)
        else:
            _print_table(answer.table)
    return 0


def _hash_password(_options: argparse.Namespace) -> int:
    import getpass

    from dbgpt_lite.auth import hash_password

    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not password:
        print("An empty password is no password.", file=sys.stderr)
        return 2
    print(hash_password(password))
    return 0


def _new_api_key(_options: argparse.Namespace) -> int:
    from dbgpt_lite.auth import new_api_key

    key, digest = new_api_key()
    print(f"Key (shown once):   {key}\nFor .env:           API_KEYS=name:{digest}")
    return 0


def _services(samples: bool = False) -> "Services":
    with ExitStack() as undo:
        services = undo.enter_context(_opened())
        services.prepare(samples, LoadingLine())
        undo.pop_all()
        return services


def _opened() -> "Services":
    """The services with no model loaded and no server asked."""
    from dbgpt_lite.config import load_settings, prepare_process

    prepare_process()
    from dbgpt_lite.bootstrap import build_services

    return build_services(load_settings())


def _answer(services: "Services", question: str, mode: Mode, source: str) -> Answer:
    """Print the answer as it comes; steps go to stderr."""
    settings = services.settings
    sampling = Sampling(settings.llm_temperature, settings.llm_top_p, settings.llm_max_tokens)
    request = ChatRequest("", question, OWNER, mode, source, sampling=sampling, history=(), origin="cli")
    for event in services.chat.stream(request):
        if isinstance(event, Step):
            print(f"· {text(f'chat.step_{event.name}', 'en', **event.facts)}", file=sys.stderr)
        elif isinstance(event, Token):
            print(event.text, end="", flush=True)
        elif isinstance(event, Done):
            print()
            return event.answer
    raise UserError("chat.failed")


def _write_csv(file: Path, table: ResultTable) -> None:
    try:
        with file.open("w", encoding="utf-8-sig", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(table.columns)
            writer.writerows(table.rows)
    except OSError:
        raise UserError("app.cannot_write", name=file.name) from None
    print(f"{len(table.rows)} rows written to {file}")


def _print_table(table: ResultTable) -> None:
    cells = [list(table.columns), *[["NULL" if v is None else str(v) for v in row] for row in table.rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _nobody_reads() -> int:
    """As if the signal had ended the process, without a word; what Python still holds back goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return 141


def _complain(error: UserError, code: int) -> int:
    print(f"dbgpt_lite: {error}", file=sys.stderr)
    return code
