"""What forms say: text as it was typed, and what is wrong with it by field."""

from __future__ import annotations

from pydantic import ValidationError
from starlette.datastructures import FormData

from domain.errors import Invalid


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


def invalid(error: ValidationError) -> Invalid:
    """What is wrong, as the API says it."""
    return Invalid(
        *(
            (".".join(str(part) for part in each["loc"]), str(each["msg"]).removeprefix("Value error, "))
            for each in error.errors(include_input=False, include_url=False)
        )
    )
