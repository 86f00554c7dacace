"""Pages from templates: what every page has, and how values are shown to people."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote, urlencode
from uuid import UUID, uuid4

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, RedirectResponse, Response

from db import requests
from domain.actors import Permission, SystemActor
from domain.deciding import Person
from domain.errors import Invalid
from domain.text import made_harmless
from settings import Settings
from web.cookies import Cookies

_HOUR: Final = 60
_DAY: Final = 24 * _HOUR

_ACTORS: Final = {
    SystemActor.AUTO: "the template itself",
    SystemActor.OPERATOR: "an operator, in Temporal",
    SystemActor.DEACTIVATED: "the service, since the account was deactivated",
    SystemActor.EXPIRY: "the end of the granted time",
    SystemActor.ESCALATION: "the service",
    SystemActor.TRIGGER: "the task that has to succeed first",
}


class Pages:
    """Renders the pages of one application."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cookies = Cookies(settings)
        self._templates = Environment(
            loader=PackageLoader("web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            enable_async=False,
            finalize=_harmless,
        )
        self._templates.filters.update(
            duration=duration,
            moment=moment,
            countdown=countdown,
            actor=actor,
            clock=clock,
            span=span,
            path_part=path_part,
        )
        self._templates.globals.update(
            asset=_assets().__getitem__,
            Permission=Permission,
            temporal_ui_url=settings.temporal_ui_url,
            temporal_namespace=settings.temporal_namespace,
            query=query,
            unique=uuid4,
        )

    async def answer(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        **values: Any,  # noqa: ANN401 - what the template shows
    ) -> Response:
        """A page.

        Args:
            request: what it answers; somebody is signed in if `web.authentication.signed_in` said so.
            template: its file.
            status: of the response.
            values: what the template shows. `errors` are a form's, by field; without, there are none. `conflict` is
                what was changed since a form was opened.
        """
        person: Person | None = getattr(request.state, "person", None)
        awaiting = await self._awaiting(request, person) if person else 0
        return self._render(request, template, status, person, {"awaiting": awaiting, **values})

    def refusal(self, request: Request, status: int, title: str, detail: str) -> Response:
        """A page that says no. Reads nothing: the database may be what is missing."""
        person: Person | None = getattr(request.state, "person", None)
        values = {"awaiting": 0, "title": title, "detail": detail}
        return self._render(request, "refusal.html", status, person, values)

    def leading_away(self, request: Request, template: str, **values: Any) -> Response:  # noqa: ANN401 - shown
        """A page for somebody who is signed in no more."""
        return self._render(request, template, 200, None, {"awaiting": 0, **values})

    def _render(
        self, request: Request, template: str, status: int, person: Person | None, values: dict[str, Any]
    ) -> Response:
        flash = self._cookies.flashed(request.cookies)
        shown = {
            "errors": {},
            "conflict": None,
            "person": person,
            "path": request.scope["path"],
            "flash": flash,
            "now": datetime.now(UTC),
            "form_token": self._cookies.form_token(request.state.session) if person else None,
            **values,
        }
        response = HTMLResponse(self._templates.get_template(template).render(shown), status_code=status)
        if flash is not None:
            self._cookies.forget_flash(response)
        return response

    def back(self, to: str, said: str | None = None, kind: str = "done") -> Response:
        """After a form: to the page `to`, which says `said` once."""
        response = RedirectResponse(to, status_code=303)
        return response if said is None else self._cookies.flash(response, said, kind)

    @staticmethod
    async def _awaiting(request: Request, person: Person) -> int:
        async with request.app.state.database.connection() as connection:
            return await requests.count_awaiting(connection, person)


def by_field(error: Invalid) -> dict[str, str]:
    """What is wrong with each field of a form, as sentences."""
    found: dict[str, str] = {}
    for field, message in error.errors:
        found.setdefault(field, message[:1].upper() + message[1:] + ("" if message.endswith(".") else "."))
    return found


def duration(minutes: float) -> str:
    """Minutes as people say them: `8 hours`, `1 day 2 hours`, `45 minutes`."""
    whole = int(minutes)
    parts = [(whole // _DAY, "day"), (whole % _DAY // _HOUR, "hour"), (whole % _HOUR, "minute")]
    said = [f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in parts if count]
    return " ".join(said[:2]) or "less than a minute"


def moment(at: datetime | None) -> Markup:
    """A point in time. The reader's browser shows it in their time zone, and the exact UTC on hover."""
    if at is None:
        return Markup("&ndash;")
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC" data-moment>{} UTC</time>').format(
        utc.isoformat(timespec="seconds").replace("+00:00", "Z"), f"{utc:%Y-%m-%d %H:%M:%S}", f"{utc:%d %b %Y, %H:%M}"
    )


def clock(span: timedelta) -> str:
    """A span of time as a person reads it off a clock: `2 h 05 min`, `4 min`, `12 s`."""
    seconds = max(0, int(span.total_seconds()))
    days, hours, minutes = seconds // 86_400, seconds // 3_600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


def span(seconds: float | None) -> str:
    """Seconds as `clock` shows them, or that there are none."""
    return "\N{EN DASH}" if seconds is None else clock(timedelta(seconds=seconds))


def countdown(until: datetime | None, now: datetime) -> Markup:
    """How long it is until `until`; the reader's browser counts on."""
    if until is None:
        return Markup("&ndash;")
    utc = until.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC" data-countdown>{}</time>').format(
        utc.isoformat(timespec="seconds").replace("+00:00", "Z"), f"{utc:%Y-%m-%d %H:%M:%S}", clock(until - now)
    )


def actor(name: str | None) -> str:
    """Who did something, in words where it was the service itself."""
    return _ACTORS.get(name, name) if name else "nobody"  # type: ignore[call-overload]


def path_part(value: str | UUID) -> str:
    """A value as a part of a path."""
    return quote(str(value), safe="")


def query(**values: object) -> str:
    """A query string of what is set, `""` where nothing is."""
    kept = {name: str(value) for name, value in values.items() if value not in {None, ""}}
    return "?" + urlencode(kept) if kept else ""


def _harmless(value: Any) -> Any:  # noqa: ANN401 - whatever a template shows
    """Return `value` as a page may show it: text that was kept before it was checked, or that others have written."""
    return made_harmless(value) if type(value) is str else value


def _assets() -> dict[str, str]:
    """The path of each static file, with a mark of its content: it may be kept for ever."""
    paths = {}
    for file in files("web").joinpath("static").iterdir():
        mark = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        paths[file.name] = f"/static/{file.name}?{mark}"
    return paths
