"""Extra questions and their answers (specification, Custom Fields)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.custom_fields import CustomField, FieldType, check_answers, refuse_ambiguous
from domain.errors import Invalid
from tests.domain.anything import JSON, TEXT

CHOICES = ["staging", "production"]


def field(kind: str, *, required: bool = False, label: str = "Question") -> CustomField:
    options = CHOICES if kind in {"select", "multi_select"} else []
    return CustomField.model_validate({"label": label, "type": kind, "required": required, "options": options})


def refused(field: CustomField, value: Any) -> str:
    with pytest.raises(Invalid) as raised:
        check_answers([field], {} if value is ... else {field.key: value})
    ((name, message),) = raised.value.errors
    assert name == f"custom_answers.{field.key}"
    return message


class TestDefinition:
    @pytest.mark.parametrize("kind", FieldType)
    def test_every_type_can_be_asked_for(self, kind: FieldType) -> None:
        assert field(kind).type is kind

    @pytest.mark.parametrize("kind", ["select", "multi_select"])
    def test_a_choice_needs_options(self, kind: str) -> None:
        with pytest.raises(ValidationError, match="at least one option"):
            CustomField.model_validate({"label": "Q", "type": kind})

    @pytest.mark.parametrize("kind", ["text", "textarea", "checkbox"])
    def test_nothing_else_has_options(self, kind: str) -> None:
        with pytest.raises(ValidationError, match="options belong to"):
            CustomField.model_validate({"label": "Q", "type": kind, "options": ["a"]})

    @pytest.mark.parametrize(
        "wrong",
        [
            {"label": "", "type": "text"},
            {"label": "two\nlines", "type": "text"},
            {"label": "Q", "type": "date"},
            {"label": "Q", "type": "text", "colour": "red"},
            {"label": "Q", "type": "select", "options": ["a", "a"]},
            {"label": "Q\x00", "type": "text"},
        ],
    )
    def test_what_does_not_make_a_question_is_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            CustomField.model_validate(wrong)

    def test_the_same_template_sent_again_has_the_same_ids(self) -> None:
        assert field("text").id == field("text").id == field("select").id
        assert field("text").id != field("text", label="Another").id

    def test_an_id_of_its_own_is_kept(self) -> None:
        own = uuid4()
        assert CustomField(id=own, label="Q", type=FieldType.TEXT).id == own

    def test_labels_and_ids_tell_fields_apart(self) -> None:
        with pytest.raises(ValueError, match="same label"):
            refuse_ambiguous([field("text"), field("checkbox")])
        own = uuid4()
        twins = [CustomField(id=own, label=label, type=FieldType.TEXT) for label in ("A", "B")]
        with pytest.raises(ValueError, match="same id"):
            refuse_ambiguous(twins)


class TestAnswers:
    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            ("text", "INC-1"),
            ("textarea", "two\nlines"),
            ("select", "staging"),
            ("multi_select", ["production", "staging"]),
            ("multi_select", []),
            ("checkbox", True),
            ("checkbox", False),
        ],
    )
    def test_what_fits_is_kept_as_it_was_given(self, kind: str, value: Any) -> None:
        asked = field(kind)
        assert check_answers([asked], {asked.key: value}) == {asked.key: value}

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            ("text", 1),
            ("text", "x" * 1001),
            ("text", ["a"]),
            ("textarea", "x" * 10_001),
            ("textarea", True),
            ("select", "moon"),
            ("select", ["staging"]),
            ("multi_select", "staging"),
            ("multi_select", ["staging", "staging"]),
            ("multi_select", ["moon"]),
            ("multi_select", [["staging"]]),
            ("checkbox", "true"),
            ("checkbox", 1),
        ],
    )
    def test_what_does_not_fit_is_refused_by_its_field(self, kind: str, value: Any) -> None:
        assert "Question" in refused(field(kind), value)

    @pytest.mark.parametrize(
        ("kind", "empty"),
        [
            ("text", ""),
            ("text", "  "),
            ("textarea", "\n"),
            ("select", ""),
            ("multi_select", []),
            ("checkbox", False),
            *[(str(kind), None) for kind in FieldType],
            *[(str(kind), ...) for kind in FieldType],
        ],
    )
    def test_a_required_answer_must_not_be_empty(self, kind: str, empty: Any) -> None:
        refused(field(kind, required=True), empty)

    @pytest.mark.parametrize("kind", FieldType)
    def test_an_optional_answer_may_be_left_out(self, kind: FieldType) -> None:
        asked = field(kind)
        assert check_answers([asked], {}) == check_answers([asked], {asked.key: None}) == {}

    def test_every_problem_is_named_at_once(self) -> None:
        first, second = field("text", required=True, label="A"), field("checkbox", label="B")
        with pytest.raises(Invalid) as raised:
            check_answers([first, second], {second.key: "yes", "unknown": "x"})
        assert {name for name, _ in raised.value.errors} == {
            f"custom_answers.{key}" for key in (first.key, second.key, "unknown")
        }

    @given(st.sampled_from(FieldType), st.booleans(), JSON | st.sampled_from([*CHOICES, [*CHOICES], True, False]))
    def test_whatever_is_sent_is_kept_as_it_was_or_refused(
        self,
        kind: FieldType,
        required: bool,
        value: Any,
    ) -> None:
        asked = field(kind, required=required)
        try:
            kept = check_answers([asked], {asked.key: value})
        except Invalid:
            assert "Question" in refused(asked, value)
            return
        assert kept == ({} if value is None else {asked.key: value})
        assert kept or not required
        if kept:
            match kind:
                case FieldType.CHECKBOX:
                    assert isinstance(value, bool)
                case FieldType.SELECT:
                    assert value in CHOICES or (value == "" and not required)
                case FieldType.MULTI_SELECT:
                    assert set(value) <= set(CHOICES)
                case _:
                    assert isinstance(value, str)

    @given(st.dictionaries(TEXT, JSON, max_size=4))
    def test_nothing_is_kept_that_was_not_asked_for(self, answers: dict[str, Any]) -> None:
        if answers:
            with pytest.raises(Invalid) as raised:
                check_answers([], answers)
            assert [name for name, _ in raised.value.errors] == [f"custom_answers.{key}" for key in sorted(answers)]
        else:
            assert check_answers([], answers) == {}


def test_an_answer_that_is_too_long_is_refused_before_it_is_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The time that it takes to put marks in order is the square of their number; a body has room for 100,000.
    monkeypatch.setattr("domain.custom_fields.composed", lambda value: pytest.fail(f"composed {len(value)} characters"))
    field = CustomField(label="Ticket", type=FieldType.TEXTAREA)
    with pytest.raises(Invalid, match="at most 10000 characters"):
        check_answers([field], {field.key: "\u0301\u0316" * 5001})
