"""What the pages have beside what the API has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.responses import Response

from api.authentication import Caller
from api.issuers import Issuers
from domain.deciding import Person
from web.cookies import Cookies
from web.live import Changes
from web.rendering import Pages


async def _pages(request: Request) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


Page = Annotated[Pages, Depends(_pages)]
"""Renders pages, for routes that also those reach who are not signed in."""


@dataclass(frozen=True)
class Visitor:
    """Somebody who is signed in, at one of the pages."""

    request: Request
    pages: Pages
    person: Person

    async def show(self, template: str, *, status: int = 200, **values: Any) -> Response:  # noqa: ANN401 - shown
        """Answer with a page (`Pages.answer`)."""
        return await self.pages.answer(self.request, template, status=status, **values)

    def back(self, to: str, said: str | None = None, kind: str = "done") -> Response:
        """Answer a form with the way to a page of ours, which says `said` once."""
        return self.pages.back(to, said, kind)


async def _visitor(request: Request, pages: Page, person: Caller) -> Visitor:
    return Visitor(request, pages, person)


async def _issuers(request: Request) -> Issuers:
    issuers: Issuers = request.app.state.issuers
    return issuers


async def _cookies(request: Request) -> Cookies:
    cookies: Cookies = request.app.state.cookies
    return cookies


async def _changes(request: Request) -> Changes:
    changes: Changes = request.app.state.changes
    return changes


Jar = Annotated[Cookies, Depends(_cookies)]
"""The browser's cookies."""

Live = Annotated[Changes, Depends(_changes)]
"""Tells open pages of changes."""

Trusted = Annotated[Issuers, Depends(_issuers)]
"""The issuers that people sign in with."""

Visit = Annotated[Visitor, Depends(_visitor)]
"""Who looks, and the way to answer them."""
