"""Background work on spaces as HTML: what runs, how far it is, what failed, which encodings to confirm. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dbgpt_lite.errors import UserError
from dbgpt_lite.knowledge.records import IngestProgress, Job, TextPreview
from dbgpt_lite.texts import Language, time_left
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon

FINISHED = ("done", "failed", "duplicate")
EMPTY = Markup("")
PREVIEW_LINES = 12
# The app's own names of encodings, as people know them.
ENCODING_NAMES = {
    "utf-8": "UTF-8", "gb18030": "GB18030 · 简体中文", "big5": "Big5 · 繁體中文", "utf-16-le": "UTF-16 LE",
    "utf-16-be": "UTF-16 BE", "shift_jis": "Shift JIS · 日本語", "euc_jp": "EUC-JP · 日本語",
    "euc_kr": "EUC-KR · 한국어",
    "windows-1252": "Windows-1252 · Western", "windows-1250": "Windows-1250 · Central European",
    "windows-1251": "Windows-1251 · Русский", "koi8-r": "KOI8-R · Русский", "windows-1253": "Windows-1253 · Ελληνικά",
    "windows-1254": "Windows-1254 · Türkçe",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fetching:
    """A web address on its way into a space; `error` ends it."""

    id: str
    space_id: str
    address: str
    error: UserError | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """An added text file that waits for a word about its encoding."""

    token: str
    preview: TextPreview


def jobs_panel(
    jobs: Sequence[Job], fetches: Sequence[Fetching], language: Language, known: Collection[str] = ()
) -> Markup:
    """Everything on its way into one space. `known`: failed files whose reason another list shows already."""
    shown = EMPTY.join(_fetch(fetch, language) for fetch in fetches)
    shown += EMPTY.join(job_box(job, language, known) for job in jobs)
    return shown


def job_box(job: Job, language: Language, known: Collection[str] = ()) -> Markup:
    """A job: its bar and time while it runs, its sum when it is over, and the files that failed."""
    failed = [line for line in job.files if line.state == "failed" and line.file not in known]
    body = _failures(failed, language) + (EMPTY if not job.over else error_line(job.error, language))
    box = Markup('<section class="job" data-job="{}" data-kind="{}" data-state="{}"{}>{}{}</section>')
    head = _ended(job, language) if job.over else _running(job, language)
    return box.format(job.id, job.kind, job.state, EMPTY if job.over else Markup(" data-running"), head, body)


def activity(jobs: Sequence[Job], fetches: Sequence[Fetching], language: Language) -> Markup:
    """The quiet line in the sidebar while something runs; leads to its space."""
    if not jobs and not fetches:
        return EMPTY
    first = jobs[0] if jobs else None
    space = first.space_id if first else fetches[0].space_id
    text = headline(first, language) if first else say("fetching", language, address=fetches[0].address)
    left = time_left(first.seconds_left, language) if first else ""
    more = len(jobs) + len(fetches) - 1
    return Markup(
        '<a class="activity" href="#/knowledge/{}" data-running title="{}"><span class="pulse"></span>'
        '<span class="what">{}</span><span class="left">{}</span><i class="bar"><i style="width:{:.0f}%"></i></i></a>'
    ).format(space, text, text, say("and_more", language, count=more) if more else left, share(first) if first else 0)


def share(job: Job) -> float:
    """How far a job is, in percent: whole files, and the chunks of the one at work."""
    if job.kind == "reembed":
        return 100 * job.chunks_done / job.chunks_total if job.chunks_total else 0.0
    if not job.files_total:
        return 0.0
    part = sum(line.chunks_done / line.chunks_total for line in _at_work(job) if line.chunks_total)
    return min(100 * (job.files_done + part) / job.files_total, 100.0)


def at_work(jobs: Sequence[Job]) -> list[str]:
    """Names of the files that unfinished jobs are reading."""
    return [line.file for job in jobs if not job.over for line in _at_work(job)]


def headline(job: Job, language: Language) -> str:
    """What a job is doing, in a line."""
    if job.state == "waiting":
        return say("job_waiting", language)
    if job.kind == "reembed":
        done = f"{job.chunks_done:,}", f"{job.chunks_total:,}"
        return say("job_reembed", language, done=done[0], total=done[1])
    # Short files share a batch, so several are at work: the newest is told.
    newest = max(_at_work(job), key=lambda line: line.file_number, default=None)
    name, number = (newest.file, newest.file_number) if newest else (job.file, job.files_done)
    if job.files_total <= 1:
        return say("job_one", language, file=name)
    return say("job_many", language, number=max(number, 1), count=job.files_total, file=name)


def previews_panel(held: Sequence[Held], language: Language) -> Markup:
    """The text files whose encoding somebody has to look at before they are indexed."""
    if not held:
        return EMPTY
    title = say("encoding_one" if len(held) == 1 else "encoding_many", language, count=len(held))
    rows = EMPTY.join(_preview(one, language) for one in held)
    return Markup(
        '<section class="previews"><h2>{}</h2><p>{}</p>{}<div class="preview-foot">'
        '<button type="button" class="button plain" data-action="drop_held">{}</button>'
        '<button type="button" class="button index-held" data-action="index_held">{}</button></div></section>'
    ).format(title, say("encoding_hint", language), rows, say("leave_out", language), say("index", language))


def encoding_name(encoding: str) -> str:
    """An encoding as people know it."""
    return ENCODING_NAMES.get(encoding.lower(), encoding.upper())


def error_line(error: UserError | None, language: Language) -> Markup:
    """Why a job as a whole came to its end."""
    return Markup('<p class="job-error">{}</p>').format(error.render(language)) if error else EMPTY


def _at_work(job: Job) -> list[IngestProgress]:
    return [line for line in job.files if line.state not in FINISHED]


def _running(job: Job, language: Language) -> Markup:
    stop = Markup(
        '<button type="button" class="button plain stop-job" data-action="stop_job" data-id="{}">{}</button>'
    ).format(job.id, say("stop", language))
    percent = share(job)
    facts = [part for part in (_chunks(job, language), time_left(job.seconds_left, language)) if part]
    return Markup(
        '<div class="job-head"><div><b>{}</b><span class="job-facts">{}</span></div>{}</div>'
        '<i class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{:.0f}">'
        '<i style="width:{:.0f}%"></i></i>'
    ).format(headline(job, language), " · ".join(facts), stop, percent, percent)


def _chunks(job: Job, language: Language) -> str:
    """Passages done, of all where all are known: those of files that wait are not."""
    if not job.chunks_total:
        return ""
    key = "upload_embedding" if job.files_total <= 1 else "upload_embedded"
    return say(key, language, done=f"{job.chunks_done:,}", total=f"{job.chunks_total:,}")


def _ended(job: Job, language: Language) -> Markup:
    return Markup('<div class="job-head"><div><b>{}</b><span class="job-facts">{}</span></div>{}</div>').format(
        say(f"job_{job.state}", language), " · ".join(_sum(job, language)), _dismiss(job.id, language)
    )


def _sum(job: Job, language: Language) -> list[str]:
    """What has become of the files: added, replaced, known already, failed."""
    if job.kind == "reembed":
        return []
    done = [line for line in job.files if line.state == "done"]
    counts = (
        ("sum_added", sum(not line.replaced for line in done)),
        ("sum_replaced", sum(line.replaced for line in done)),
        ("sum_known", sum(line.state == "duplicate" for line in job.files)),
        ("sum_failed", sum(line.state == "failed" for line in job.files)),
    )
    return [say(f"{key}_one" if count == 1 else key, language, count=count) for key, count in counts if count]


def _failures(failed: Sequence[IngestProgress], language: Language) -> Markup:
    """The files that failed; a long list is folded."""
    if not failed:
        return EMPTY
    rows = EMPTY.join(
        Markup('<li class="upload" data-state="failed"><span class="file">{}</span><span class="state">{}</span></li>')
        .format(line.file, line.error.render(language) if line.error else say("upload_failed", language))
        for line in failed
    )  # fmt: skip
    rows = Markup('<ul class="uploads">{}</ul>').format(rows)
    if len(failed) <= 5:
        return rows
    title = say("files_failed", language, count=len(failed))
    return Markup('<details class="fold failures"><summary>{}</summary>{}</details>').format(title, rows)


def _fetch(fetch: Fetching, language: Language) -> Markup:
    if fetch.error is None:
        stop = Markup(
            '<button type="button" class="button plain" data-action="stop_job" data-id="{}">{}</button>'
        ).format(fetch.id, say("stop", language))
        return Markup(
            '<section class="job" data-kind="fetch" data-state="running" data-running><div class="job-head"><div>'
            '<b>{}</b></div>{}</div><i class="bar endless"><i></i></i></section>'
        ).format(say("fetching", language, address=fetch.address), stop)
    return Markup(
        '<section class="job" data-kind="fetch" data-state="failed"><div class="job-head"><div><b>{}</b></div>{}</div>'
        '<ul class="uploads"><li class="upload" data-state="failed"><span class="file">{}</span>'
        '<span class="state">{}</span></li></ul></section>'
    ).format(
        say("fetch_failed", language), _dismiss(fetch.id, language), fetch.address, fetch.error.render(language)
    )  # fmt: skip


def _dismiss(identity: str, language: Language) -> Markup:
    return Markup(
        '<button type="button" class="icon-button dismiss" data-action="dismiss_job" data-id="{}" title="{}" '
        'aria-label="{}">{}</button>'
    ).format(identity, say("dismiss", language), say("dismiss", language), icon("close"))


def _preview(held: Held, language: Language) -> Markup:
    preview = held.preview
    choices = preview.choices if preview.encoding in preview.choices else (preview.encoding, *preview.choices)
    options = EMPTY.join(
        Markup('<option value="{}"{}>{}</option>').format(
            choice, Markup(" selected") if choice == preview.encoding else "", encoding_name(choice)
        )
        for choice in choices
    )
    lines = "\n".join(preview.text.splitlines()[:PREVIEW_LINES])
    return Markup(
        '<article class="preview" data-token="{}"><div class="preview-head"><b>{}</b><label><span>{}</span>'
        '<select data-change="choose_encoding" data-id="{}" name="encoding" data-value="{}">{}</select></label></div>'
        "{}<pre>{}</pre></article>"
    ).format(
        held.token,
        preview.name,
        say("read_as", language),
        held.token,
        preview.encoding,
        options,
        _undecodable(preview.undecodable, language),
        lines,
    )


def _undecodable(count: int, language: Language) -> Markup:
    if not count:
        return EMPTY
    text = say("undecodable_one" if count == 1 else "undecodable", language, count=f"{count:,}")
    return Markup('<p class="warning">{}</p>').format(text)
