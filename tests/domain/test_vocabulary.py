"""Names that others rely on: events, errors, cursors, durations, texts."""

from __future__ import annotations

import contextlib
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from db.paging import Position
from domain.actors import temporary_group_name, workflow_id
from domain.errors import ERRORS_BY_CODE, AccessError, Invalid, refusal
from domain.events import Event, payload
from domain.templates import TemplateValues, check_duration
from domain.text import LongText, Name, made_storable, storable
from tests.domain.anything import TEXT
from workflows.names import readable_minutes

OF_THE_DESIGN = {
    "unauthenticated",
    "forbidden",
    "not_found",
    "pending_request_exists",
    "request_not_pending",
    "request_not_active",
    "template_in_use",
    "decision_in_progress",
    "trigger_task_failed",
    "system_group",
    "in_use",
    "validation_error",
    "orchestrator_unavailable",
}


class TestEvents:
    @pytest.mark.parametrize(
        ("event", "beyond"),
        [
            (Event.SUBMITTED, {"notified_approvers"}),
            (Event.APPROVED, {"decided_by"}),
            (Event.DENIED, {"decided_by"}),
            (Event.REVOKED, set()),
            (Event.EXPIRED, set()),
            (Event.ESCALATED, set()),
        ],
    )
    def test_carry_exactly_the_keys_of_the_specification(self, event: Event, beyond: set[str]) -> None:
        said = payload(
            event,
            request_id="r",
            template_name="t",
            requester_email="a@example.com",
            notified_approvers=["b@example.com"],
            decided_by="b@example.com",
        )
        assert set(said) == {"request_id", "template_name", "requester_email"} | beyond

    def test_are_the_six_of_the_specification(self) -> None:
        assert {event.value for event in Event} == {
            f"access_request.{kind}" for kind in ("submitted", "approved", "denied", "revoked", "expired", "escalated")
        }


class TestErrors:
    def test_codes_are_those_of_the_design_and_those_for_what_is_away(self) -> None:
        later = {"changed_meanwhile", "record_unavailable", "issuer_unavailable", "secret_unreadable", "too_many_calls"}
        assert set(ERRORS_BY_CODE) == OF_THE_DESIGN | later

    def test_an_invalid_value_is_named_by_its_field(self) -> None:
        error = Invalid(("name", "is required"), ("app_id", "is unknown"))
        assert error.errors == (("name", "is required"), ("app_id", "is unknown"))
        assert error.detail == "name: is required; app_id: is unknown"

    def test_no_two_errors_share_a_code(self) -> None:
        kinds, found = [AccessError], set()
        while kinds:
            kind = kinds.pop()
            kinds += kind.__subclasses__()
            found.add(kind)
        assert len({kind.code for kind in found}) == len(found) == len(ERRORS_BY_CODE) + 1

    def test_an_error_survives_its_way_through_a_code(self) -> None:
        for code, kind in ERRORS_BY_CODE.items():
            again = refusal(code, "because")
            assert type(again) is kind
            assert again.code == code

    def test_an_unknown_code_becomes_none_of_them(self) -> None:
        assert type(refusal("surprise", "?")) is AccessError


class TestCursors:
    def test_garbage_is_refused_as_invalid(self) -> None:
        for garbage in ("", "x", "%%%", "AAAA", "MjAyNnxub3BlCg==", "é", "LTU=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5"):
            with pytest.raises(Invalid):
                Position.of(50, garbage)

    @given(st.text(max_size=80))
    def test_any_text_is_a_position_or_invalid(self, text: str) -> None:
        with contextlib.suppress(Invalid):
            Position.of(50, text)


class TestDurations:
    @given(st.integers(-10, 2000), st.lists(st.integers(1, 2000), max_size=5))
    def test_only_what_the_template_lists_can_be_asked_for(self, minutes: int, allowed: list[int]) -> None:
        fits = minutes in allowed if allowed else 1 <= minutes <= 1440
        if fits:
            check_duration(minutes, allowed, 1440)
        else:
            with pytest.raises(Invalid):
                check_duration(minutes, allowed, 1440)

    @pytest.mark.parametrize(
        ("minutes", "text"), [(1, "1 min"), (60, "1 h"), (480, "8 h"), (1440, "1 d"), (1530, "1 d 1 h 30 min")]
    )
    def test_are_said_as_people_say_them(self, minutes: int, text: str) -> None:
        assert readable_minutes(minutes) == text

    @given(st.integers(0, 2**31 - 1))
    def test_say_how_long_they_are(self, minutes: int) -> None:
        parts = readable_minutes(minutes).split()
        worth = {"d": 1440, "h": 60, "min": 1}
        assert sum(int(number) * worth[unit] for number, unit in zip(parts[::2], parts[1::2], strict=True)) == minutes
        assert [unit for unit in worth if unit in parts] == parts[1::2]


class TestTemplates:
    def test_escalating_to_the_approvers_is_refused_by_its_field(self) -> None:
        group = uuid4()
        with pytest.raises(ValidationError) as raised:
            TemplateValues(name="T", app_id=uuid4(), approver_group_ids=[group], escalation_group_id=group)
        assert [error["loc"] for error in raised.value.errors()] == [("escalation_group_id",)]

    @pytest.mark.parametrize("field", ["mapping_ids", "approver_group_ids", "allowed_group_ids"])
    def test_a_list_names_nothing_twice(self, field: str) -> None:
        twice = [uuid4()] * 2
        with pytest.raises(ValidationError, match="twice"):
            TemplateValues.model_validate({"name": "T", "app_id": uuid4(), field: twice})


class TestTexts:
    @given(TEXT)
    def test_what_is_accepted_can_be_stored(self, text: str) -> None:
        try:
            accepted: str = TypeAdapter(LongText).validate_python(text)
        except ValidationError:
            return
        assert "\x00" not in accepted
        accepted.encode()

    @pytest.mark.parametrize(
        "text",
        ["", "  ", "\n", "x" * 201, "a\ud800", *(f"a{char}b" for char in "\0\n\r\t\x0b\x1b\x7f\x85\x9b\u2028\u2029")],
    )
    def test_a_name_is_one_line(self, text: str) -> None:
        with pytest.raises(ValidationError):
            TypeAdapter(Name).validate_python(text)

    @given(TEXT)
    def test_a_name_that_is_accepted_is_shown_on_one_line(self, text: str) -> None:
        try:
            accepted: str = TypeAdapter(Name).validate_python(text)
        except ValidationError:
            return
        assert accepted.splitlines() == [accepted]
        accepted.encode()

    @pytest.mark.parametrize("text", ["a", "é", "数据库", "a b", "👩\u200d💻", "x" * 200, "\u00a0x y"])
    def test_a_name_may_be_in_any_script(self, text: str) -> None:
        assert TypeAdapter(Name).validate_python(text)

    @given(TEXT)
    def test_what_is_reported_can_be_stored_and_is_left_alone_where_it_can(self, text: str) -> None:
        made = made_storable(text)
        assert storable(made) == made
        assert len(made) == len(text)
        with contextlib.suppress(ValueError):
            assert storable(text) == made


class TestNames:
    def test_are_those_of_the_specification_and_the_design(self) -> None:
        request_id = UUID(int=1)
        assert temporary_group_name(request_id) == f"__access_req_{request_id}"
        assert workflow_id(request_id) == f"access-request-{request_id}"
