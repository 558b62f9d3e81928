"""Command line: serve, ask, sql, ingest, hash-password, new-api-key. The same services as the page.

Exit codes: 0 done, 1 could not be done (one line on stderr says why), 2 wrong usage or settings, 130 interrupted.
"""

import argparse
import csv
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dbgpt_lite import __version__
from dbgpt_lite.errors import ConfigError, NotFound, UserError
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
        return command(options)
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
    sql = add("sql", _sql, "ask a database in plain words and print the query and its rows")
    sql.add_argument("question")
    sql.add_argument("--database", default="", help="name of the connection")
    sql.add_argument("--csv", type=Path, help="write the rows to this file")
    ingest = add("ingest", _ingest, "add files or folders to a knowledge space")
    ingest.add_argument("paths", nargs="+", type=Path)
    ingest.add_argument("--space", default="My documents", help="made when it does not exist (default: %(default)s)")
    add("hash-password", _hash_password, "make a value for AUTH_USERS")
    add("new-api-key", _new_api_key, "make an API key and its value for API_KEYS")
    return parser


def _ask(options: argparse.Namespace) -> int:
    with _services(samples=options.mode in ("auto", "documents")) as services:
        mode: Mode = options.mode
        if mode == "auto" and options.source:
            mode = "database" if options.source in services.databases.names() else "documents"
        source = _space_id(services, options.source) if mode == "documents" else options.source
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


def _ingest(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dbgpt_lite.knowledge.loaders import READERS, suffix
    from dbgpt_lite.knowledge.records import Upload

    files = [file for path in options.paths for file in _files(path)]
    uploads = [Upload(file, file.name) for file in files if suffix(file.name) in READERS]
    if not uploads:
        raise UserError("app.nothing_to_ingest", kinds=" ".join(sorted(READERS)))
    failed = 0
    with _services() as services, tqdm(total=len(uploads), unit="file", disable=None) as bar:
        knowledge = services.knowledge
        found = [space.id for space in knowledge.spaces() if space.name == options.space]
        space = found[0] if found else knowledge.create(options.space).id
        limit = services.settings.upload_max_files
        batches = (uploads[first : first + limit] for first in range(0, len(uploads), limit))
        for step in (step for batch in batches for step in knowledge.ingest(space, batch, threading.Event())):
            bar.set_postfix_str(f"{step.file} {step.chunks_done}/{step.chunks_total}", refresh=False)
            if step.state in ("done", "duplicate", "failed"):
                bar.update()
            if step.state == "failed" and step.error:
                failed += 1
                tqdm.write(f"{step.file}: {step.error}", file=sys.stderr)
    print(f"{len(uploads) - failed} of {len(uploads)} files are in “{options.space}”.")
    return 1 if failed else 0


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
    from dbgpt_lite.config import load_settings, prepare_process

    prepare_process()
    from dbgpt_lite.bootstrap import build_services

    services = build_services(load_settings())
    services.prepare(samples)
    return services


def _space_id(services: "Services", name: str) -> str:
    """A space by its id or its name, as people type it."""
    for space in services.knowledge.spaces():
        if name in (space.id, space.name):
            return space.id
    if name:
        raise NotFound("knowledge.no_space")
    return ""


def _answer(services: "Services", question: str, mode: Mode, source: str) -> Answer:
    """Print the answer as it comes; steps go to stderr."""
    settings = services.settings
    sampling = Sampling(settings.llm_temperature, settings.llm_top_p, settings.llm_max_tokens)
    request = ChatRequest("", question, OWNER, mode, source, sampling=sampling, history=())
    for event in services.chat.stream(request):
        if isinstance(event, Step):
            print(f"· {text(f'chat.step_{event.name}', 'en', **event.facts)}", file=sys.stderr)
        elif isinstance(event, Token):
            print(event.text, end="", flush=True)
        elif isinstance(event, Done):
            print()
            return event.answer
    raise UserError("chat.failed")


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    if not path.is_file():
        raise UserError("app.no_path", name=path.name)
    return [path]


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


def _complain(error: UserError, code: int) -> int:
    print(f"dbgpt_lite: {error}", file=sys.stderr)
    return code
