"""What a requester may send: what cannot be an answer to anything, or be stored, is refused at the edge."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.submission import Submission
from tests.domain.anything import JSON, TEXT

SENT: dict[str, Any] = {"template_id": uuid4(), "requested_duration_mins": 60}


def refused(**values: Any) -> set[int | str]:
    with pytest.raises(ValidationError) as raised:
        Submission.model_validate(SENT | values)
    return {error["loc"][0] for error in raised.value.errors()}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("template_id", "x"),
        ("requested_duration_mins", 0),
        ("requested_duration_mins", -1),
        ("requested_duration_mins", "60"),
        ("requested_duration_mins", 60.0),
        ("requested_duration_mins", True),
        ("requested_duration_mins", 2**31),
        ("requested_duration_mins", None),
        ("justification", "a\x00b"),
        ("justification", "\ud800"),
        ("justification", "x" * 10_001),
        ("justification", None),
        ("custom_answers", []),
        ("custom_answers", {"q": 1}),
        ("custom_answers", {"q": {"a": "b"}}),
        ("custom_answers", {"q": ["a", 1]}),
        ("custom_answers", {"q": [None]}),
        ("custom_answers", {"q": [True]}),
        ("custom_answers", {"q": [["a"]]}),
        ("custom_answers", {"q": "\x00"}),
        ("custom_answers", {"q": ["\ud800"]}),
        ("custom_answers", {"\x00": "a"}),
        ("custom_answers", {str(number): "a" for number in range(51)}),
        # Who asks is who authenticated, and the rest is up to the service.
        ("requester_id", str(uuid4())),
        ("status", "approved"),
        ("decided_by", "me"),
        ("expires_at", "2099-01-01T00:00:00Z"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field(field: str, value: Any) -> None:
    assert refused(**{field: value}) == {field}


@pytest.mark.parametrize("answer", ["text", "two\nlines", "", True, False, [], ["a", "b"], None])
def test_what_could_be_an_answer_is_kept_for_the_template_to_judge(answer: Any) -> None:
    assert Submission.model_validate(SENT | {"custom_answers": {"q": answer}}).custom_answers == {"q": answer}


@given(st.dictionaries(TEXT, JSON | TEXT | st.lists(TEXT, max_size=3), max_size=4))
def test_answers_that_are_taken_can_be_stored(answers: dict[str, Any]) -> None:
    try:
        taken = Submission.model_validate(SENT | {"custom_answers": answers}).custom_answers
    except ValidationError:
        return
    assert taken == answers
    for key, answer in taken.items():
        for text in (key, *(answer if isinstance(answer, list) else [answer])):
            assert text is None or isinstance(text, bool | str)
            if isinstance(text, str):
                assert "\x00" not in text
                text.encode()
