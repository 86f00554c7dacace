"""What forms say: text as it was typed, and what is wrong with it by field."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from pydantic import BeforeValidator, ValidationError
from starlette.datastructures import FormData

from domain.errors import Invalid
from domain.text import LONGEST_FILTER, made_harmless
from domain.versions import ANY_VERSION, Expected

EMPTY_IS_NONE: Final = BeforeValidator(lambda value: value or None)
"""A form sends its empty fields as well."""


def text(sent: FormData, name: str) -> str:
    """The value of a field, without blanks around it; `""` where it was left empty or out."""
    value = sent.get(name)
    return value.strip() if isinstance(value, str) else ""


def content(sent: FormData, name: str, stored: str = "") -> str:
    """Return the value of a field that holds content, exactly as it was typed, with LF at line ends.

    Browsers send every line break as CR LF (HTML, form submission), so that a form cannot tell them apart.

    Args:
        sent: the form.
        name: the field.
        stored: the value that the field was filled with; returned as it is where the field was not changed.
    """
    value = sent.get(name)
    typed = value.replace("\r\n", "\n") if isinstance(value, str) else ""
    # What a field is filled with: pages mark what turns the direction of text, browsers know one line break.
    filled = made_harmless(stored).replace("\r\n", "\n").replace("\r", "\n")
    return stored if typed == filled else typed


def values(sent: FormData, name: str) -> list[str]:
    """All values of a field that may be chosen several times."""
    return [value for value in sent.getlist(name) if isinstance(value, str) and value]


def pressed(sent: FormData) -> str:
    """Return what the button that sent a form asks for: `save`, or a step that only changes the form.

    The first button of a form is the one that the Enter key presses. In an editor with pickers it is called `enter`:
    it searches where a picker's search has changed, and saves otherwise.
    """
    step = text(sent, "do") or "save"
    if step != "enter":
        return step
    searches = [name.removeprefix("find.") for name in sent if name.startswith("find.")]
    return "find" if any(text(sent, f"find.{name}") != text(sent, f"sought.{name}") for name in searches) else "save"


def sought(sent: FormData | None, name: str) -> str:
    """Return what is searched for in the picker of a field; nothing in a form that is opened.

    Cut to the characters that its field takes: the database looks for it in every name.
    """
    return "" if sent is None else text(sent, f"find.{name}")[:LONGEST_FILTER]


def moved(chosen: list[str], step: str, name: str) -> list[str]:
    """Return `chosen` after a step `up:NAME:VALUE` or `down:NAME:VALUE`; any other step changes nothing."""
    verb, _, rest = step.partition(":")
    of, _, value = rest.partition(":")
    if verb not in {"up", "down"} or of != name or value not in chosen:
        return chosen
    at = chosen.index(value)
    others = [each for each in chosen if each != value]
    others.insert(max(at - 1, 0) if verb == "up" else at + 1, value)
    return others


def expected(sent: FormData) -> Expected:
    """Return the version that a form was filled with; any version for a form without one."""
    version = text(sent, "version")
    return Expected(frozenset({version})) if version else ANY_VERSION


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
