"""From what somebody types to the template or request that they mean."""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

from cli.people import naming
from cli.people.client import Service
from cli.people.documents import Request, Template
from cli.people.errors import Misused, Refused
from cli.people.naming import Named, NotOne
from cli.people.rendering import plain, short

_WHOLE_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PART_OF_ID: Final = re.compile(r"[0-9a-f][0-9a-f-]{3,35}")
_RECENT: Final = 1000
"""How many of the newest requests a part of an id is looked for in."""


def templates(service: Service) -> list[Template]:
    """All templates, by name."""
    found: list[Template] = list(service.every("/access-request-templates"))
    return sorted(found, key=lambda template: template["name"].casefold())


def template(service: Service, wanted: str) -> Template:
    """The template with this name, part of a name, or id.

    Raises:
        Misused: none or several could be meant.
    """
    known = templates(service)
    try:
        meant = naming.choose(wanted, [Named(each["id"], each["name"]) for each in known])
    except NotOne as error:
        listed = ", ".join(f"{plain(each.name, lines=False)} ({short(each.id)})" for each in error.meant)
        if listed:
            raise Misused(f"“{wanted}” could be: {listed}. Write more of the name, or the id.") from None
        raise Misused(f"There is no template “{wanted}”. `justiam template list` shows them.") from None
    return next(each for each in known if each["id"] == meant.id)


def request_id(service: Service, wanted: str) -> str:
    """The whole id of a request of which the beginning is given.

    Looked for among one's own requests, those that wait for one's decision and, for administrators, all.

    Raises:
        Misused: it is no part of an id, or none or several requests could be meant.
    """
    text = wanted.strip().casefold()
    if _WHOLE_ID.fullmatch(text):
        return text
    if not _PART_OF_ID.fullmatch(text):
        raise Misused(
            f"“{wanted}” is no request's id. `justiam request list` shows them; four characters may be enough."
        )
    found = _beginning(service, text, "/access-requests") | _beginning(service, text, "/access-requests/pending")
    if not found:
        try:
            found = _beginning(service, text, "/access-requests/all")
        except Refused:
            # Not an administrator.
            found = {}
    if len(found) == 1:
        return next(iter(found))
    if found:
        listed = ", ".join(f"{each['id']} ({plain(each['template_name'], lines=False)})" for each in found.values())
        raise Misused(f"{wanted} could be: {listed}. Write more of it.")
    raise Misused(
        f"None of your requests, nor of those that wait for you, begins with {wanted}. "
        "For another that you may see, write its whole id."
    )


def request(service: Service, wanted: str) -> Request:
    """The request with this id or the beginning of one.

    Raises:
        CommandError: there is none, or it is not for the caller to see.
    """
    found: Request = service.get(f"/access-requests/{request_id(service, wanted)}")
    return found


def _beginning(service: Service, text: str, path: str) -> dict[str, Request]:
    recent: islice[Request] = islice(service.every(path), _RECENT)
    return {each["id"]: each for each in recent if each["id"].startswith(text)}
