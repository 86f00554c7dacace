"""Commands that work on the record directly, for whoever runs the service."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from cli.explaining import checked_settings, fail, unreachable_explained

if TYPE_CHECKING:
    from db.database import Database

T = TypeVar("T")


def operator() -> str:
    """Who runs a command, as the audit log names them."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):
        # A container whose user has no name.
        account = str(os.getuid())
    return f"operator:{account}"


def on_record(work: Callable[[Database], Awaitable[T]]) -> T:
    """Do `work` with the record, or end the command with what an operator can mend."""
    from db import acting
    from db.database import Database
    from domain.errors import AccessError

    settings = checked_settings()

    async def connected() -> T:
        acting.note(operator())
        async with Database(settings.database_url.get_secret_value(), max_connections=1) as db:
            return await work(db)

    try:
        with unreachable_explained(settings):
            return asyncio.run(connected())
    except AccessError as error:
        fail(f"{error.code}: {error.detail}")
