"""Checks every query string before a route reads it: unknown and repeated parameters are refused."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from domain.errors import Invalid

_MOST_FOUND: Final = 50
"""An answer names at most this many errors."""
_LONGEST_NAME: Final = 100
"""For an unknown name with more characters, no similar name is looked for."""
_DECLARED: Final[dict[Callable[..., Any], tuple[str, ...]]] = {}
"""A cache of `_declared`, by the function of the route."""


async def acceptable(request: Request) -> None:
    """Hold a query to what its route declares: every parameter is known, and comes once.

    A filter with a misspelt name would otherwise select everything, and of two values one would be ignored.

    Raises:
        Invalid: there is a parameter that the route does not know, or a repeated one.
    """
    if request.scope["query_string"]:
        _refuse(request, unknown_too=True)


async def acceptable_to_scim(request: Request) -> None:
    """Refuse repeated parameters, and ignore unknown ones.

    SCIM clients send some of their own, such as Entra's `aadOptscim062020`, and RFC 7644 has optional ones, such as
    `sortBy`.

    Raises:
        Invalid: a parameter comes more than once.
    """
    if request.scope["query_string"]:
        _refuse(request, unknown_too=False)


def _refuse(request: Request, *, unknown_too: bool) -> None:
    route: APIRoute = request.scope["route"]
    found = [*islice(_unacceptable(_declared(route), request, unknown_too=unknown_too), _MOST_FOUND)]
    if found:
        raise Invalid(*found)


def _unacceptable(declared: tuple[str, ...], request: Request, *, unknown_too: bool) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in declared:
            if unknown_too and name not in seen:
                yield name, f"is not a known query parameter; {_instead(name, declared)}"
        elif name in seen:
            yield name, "is given more than once; give it once"
        seen.add(name)


def _instead(name: str, declared: tuple[str, ...]) -> str:
    if not declared:
        return "this route takes none"
    near = difflib.get_close_matches(name.lower(), declared, n=1) if len(name) <= _LONGEST_NAME else []
    return f"did you mean `{near[0]}`?" if near else f"there are {', '.join(f'`{each}`' for each in declared)}"


def _declared(route: APIRoute) -> tuple[str, ...]:
    """Return the names of a route's query parameters, none of which is a list."""
    known = _DECLARED.get(route.endpoint)
    if known is None:
        fields: list[Any] = get_flat_params(route.dependant)
        known = _DECLARED[route.endpoint] = tuple(
            field.alias for field in fields if isinstance(field.field_info, params.Query)
        )
    return known
