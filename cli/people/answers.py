"""Answers to a template's custom fields, as they are typed: `--answer "Label=value"`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cli.people import naming
from cli.people.documents import Field
from cli.people.naming import Named, NotOne

Answers = dict[str, str | list[str] | bool]
"""By the field's id, as the API takes them."""

_YES: Final = frozenset({"yes", "y", "true", "on", "1"})
_NO: Final = frozenset({"no", "n", "false", "off", "0"})


def read(fields: Sequence[Field], given: Sequence[str]) -> Answers:
    """The answers that the options on a command line give.

    Args:
        fields: the template's fields.
        given: `label=value` or `id=value` each; for a field of several choices one for each choice.

    Raises:
        ValueError: one names no field or does not fit its field.
    """
    answers: Answers = {}
    for text in given:
        field, value = _split(fields, text)
        key, fit = field["id"], fitting(field, value)
        earlier = answers.get(key)
        if isinstance(earlier, list) and isinstance(fit, list):
            earlier += [choice for choice in fit if choice not in earlier]
        elif earlier is not None:
            raise ValueError(f"“{field['label']}” takes one answer, and was given several")
        else:
            answers[key] = fit
    return answers


def fitting(field: Field, value: str) -> str | list[str] | bool:
    """One typed value as its field takes it.

    Raises:
        ValueError: it is no option of the field, or neither yes nor no.
    """
    match field["type"]:
        case "checkbox":
            word = value.strip().casefold()
            if word not in _YES | _NO:
                raise ValueError(f"“{field['label']}” is answered by yes or no")
            return word in _YES
        case "select":
            return option(field, value) if value.strip() else ""
        case "multi_select":
            return [option(field, value)] if value.strip() else []
        case _:
            return value


def option(field: Field, value: str) -> str:
    """The option that is meant, by its name in any case or the beginning of it.

    Raises:
        ValueError: none or several could be.
    """
    # Exactly as it is written first: two options may differ in nothing but their case.
    if value in field["options"]:
        return value
    try:
        return naming.choose(value, [Named("", each) for each in field["options"]]).name
    except NotOne:
        options = " | ".join(field["options"])
        raise ValueError(f"“{field['label']}” is one of: {options}") from None


def is_missing(field: Field, answers: Answers) -> bool:
    """Whether a required field has no answer."""
    value = answers.get(field["id"])
    return field["required"] and (not value or (isinstance(value, str) and not value.strip()))


def _split(fields: Sequence[Field], text: str) -> tuple[Field, str]:
    fields_by_name = {
        naming.folded(name): field for field in reversed(fields) for name in (field["id"], field["label"])
    }
    # The last sign that follows a name: a label may hold the sign itself, and begin like another one.
    for at in (index for index in range(len(text) - 1, 0, -1) if text[index] == "="):
        if (field := fields_by_name.get(naming.folded(text[:at]))) is not None:
            return field, text[at + 1 :]
    labels = ", ".join(f"“{field['label']}”" for field in fields)
    if not fields:
        raise ValueError("this template asks no questions of its own")
    raise ValueError(f"{text!r} answers none of {labels}; write it as in --answer '{fields[0]['label']}=…'")
