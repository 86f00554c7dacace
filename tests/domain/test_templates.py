"""What a template may say (specification, Arguments), and what a snapshot keeps of it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.templates import GrantedMapping, NotificationPolicy, Snapshot, TemplateValues, TriggerFailureMode
from tests.domain.anything import JSON

APP, GROUP = uuid4(), uuid4()
OF_THE_SPECIFICATION: dict[str, Any] = {
    "description": "",
    "mapping_ids": [],
    "allowed_durations": [],
    "approver_group_ids": [],
    "allowed_group_ids": [],
    "prefer_requester_groups": False,
    "require_justification": True,
    "auto_approve": False,
    "notification_policy": "all",
    "notification_count": 1,
    "escalation_after_mins": None,
    "escalation_group_id": None,
    "custom_fields": [],
    "trigger_task_id": None,
    "trigger_task_failure_mode": "ignore",
}
"""Every argument that need not be given, with its default."""


def values(**given: Any) -> TemplateValues:
    return TemplateValues.model_validate({"name": "T", "app_id": APP, **given})


def refused(field: str, value: Any) -> list[tuple[int | str, ...]]:
    with pytest.raises(ValidationError) as raised:
        values(**{field: value})
    return [error["loc"] for error in raised.value.errors()]


def test_what_is_left_out_has_the_default_of_the_specification() -> None:
    assert values().model_dump(mode="json") == {"name": "T", "app_id": str(APP), **OF_THE_SPECIFICATION}


@pytest.mark.parametrize("field", ["name", "app_id"])
def test_what_has_no_default_is_required(field: str) -> None:
    given = {"name": "T", "app_id": APP}
    del given[field]
    with pytest.raises(ValidationError) as raised:
        TemplateValues.model_validate(given)
    assert [(error["loc"], error["type"]) for error in raised.value.errors()] == [((field,), "missing")]


def test_policies_and_modes_are_those_of_the_specification() -> None:
    assert [policy.value for policy in NotificationPolicy] == ["all", "first_n", "random_n", "round_robin"]
    assert [mode.value for mode in TriggerFailureMode] == ["ignore", "retry", "block"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("allowed_durations", [0]),
        ("allowed_durations", [-60]),
        ("allowed_durations", ["60"]),
        ("allowed_durations", [60.0]),
        ("allowed_durations", [True]),
        ("allowed_durations", [60, 60]),
        ("allowed_durations", [2**31]),
        ("notification_count", 0),
        ("notification_count", 1001),
        ("notification_count", "2"),
        ("notification_count", True),
        ("notification_policy", "loudest"),
        ("escalation_after_mins", 0),
        ("escalation_after_mins", 525_601),
        ("escalation_after_mins", 0.5),
        ("escalation_group_id", "dba_team"),
        ("trigger_task_failure_mode", "explode"),
        ("approver_group_ids", [GROUP, GROUP]),
        ("approver_group_ids", [str(GROUP), str(GROUP).upper()]),
        ("approver_group_ids", GROUP),
        ("mapping_ids", [None]),
        ("custom_fields", [{"label": "A", "type": "text"}, {"label": "A", "type": "checkbox"}]),
        ("name", ""),
        ("name", "two\nlines"),
        ("name", "x" * 201),
        ("description", "x" * 10_001),
        ("description", "a\x00b"),
        ("served_joined", 5),
        ("id", GROUP),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field(field: str, value: Any) -> None:
    assert {location[0] for location in refused(field, value)} == {field}


@given(st.sampled_from(sorted(OF_THE_SPECIFICATION | {"name": None, "app_id": None})), JSON)
def test_anything_at_all_is_taken_or_refused(field: str, value: Any) -> None:
    try:
        taken = values(**{field: value})
    except ValidationError:
        return
    # What was taken is said again without loss: templates are stored and sent as JSON.
    assert TemplateValues.model_validate_json(taken.model_dump_json()) == taken


def test_a_snapshot_is_the_template_with_what_its_mappings_meant() -> None:
    template = values(
        custom_fields=[{"label": "Ticket", "type": "text"}], approver_group_ids=[GROUP], allowed_durations=[60, 30]
    )
    mapping = GrantedMapping(id=uuid4(), name="read-only", claim="roles", value="db_readonly")
    stored = json.loads(json.dumps(Snapshot(**template.model_dump(), mappings=[mapping]).model_dump(mode="json")))
    again = Snapshot.model_validate(stored)
    assert TemplateValues.model_validate(again.model_dump(exclude={"mappings"})) == template
    assert again.mappings == [mapping]
    assert again.custom_fields[0].id == template.custom_fields[0].id, "the answers' keys stay"


def test_the_ids_of_its_questions_stay_when_it_is_sent_again() -> None:
    sent = {"custom_fields": [{"label": "Ticket", "type": "text"}, {"label": "Why", "type": "textarea"}]}
    first, again = values(**sent), values(**sent)
    assert [field.key for field in first.custom_fields] == [field.key for field in again.custom_fields]
    renamed = values(custom_fields=[{"label": "Ticket", "type": "select", "options": ["a"]}], name="Other")
    assert renamed.custom_fields[0].key == first.custom_fields[0].key
    assert all(UUID(field.key) for field in first.custom_fields)
