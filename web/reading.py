"""What forms say: text as it was typed, and what is wrong with it by field."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from pydantic import BeforeValidator, ValidationError
from starlette.datastructures import FormData

from domain.errors import Invalid

EMPTY_IS_NONE: Final = BeforeValidator(lambda value: value or None)
"""A form sends its empty fields as well."""


def text(sent: FormData, name: str) -> str:
    """The value of a field, without blanks around it; `""` where it was left empty or out."""
    value = sent.get(name)
    return value.strip() if isinstance(value, str) else ""


def lines(sent: FormData, name: str) -> str:
    """The value of a field of several lines. Browsers send CR LF at line ends (HTML, form submission)."""
    return text(sent, name).replace("\r\n", "\n")


def values(sent: FormData, name: str) -> list[str]:
    """All values of a field that may be chosen several times."""
    return [value for value in sent.getlist(name) if isinstance(value, str) and value]


def from_day(first: date | None) -> datetime | None:
    """When the first day that somebody wants begins, in UTC."""
    return None if first is None else datetime.combine(first, time(), UTC)


def to_day(last: date | None) -> datetime | None:
    """When the last day that somebody wants is over, in UTC."""
    # After the last day that there is, there is no other.
    return None if last in {None, date.max} else from_day(last + timedelta(days=1))


def invalid(error: ValidationError) -> Invalid:
    """What is wrong, as the API says it."""
    return Invalid(
        *(
            (".".join(str(part) for part in each["loc"]), str(each["msg"]).removeprefix("Value error, "))
            for each in error.errors(include_input=False, include_url=False)
        )
    )
