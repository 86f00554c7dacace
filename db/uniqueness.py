"""Names that are taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import IntegrityError

from domain.errors import InUse


@contextmanager
def unique(taken: Mapping[str, str]) -> Iterator[None]:
    """Around a transaction that writes.

    Args:
        taken: what to say when the unique index of this name is violated.

    Raises:
        InUse: another row has the same value.
    """
    try:
        yield
    except IntegrityError as error:
        violated = (error.orig.diag.constraint_name or "") if isinstance(error.orig, psycopg.Error) else ""
        if violated not in taken:
            raise
        raise InUse(taken[violated]) from error
