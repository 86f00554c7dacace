"""What a person at a terminal is asked. Questions go to stderr, so that results can go elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import typer

from cli.people import answers, naming
from cli.people.answers import Answers
from cli.people.documents import Field, Template
from cli.people.naming import Named, NotOne
from cli.people.rendering import plain
from cli.people.session import say
from domain import durations

T = TypeVar("T")


def template(among: Sequence[Template]) -> Template:
    """Which template to ask for."""
    say("What do you need?")
    _list([f"{each['name']} ({each['app_name']})" for each in among])

    def meant(text: str) -> Template:
        if (index := _index(text, len(among))) is not None:
            return among[index]
        try:
            identity = naming.choose(text, [Named(each["id"], each["name"]) for each in among]).id
        except NotOne as error:
            which = "several of them" if error.meant else "none of them"
            raise ValueError(f"that is {which}; type a number from 1 to {len(among)}, or a name") from None
        return next(each for each in among if each["id"] == identity)

    return _ask("Number or name", meant)


def duration(allowed: Sequence[int]) -> int:
    """For how long, in minutes."""
    choices = ", ".join(durations.spell(minutes) for minutes in sorted(allowed))

    def meant(text: str) -> int:
        minutes = durations.parse(text)
        if allowed and minutes not in allowed:
            raise ValueError(f"the template allows {choices}")
        return minutes

    default = choices if len(allowed) == 1 else None
    return _ask(f"For how long ({choices or '90m, 8h, 1d'})", meant, default=default)


def justification(*, required: bool) -> str:
    """Why."""
    return _ask("Why do you need it", _something if required else _anything, optional=not required)


def message() -> str:
    """What to say in a discussion."""
    return _ask("Message", _something)


def custom_answers(fields: Sequence[Field], given: Answers) -> Answers:
    """The answers to all fields that have none yet; what is optional can be skipped."""
    found = dict(given)
    for field in fields:
        if field["id"] in given and not answers.is_missing(field, given):
            continue
        value = _custom_answer(field)
        if value is not None:
            found[field["id"]] = value
    return found


def _custom_answer(field: Field) -> str | list[str] | bool | None:
    label, required = plain(field["label"], lines=False), field["required"]
    hint = plain(field["placeholder"], lines=False)
    question = f"{label} ({hint})" if hint else label
    match field["type"]:
        case "checkbox":
            return _tick(question, required=required)
        case "textarea":
            return _lines(question, required=required) or None
        case "select":
            say(f"{question}:")
            _list(field["options"])
            return (
                _ask(_number_or_name(required=required), lambda text: _chosen(field, text), optional=not required)
                or None
            )
        case "multi_select":
            say(f"{question}:")
            _list(field["options"])
            question = f"{_number_or_name(required=required)}; several with commas"
            return _ask(question, lambda text: _several(field, text), optional=not required) or None
        case _:
            question = question if required else f"{question} (Enter to skip)"
            return _ask(question, _something if required else _anything, optional=not required) or None


def _tick(question: str, *, required: bool) -> bool:
    while True:
        ticked = typer.confirm(question, default=None if required else False, err=True)
        if ticked or not required:
            return ticked
        say("Error: without a yes here, the request cannot be submitted; Ctrl-C leaves.")


def _lines(question: str, *, required: bool) -> str:
    """Several lines, up to an empty one."""
    while True:
        say(f"{question} (an empty line ends it):")
        lines: list[str] = []
        for line in sys.stdin:
            if not line.strip():
                break
            lines.append(line.rstrip("\r\n"))
        else:
            if not lines:
                raise typer.Abort
        if lines or not required:
            return "\n".join(lines)
        say("Error: an answer is required")


def _chosen(field: Field, text: str) -> str:
    if not text.strip():
        return ""
    index = _index(text, len(field["options"])) if text not in field["options"] else None
    return field["options"][index] if index is not None else answers.option(field, text)


def _several(field: Field, text: str) -> list[str]:
    # An option whose name has a comma can be chosen by its number, or alone.
    if text.strip() in field["options"]:
        return [text.strip()]
    several = list(dict.fromkeys(_chosen(field, part) for part in text.split(",") if part.strip()))
    if not several and field["required"]:
        raise ValueError("an answer is required")
    return several


def _something(text: str) -> str:
    if not text.strip():
        raise ValueError("an answer is required")
    return text.strip()


def _anything(text: str) -> str:
    return text.strip()


def _number_or_name(*, required: bool) -> str:
    return "Number or name" if required else "Number or name (Enter to skip)"


def _list(names: Sequence[str]) -> None:
    width = len(str(len(names)))
    for index, name in enumerate(names, start=1):
        say(f"  {index:>{width}}  {plain(name, lines=False)}")


def _index(text: str, count: int) -> int | None:
    """The place in a numbered list that `text` names; None where it is no number of the list."""
    trimmed = text.strip()
    if trimmed.isascii() and trimmed.isdecimal() and len(trimmed) < 6 and 1 <= int(trimmed) <= count:  # noqa: PLR2004
        return int(trimmed) - 1
    return None


def _ask(question: str, meant: Callable[[str], T], *, default: str | None = None, optional: bool = False) -> T:
    """Ask until `meant` can make something of the answer."""

    def convert(text: str) -> T:
        try:
            return meant(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    answer: T = typer.prompt(
        question,
        default="" if optional else default,
        show_default=not optional,
        value_proc=convert,
        err=True,
    )
    return answer
