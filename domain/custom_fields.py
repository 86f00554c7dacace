"""Extra questions of a template, and the answers to them (specification, Custom Fields)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Self
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field, model_validator

from domain.errors import Invalid
from domain.text import Name, ShortText, composed, is_visible

_FIELD_IDS: Final = UUID("5bd6f1a4-3df1-5b43-9c3b-5a8f6f1d2c11")
_TEXT_LIMIT: Final = {"text": 1000, "textarea": 10_000}

Answers = dict[str, str | list[str] | bool]
"""Answers by the field's UUID: text for the text types and `select`, a list for `multi_select`, true or false for
`checkbox`."""


class FieldType(StrEnum):
    """How a field is asked for."""

    TEXT = "text"
    TEXTAREA = "textarea"
    SELECT = "select"
    MULTI_SELECT = "multi_select"
    CHECKBOX = "checkbox"


_WITH_OPTIONS: Final = frozenset({FieldType.SELECT, FieldType.MULTI_SELECT})


class CustomField(BaseModel):
    """One question.

    Without an `id` of its own it gets one derived from its label: the same template sent again keeps its ids.
    """

    model_config = ConfigDict(extra="forbid")

    id: UUID | None = Field(default=None, description="Key of the answer; derived from the label when left out.")
    label: Name = Field(description="Shown above the input.")
    type: FieldType = Field(description="Input type.")
    required: bool = Field(default=False, description="Refuse the submission when the answer is empty.")
    placeholder: ShortText = Field(default="", description="Hint inside the input.")
    options: Annotated[list[Name], Field(max_length=200)] = Field(
        default_factory=list, description="What may be chosen in `select` and `multi_select`."
    )

    @model_validator(mode="after")
    def _settle(self) -> Self:
        if self.type in _WITH_OPTIONS and not self.options:
            msg = f"a field of type {self.type} needs at least one option"
            raise ValueError(msg)
        if self.type not in _WITH_OPTIONS and self.options:
            msg = f"options belong to select and multi_select, not to {self.type}"
            raise ValueError(msg)
        if len(set(self.options)) != len(self.options):
            msg = "options must differ from each other"
            raise ValueError(msg)
        if self.id is None:
            self.id = uuid5(_FIELD_IDS, self.label)
        return self

    @property
    def key(self) -> str:
        """Where the answer stands in `custom_answers`."""
        return str(self.id)


def refuse_ambiguous(fields: list[CustomField]) -> list[CustomField]:
    """Labels and ids must tell fields apart.

    Raises:
        ValueError: two fields share a label or an id.
    """
    for what, values in (("label", [field.label for field in fields]), ("id", [field.key for field in fields])):
        if len(set(values)) != len(values):
            msg = f"two custom fields have the same {what}"
            raise ValueError(msg)
    return fields


def check_answers(fields: list[CustomField], answers: dict[str, Any]) -> Answers:
    """The answers as they are kept: those that were given, each held to its field.

    Raises:
        Invalid: an unknown field, a missing required answer or one that does not fit, each named by its field.
    """
    known = {field.key: field for field in fields}
    unknown = sorted(answers.keys() - known.keys())
    errors = [(f"custom_answers.{key}", "the template has no such field") for key in unknown]
    kept: Answers = {}
    for key, field in known.items():
        value = answers.get(key)
        # What is too long is refused below, and not composed: that takes time.
        if isinstance(value, str) and len(value) <= _TEXT_LIMIT.get(field.type, 0):
            try:
                value = composed(value)
            except ValueError as error:
                errors.append((f"custom_answers.{key}", f"“{field.label}” {error}"))
                continue
        problem = _misfit(field, value) if value is not None else None
        if problem is None and field.required and _is_empty(value):
            problem = "must be ticked" if field.type is FieldType.CHECKBOX else "is required"
        if problem is not None:
            errors.append((f"custom_answers.{key}", f"“{field.label}” {problem}"))
        elif value is not None:
            kept[key] = value
    if errors:
        raise Invalid(*errors)
    return kept


def _is_empty(value: object) -> bool:
    return not value or (isinstance(value, str) and not is_visible(value))


def _misfit(field: CustomField, value: object) -> str | None:
    match field.type:
        case FieldType.CHECKBOX:
            return None if isinstance(value, bool) else "must be true or false"
        case FieldType.MULTI_SELECT:
            if not isinstance(value, list) or len(set(map(repr, value))) != len(value):
                return "must be a list of different options"
            return None if all(item in field.options for item in value) else _choices(field)
        case FieldType.SELECT:
            chosen = isinstance(value, str) and (value in field.options or (not value and not field.required))
            return None if chosen else _choices(field)
        case FieldType.TEXT | FieldType.TEXTAREA:
            limit = _TEXT_LIMIT[field.type]
            fits = isinstance(value, str) and len(value) <= limit
            return None if fits else f"must be text of at most {limit} characters"


def _choices(field: CustomField) -> str:
    return "must be chosen from: " + ", ".join(field.options)
