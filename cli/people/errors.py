"""Why a command stops, each with the exit code that scripts go by."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final


class ExitCode(IntEnum):
    """What the command tells whoever started it; documented in docs/cli.md, so these never change."""

    REFUSED = 1
    USAGE = 2
    NOT_SIGNED_IN = 3
    UNAVAILABLE = 4
    NOT_GRANTED = 5


_WHAT_NEXT: Final = {
    "pending_request_exists": "`justiam request list --status pending` shows it, `justiam request revoke` cancels it.",
    "request_not_pending": "`justiam request show` tells what happened.",
    "request_not_active": "`justiam request show` tells what happened.",
    "decision_in_progress": "Look again in a moment with `justiam request show`.",
    "trigger_task_failed": "The request is as it was; `justiam request show` tells more.",
}
"""For each code of a refusal that has one: the way on, as far as the service's own words do not name it."""


class CommandError(Exception):
    """Base of everything that ends a command early; the message is one line for the person at the terminal."""

    exit_code: ClassVar[ExitCode]


class Refused(CommandError):
    """The service says no."""

    exit_code = ExitCode.REFUSED

    def __init__(self, code: str, detail: str, errors: list[tuple[str, str]] | None = None) -> None:
        """Take the parts of a problem document; `errors` are its fields, each with what is wrong with it."""
        super().__init__(" ".join(part for part in (f"{code}: {detail}", _WHAT_NEXT.get(code)) if part))
        self.code = code
        self.errors = errors or []


class Declined(CommandError):
    """The person at the terminal said no."""

    exit_code = ExitCode.REFUSED


class Misused(CommandError):
    """The command cannot work as it was given."""

    exit_code = ExitCode.USAGE


class NotSignedIn(CommandError):
    """There is no token, or one that the service does not take."""

    exit_code = ExitCode.NOT_SIGNED_IN


class Unavailable(CommandError):
    """The service cannot be reached, or cannot answer now."""

    exit_code = ExitCode.UNAVAILABLE


class NotGranted(CommandError):
    """The request that was watched ended without a grant."""

    exit_code = ExitCode.NOT_GRANTED
