"""What the shell offers at the Tab key, asked of the service; nothing where it does not answer at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import typer

from cli.people import credentials
from cli.people.session import person

if TYPE_CHECKING:
    import httpx

_PATIENCE_SECS: Final = 2.0
_MOST: Final = 50


def template_names(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Templates in the form that needs no quotes, each with its name."""

    def offered() -> list[tuple[str, str]]:
        from cli.people import finding, naming
        from cli.people.client import Service
        from cli.people.rendering import plain

        with Service(credentials.current(person(context)), patience_secs=0, timeout=_timeout()) as service:
            known = finding.templates(service)
        return [(naming.slug(each["name"]) or each["id"], plain(each["name"], lines=False)) for each in known]

    return _beginning(incomplete, offered)


def request_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The newest requests: those that wait for one's decision, and one's own."""

    def offered() -> list[tuple[str, str]]:
        from cli.people.client import Service
        from cli.people.documents import Page, Request
        from cli.people.rendering import plain, short

        found: dict[str, str] = {}
        with Service(credentials.current(person(context)), patience_secs=0, timeout=_timeout()) as service:
            for path in ("/access-requests/pending", "/access-requests"):
                page: Page[Request] = service.get(path, limit=_MOST)
                for each in page["items"]:
                    meaning = f"{each['template_name']}, {each['requester']['email']}, {each['status']}"
                    found.setdefault(short(each["id"]), plain(meaning, lines=False))
        return list(found.items())

    return _beginning(incomplete, offered)


def dev_people(incomplete: str) -> list[str]:
    """Whom `--as` knows in this directory."""
    return [name for name in credentials.dev_people() if name.startswith(incomplete)]


def _timeout() -> httpx.Timeout:
    from httpx import Timeout

    return Timeout(_PATIENCE_SECS)


def _beginning(incomplete: str, offered: Callable[[], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    try:
        return [(value, meaning) for value, meaning in offered() if value.startswith(incomplete.casefold())]
    except Exception:  # noqa: BLE001 - whatever it is, a message in the middle of a command line helps nobody
        return []
