"""Answers to custom fields as they are typed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.people import answers
from cli.people.documents import Field


def field(label: str, kind: str = "text", *options: str, required: bool = False) -> Field:
    return {
        "id": f"id of {label}",
        "label": label,
        "type": kind,
        "required": required,
        "placeholder": "",
        "options": list(options),
    }


FIELDS = [
    field("Ticket"),
    field("Ticket=URL"),
    field("Plan", "textarea"),
    field("Region", "select", "eu-west", "eu-north", "EU-WEST"),
    field("Tables", "multi_select", "users", "orders, old", "orders"),
    field("Careful", "checkbox"),
]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["Ticket=INC-1"], {"id of Ticket": "INC-1"}),
        (["ticket=a=b"], {"id of Ticket": "a=b"}),
        (["Ticket=url=https://x/?a=b"], {"id of Ticket=URL": "https://x/?a=b"}),
        (["id of Ticket=INC-1"], {"id of Ticket": "INC-1"}),
        (["Ticket="], {"id of Ticket": ""}),
        (["Plan=one\ntwo"], {"id of Plan": "one\ntwo"}),
        (["Region=EU-WEST"], {"id of Region": "EU-WEST"}),
        (["Region=eu-n"], {"id of Region": "eu-north"}),
        (["Tables=users", "Tables=ORDERS, OLD", "Tables=users"], {"id of Tables": ["users", "orders, old"]}),
        (["Careful=Yes"], {"id of Careful": True}),
        (["Careful=off"], {"id of Careful": False}),
    ],
)
def test_what_is_understood(given: list[str], read: answers.Answers) -> None:
    assert answers.read(FIELDS, given) == read


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["Tickets=1"], "answers none of “Ticket”"),
        (["Ticket"], "answers none of"),
        (["Ticket=1", "Ticket=2"], "takes one answer"),
        (["Careful=yes", "Careful=no"], "takes one answer"),
        (["Region=eu"], "“Region” is one of: eu-west | eu-north | EU-WEST"),
        (["Tables=nothing"], "“Tables” is one of: users | orders, old | orders"),
        (["Careful=perhaps"], "answered by yes or no"),
    ],
)
def test_what_is_not(given: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        answers.read(FIELDS, given)


def test_a_template_without_questions_takes_no_answers() -> None:
    with pytest.raises(ValueError, match="asks no questions"):
        answers.read([], ["Ticket=1"])


@pytest.mark.parametrize(
    ("kind", "value", "missing"),
    [("text", "x", False), ("text", "  ", True), ("multi_select", [], True), ("checkbox", False, True)],
)
def test_a_required_answer_that_says_nothing_is_missing(
    kind: str, value: str | list[str] | bool, missing: bool
) -> None:
    asked = field("Asked", kind, required=True)
    assert answers.is_missing(asked, {asked["id"]: value}) is missing
    assert answers.is_missing(asked, {})
    assert not answers.is_missing({**asked, "required": False}, {})


labels = st.text(min_size=1, max_size=10)


@given(st.lists(labels, min_size=1, max_size=5, unique_by=str.casefold), st.data(), st.text())
def test_a_text_reaches_its_field_unchanged(labels: list[str], data: st.DataObject, value: str) -> None:
    fields = [field(label) for label in labels]
    label = data.draw(st.sampled_from(labels))
    read = answers.read(fields, [f"{label}={value}"])
    # A label may begin with another label and a sign: then the longer one is meant, wherever it fits.
    [(key, kept)] = read.items()
    assert f"{label}={value}".casefold().endswith(kept.casefold() if isinstance(kept, str) else "?")
    if not any(other != label and "=" in other for other in labels):
        assert (key, kept) == (f"id of {label}", value)


@given(st.lists(st.text(max_size=30), max_size=5))
def test_nothing_but_a_value_error_comes_of_nonsense(given: list[str]) -> None:
    try:
        answers.read(FIELDS, given)
    except ValueError:
        return
