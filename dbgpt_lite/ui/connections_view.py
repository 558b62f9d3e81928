"""What has left this computer, as HTML: one line that says it, and the list behind it. Pure."""

from markupsafe import Markup

from dbgpt_lite.outbound import Attempt, ConnectionLog, status_line
from dbgpt_lite.texts import Language, text


def connections_panel(connections: ConnectionLog, telemetry_on: tuple[str, ...], language: Language) -> Markup:
    """The status line; below it, folded, every place that was tried."""
    attempts = connections.attempts()
    unseen = bool(connections.proxies) or not connections.tested
    alarm = bool(telemetry_on) or unseen or connections.totals()["unexpected"] > 0
    rows = Markup("").join(_row(one, language) for one in attempts)
    return Markup('<section class="connections{}"><h2>{}</h2><p role="status">{}</p>{}</section>').format(
        " alarm" if alarm else "",
        text("outbound.title", language),
        status_line(connections, telemetry_on, language),
        Markup("<p>{}</p><ul>{}</ul>").format(text("outbound.intro", language), rows) if rows else "",
    )


def _row(one: Attempt, language: Language) -> Markup:
    place = f"{one.host}:{one.port}" if one.port else f"{one.host} ({text('outbound.looked_up', language)})"
    who = text(f"outbound.who_{one.who}", language) if one.kind == "asked" else one.who
    kind = text("outbound.kind_refused" if one.refused else f"outbound.kind_{one.kind}", language)
    times = text("outbound.times", language, count=one.count, when=f"{one.last:%Y-%m-%d %H:%M}")
    return Markup('<li data-kind="{}"><em class="tag">{}</em><b>{}</b><span>{} · {}</span></li>').format(
        one.kind, kind, place, who, times
    )
