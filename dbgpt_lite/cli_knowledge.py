"""The command line's knowledge commands: ingest, and space with its actions.

Ctrl-C stops an ingestion between two batches: finished files stay, and the rest waits for ``ingest --resume``.
"""

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dbgpt_lite.errors import ConfigError, NotFound, UserError
from dbgpt_lite.texts import text, time_left

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services
    from dbgpt_lite.knowledge.records import Document, Job, Space, Upload

DEFAULT_SPACE = "My documents"
LOOK_S = 0.2
Command = Callable[[argparse.Namespace], int]
Open = Callable[[], "Services"]


class Add(Protocol):
    """Adds a sub-command and returns its parser."""

    def __call__(self, name: str, command: Command | None, help: str) -> argparse.ArgumentParser: ...


def add_commands(add: Add, services: Open) -> None:
    """Add `space` and `ingest`."""
    ingest = add("ingest", partial(_ingest, services), "add files, folders, web pages or a text to a knowledge space")
    ingest.add_argument("paths", nargs="*", metavar="PATH|URL", help="files and folders, or http(s) addresses")
    ingest.add_argument("--text", metavar="FILE", help="add the text of this file; - reads standard input")
    ingest.add_argument("--title", default="", help="name of the text (default: its first line)")
    ingest.add_argument("--space", default="", help=f"name or id; made when it does not exist ({DEFAULT_SPACE})")
    ingest.add_argument("--encoding", default="", help="encoding of text files, e.g. gb18030 (default: detected)")
    ingest.add_argument("--resume", action="store_true", help="finish what was interrupted (in --space, or everywhere)")
    space = add("space", None, "list, make, rename, empty, delete or embed knowledge spaces again")
    space.set_defaults(command=partial(_list, services))
    actions = space.add_subparsers(metavar="action")
    for name, command, help, more in (
        ("list", _list, "list the spaces (also without an action)", ()),
        ("create", _create, "make an empty space", ("name",)),
        ("rename", _rename, "give a space another name", ("name", "new_name")),
        ("empty", _empty, "remove all documents of a space", ("name", "--yes")),
        ("delete", _delete, "remove a space with all its documents", ("name", "--yes")),
        ("reembed", _reembed, "embed a space anew after a change of EMBEDDING_MODEL", ("name",)),
        ("documents", _documents, "list the documents of a space", ("name",)),
        ("passages", _passages, "print the passages of a document", ("name", "document")),
        ("remove", _remove, "remove one document from a space", ("name", "document")),
    ):
        sub = actions.add_parser(name, help=help, description=help)
        sub.set_defaults(command=partial(command, services))
        for argument in more:
            if argument == "--yes":
                sub.add_argument("--yes", action="store_true", help="do not ask")
            else:
                sub.add_argument(argument)


def find_space(services: "Services", name: str) -> "Space":
    """A space by its id or its name, as people type it: upper and lower case are alike. Raises NotFound."""
    from dbgpt_lite.knowledge.names import same_name

    for space in services.knowledge.spaces():
        if name == space.id or same_name(name, space.name):
            return space
    raise NotFound("knowledge.no_space")


@contextmanager
def thrown_in(services: "Services", owner: str, paths: Sequence[str]) -> Iterator[str]:
    """Id of a temporary space with these files, deleted at the end. Raises UserError when none can be read."""
    uploads = list(_uploads([_existing(path) for path in paths], ""))
    if not uploads:
        raise _nothing()
    space = services.knowledge.create_temporary(owner, uploads[0].name[:60])
    try:
        jobs = _follow(services, [services.knowledge.jobs.start(space.id, uploads)])
        if not any(line.state in ("done", "duplicate") for job in jobs for line in job.files):
            raise next((line.error for job in jobs for line in job.files if line.error), _nothing())
        yield space.id
    finally:
        services.knowledge.delete(space.id)


def _ingest(open_services: Open, options: argparse.Namespace) -> int:
    encoding = _encoding(options.encoding)
    if not (options.paths or options.text or options.resume):
        raise ConfigError("app.ingest_what")
    addresses = [path for path in options.paths if path.lower().startswith(("http://", "https://"))]
    files = [_existing(path) for path in options.paths if path not in addresses]
    with tempfile.TemporaryDirectory() as folder, open_services() as services:
        if options.resume:
            return _resume(services, options.space)
        uploads = list(_uploads(files, encoding))
        if options.text:
            uploads.append(_text(options.text, options.title, Path(folder), encoding))
        failed = _fetch(addresses, Path(folder), uploads)
        if not uploads:
            return 1 if failed else _complain(_nothing())
        return _take_in(services, _space(services, options.space or DEFAULT_SPACE), uploads, failed)


def _take_in(services: "Services", space: "Space", uploads: Sequence["Upload"], failed: int) -> int:
    """Start all jobs at once: each keeps its bytes, so that an interruption loses none of them."""
    from dbgpt_lite.knowledge.ingest import distinct

    most, uploads = services.settings.upload_max_files, distinct(uploads)
    parts = [uploads[first : first + most] for first in range(0, len(uploads), most)]
    jobs = _follow(services, [services.knowledge.jobs.start(space.id, part) for part in parts])
    lines = [line for job in jobs for line in job.files]
    good = sum(line.state in ("done", "duplicate") for line in lines)
    facts = {
        "new": sum(line.state == "done" and not line.replaced for line in lines),
        "replaced": sum(line.replaced for line in lines),
        "known": sum(line.state == "duplicate" for line in lines),
    }
    print(text("app.ingested", good=good, count=len(uploads) + failed, space=space.name, **facts))
    return _outcome(jobs, failed)


def _resume(services: "Services", name: str) -> int:
    spaces = [find_space(services, name)] if name else services.knowledge.spaces()
    waiting = [space for space in spaces if space.pending]
    if not waiting:
        print(text("app.nothing_to_resume"))
        return 0
    jobs = _follow(services, [services.knowledge.jobs.resume(space.id) for space in waiting])
    print(text("app.resumed", count=sum(line.state == "done" for job in jobs for line in job.files)))
    return _outcome(jobs)


def _outcome(jobs: Sequence["Job"], failed: int = 0) -> int:
    """The exit code; says why a whole job failed."""
    for job in jobs:
        if job.error:
            _complain(job.error)
            failed += 1
    return 1 if failed or any(line.state == "failed" for job in jobs for line in job.files) else 0


def _follow(services: "Services", ids: Sequence[str]) -> list["Job"]:
    """Show the jobs until they are over. Ctrl-C stops them, says how to go on and raises KeyboardInterrupt."""
    from tqdm import tqdm

    jobs = services.knowledge.jobs
    form = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} files{postfix}"
    told: set[tuple[str, int]] = set()
    with tqdm(total=0, disable=None, bar_format=form, dynamic_ncols=True) as bar:
        try:
            while True:
                shown = [jobs.wait(identity, 0) for identity in ids]
                _draw(bar, shown, told)
                at_work = next((job for job in shown if not job.over), None)
                if at_work is None:
                    return shown
                jobs.wait(at_work.id, LOOK_S)
        except KeyboardInterrupt:
            for identity in ids:
                jobs.cancel(identity)
            for identity in ids:
                jobs.wait(identity, 60)
            bar.close()
            print(text("app.ingest_stopped"), file=sys.stderr)
            raise


def _draw(bar: Any, jobs: Sequence["Job"], told: set[tuple[str, int]]) -> None:
    """Bring a tqdm bar up to date, and tell each failure once."""
    bar.total = sum(job.files_total for job in jobs)
    bar.n = sum(job.files_done for job in jobs)
    at_work = next((job for job in jobs if job.state == "running"), None)
    if at_work is not None:
        line = at_work.files[-1] if at_work.files else None
        parts = [at_work.file, f"{line.chunks_done}/{line.chunks_total}" if line and line.chunks_total else ""]
        bar.set_postfix_str(" ".join([*parts, time_left(at_work.seconds_left)]).strip(), refresh=False)
    bar.refresh()
    for job in jobs:
        for line in job.files:
            if line.state == "failed" and (job.id, line.file_number) not in told:
                told.add((job.id, line.file_number))
                bar.write(f"{line.file}: {line.error}", file=sys.stderr)


def _list(open_services: Open, _options: argparse.Namespace) -> int:
    with open_services() as services:
        for space in services.knowledge.spaces():
            notes = [text("app.space_facts", documents=space.documents, passages=f"{space.chunks:,}")]
            notes += [text("app.space_pending", count=space.pending)] if space.pending else []
            notes += [text("app.space_sample")] if space.readonly else []
            print(f"{space.id}  {space.name}  ({', '.join(notes)})")
    return 0


def _create(open_services: Open, options: argparse.Namespace) -> int:
    with open_services() as services:
        print(services.knowledge.create(options.name).id)
    return 0


def _rename(open_services: Open, options: argparse.Namespace) -> int:
    with open_services() as services:
        services.knowledge.rename(find_space(services, options.name).id, options.new_name)
    return 0


def _empty(open_services: Open, options: argparse.Namespace) -> int:
    with open_services() as services:
        space = find_space(services, options.name)
        if not _sure("app.sure_empty", space, options.yes):
            return 1
        print(text("app.emptied", count=services.knowledge.empty(space.id), space=space.name))
    return 0


def _delete(open_services: Open, options: argparse.Namespace) -> int:
    with open_services() as services:
        space = find_space(services, options.name)
        if not _sure("app.sure_delete", space, options.yes):
            return 1
        services.knowledge.delete(space.id)
        print(text("app.deleted", space=space.name))
    return 0


def _documents(open_services: Open, options: argparse.Namespace) -> int:
    with open_services() as services:
        for document in services.knowledge.documents(find_space(services, options.name).id):
            facts = {"passages": f"{document.chunks:,}", "encoding": document.encoding or "-"}
            state = text(f"app.document_{document.status}", reason=str(document.error or ""), **facts)
            print(f"{document.id}  {document.name}  ({state})")
    return 0


def _passages(open_services: Open, options: argparse.Namespace) -> int:
    with open_services() as services:
        space = find_space(services, options.name)
        document = _document(services, space, options.document)
        for number, passage in enumerate(services.knowledge.chunks(space.id, document.id), 1):
            place = " · ".join(part for part in (f"p. {passage.page}" if passage.page else "", passage.heading) if part)
            print(f"[{number}] {place}\n{passage.text}\n")
    return 0


def _remove(open_services: Open, options: argparse.Namespace) -> int:
    with open_services() as services:
        space = find_space(services, options.name)
        document = _document(services, space, options.document)
        services.knowledge.delete_document(space.id, document.id)
        print(text("app.removed", name=document.name, space=space.name))
    return 0


def _document(services: "Services", space: "Space", name: str) -> "Document":
    """A document by its id or its name. Raises NotFound."""
    for document in services.knowledge.documents(space.id):
        if name in (document.id, document.name):
            return document
    raise NotFound("knowledge.no_document")


def _reembed(open_services: Open, options: argparse.Namespace) -> int:
    with open_services() as services:
        space = find_space(services, options.name)
        if not services.knowledge.needs_reembedding(space.id):
            print(text("app.embedded_already", space=space.name))
            return 0
        jobs = _follow(services, [services.knowledge.jobs.reembed(space.id)])
        return _outcome(jobs)


def _sure(key: str, space: "Space", yes: bool) -> bool:
    """Whether to go on: said so by --yes, or by an answer that begins with y."""
    if yes:
        return True
    print(text(key, space=space.name, documents=space.documents, passages=f"{space.chunks:,}"), end=" ", flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print(text("app.nothing_changed"), file=sys.stderr)
    return False


def _space(services: "Services", name: str) -> "Space":
    try:
        return find_space(services, name)
    except NotFound:
        return services.knowledge.create(name)


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.exists():
        raise UserError("app.no_path", name=path.name)
    return path


def _uploads(paths: Sequence[Path], encoding: str) -> Iterator["Upload"]:
    """Files as they are; of folders those that can be read, named by their way from the folder."""
    from dbgpt_lite.knowledge.loaders import READERS, suffix
    from dbgpt_lite.knowledge.records import Upload

    for path in dict.fromkeys(paths):
        if not path.is_dir():
            yield Upload(path, path.name, encoding)
            continue
        top = path.resolve()
        for file in sorted(top.rglob("*")):
            way = file.relative_to(top.parent)
            hidden = any(part.startswith(".") for part in way.parts[1:])
            if file.is_file() and not hidden and suffix(file.name) in READERS:
                yield Upload(file, way.as_posix(), encoding)


def _text(source: str, title: str, folder: Path, encoding: str) -> "Upload":
    """A text of a file or of standard input, named by its title or its first line."""
    from dbgpt_lite.knowledge.encodings import decode
    from dbgpt_lite.knowledge.records import Upload

    content = sys.stdin.buffer.read() if source == "-" else _existing(source).read_bytes()
    words = decode(content, encoding=encoding).text.split("\n")
    line = next((line.strip() for line in words if line.strip()), "")
    if not line:
        raise UserError("app.no_text")
    path = folder / "text"
    path.write_bytes(content)
    return Upload(path, f"{(title or line)[:60].replace('/', ' ').strip()}.txt", encoding)


def _fetch(addresses: Sequence[str], folder: Path, uploads: list["Upload"]) -> int:
    """Fetch what can be fetched into `uploads`; returns how many cannot."""
    from dbgpt_lite.knowledge.fetch import FetchLimits, fetch

    failed = 0
    for address in addresses:
        try:
            uploads.append(fetch(address, folder, FetchLimits(), threading.Event()))
        except UserError as error:
            print(f"{address}: {error}", file=sys.stderr)
            failed += 1
    return failed


def _encoding(name: str) -> str:
    """The app's name of an encoding that was chosen, "" for none. Raises ConfigError for one that is not read."""
    from dbgpt_lite.knowledge.encodings import canonical

    known = canonical(name) if name else ""
    if name and not known:
        raise ConfigError("app.no_encoding", name=name)
    return known


def _nothing() -> UserError:
    from dbgpt_lite.knowledge.loaders import READERS

    return UserError("app.nothing_to_ingest", kinds=" ".join(sorted(READERS)))


def _complain(error: UserError) -> int:
    print(f"dbgpt_lite: {error}", file=sys.stderr)
    return 1
