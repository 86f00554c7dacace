"""What text may hold: it can be seen, it stays in its place, and it compares equal to what looks the same."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from domain.claims import ClaimValue
from domain.custom_fields import CustomField, check_answers
from domain.directory import UserValues, refuse_reserved
from domain.errors import Invalid, SystemGroup
from domain.integrations import IntegrationValues
from domain.newcomers import newcomer
from domain.tasks import TaskValues
from domain.templates import TemplateValues
from domain.text import (
    STORED,
    UNSEEN,
    FilterText,
    LongText,
    Name,
    ShortText,
    composed,
    in_a_cell,
    is_visible,
    made_harmless,
    named,
    storable,
)
from domain.transitions import Decision

NAME: Final = TypeAdapter[str](Name)
LONG: Final = TypeAdapter[str](LongText)

INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2800\u3164\ufeff\uffa0"
)
TURNING: Final = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# Weighted towards what the rules are about; any character at all besides.
ODD: Final = st.text(
    st.sampled_from(INVISIBLE + TURNING + "ab é\u0301\u00a0\u3000\ufe0f\U0001f469\U0001f4bb\u0645\u06cc\u0915\u094d")
    | st.characters(codec="utf-8", exclude_characters="\0"),
    max_size=12,
)


@pytest.mark.parametrize("char", INVISIBLE + TURNING)
@pytest.mark.parametrize("around", ["{}", "dba_team{}", "{}dba_team", "dba{}team"])
def test_a_name_has_nothing_that_cannot_be_seen(char: str, around: str) -> None:
    with pytest.raises(ValidationError, match=f"U\\+{ord(char):04X} "):
        NAME.validate_python(around.format(char))


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("Zoe\u0308", "Zo\u00eb"),
        ("dba\u00a0team", "dba team"),
        ("  dba \u3000 team ", "dba team"),
        ("\U0001f6e1\ufe0f Security", "\U0001f6e1 Security"),
        # A Persian word with its joiner, a Hindi one with its own, and somebody at a computer.
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", None),
        ("\u0915\u094d\u200d\u0937", None),
        ("\U0001f469\U0001f3fd\u200d\U0001f4bb", None),
        ("\u05e9\u05dc\u05d5\u05dd dba", None),
    ],
)
def test_a_name_is_kept_in_one_form(sent: str, kept: str | None) -> None:
    assert NAME.validate_python(sent) == (kept or sent)


@pytest.mark.parametrize(
    "text", ["", " ", "\u200b", "\u3164", "\u2800\u2800", "\u0301", "\u200d\n", "\ue000", "\ufdd0", "\U0001d159"]
)
def test_blank_to_the_eye_is_blank(text: str) -> None:
    assert not is_visible(text)
    field = CustomField.model_validate({"label": "Why", "type": "textarea", "required": True})
    with pytest.raises(Invalid, match="is required"):
        check_answers([field], {field.key: text})


def test_text_of_several_lines_keeps_what_is_invisible_and_refuses_what_turns_others() -> None:
    kept = "\U0001f469\u200d\U0001f4bb \u2764\ufe0f\n\u05e9\u200f(1)\u200b"
    assert LONG.validate_python(kept) == kept
    assert LONG.validate_python("Zoe\u0308") == "Zo\u00eb"
    for char in TURNING:
        with pytest.raises(ValidationError, match="turns the direction"):
            LONG.validate_python(f"a\n{char}b")


@settings(max_examples=200)
@given(ODD)
def test_an_accepted_name_is_visible_whole_and_its_own_form(text: str) -> None:
    try:
        name = NAME.validate_python(text)
    except ValidationError:
        return
    assert is_visible(name)
    assert storable(name) == named(name) == name == unicodedata.normalize("NFC", name) == " ".join(name.split())
    assert not set(UNSEEN.findall(name)) - set("\u200c\u200d")
    assert made_harmless(name) == name


@settings(max_examples=200)
@given(ODD)
def test_what_is_shown_turns_nothing(text: str) -> None:
    shown = made_harmless(text)
    assert len(shown) == len(text)
    assert composed(shown) == unicodedata.normalize("NFC", shown)
    assert not set(in_a_cell(text)) & set(TURNING)


@pytest.mark.parametrize(
    "name",
    [
        "__access_req_1",
        "__ACCESS_REQ_",
        "\uff3f\uff3faccess_req_",
        "_ _ access_req_",
        "__\u0430ccess_req_",
        "__ACC\u0415SS_REQ_",
        "__acce\u0455\u0455_\u0433e\u051b_",
        "__\u13aaccess_req_",
        "__\U0001d41access_req_",
        "__a\u0301ccess_req_",
        " \u0332 \u0332access_req_",
        "\u2017\u2017access_req_",
        "__acc\u2800ess\u3164_req_",
    ],
)
def test_what_looks_like_the_reserved_prefix_is_reserved(name: str) -> None:
    with pytest.raises(SystemGroup):
        refuse_reserved(name)


def test_other_names_are_free() -> None:
    for name in (
        "access_request_team",
        "_access_req_",
        "access req",
        "\u0434\u043e\u0441\u0442\u0443\u043f",
        "__access",
    ):
        refuse_reserved(name)


def test_what_was_kept_before_can_be_read() -> None:
    class Row(BaseModel):
        name: Name
        text: LongText

    row = {"name": "dba\u202e\u200b", "text": "\u2066"}
    assert Row.model_validate(row, context=STORED).model_dump() == row
    fields = [{"label": "a\u200b", "type": "select", "options": ["\u3164"]}]
    stored = TemplateValues.model_validate(
        {"name": "\u3164", "app_id": "5f0c2c5e-6a44-4d35-9a3f-0f9d2f1c7a10", "custom_fields": fields}, context=STORED
    )
    key = stored.custom_fields[0].key
    assert check_answers(stored.custom_fields, {key: "\u3164"}) == {key: "\u3164"}


def test_a_filter_finds_what_is_kept() -> None:
    assert TypeAdapter[str](FilterText).validate_python("Zoe\u0308") == "Zo\u00eb"


@pytest.mark.parametrize("name", ["\u202egnp.exe", "Dana\u200b", "\u3164", "\u2800"])
def test_who_comes_with_an_unreadable_name_is_called_by_the_address(name: str) -> None:
    assert newcomer("dana@example.com", name).name == "dana@example.com"


def test_codes_and_addresses_are_exact_and_turn_nothing() -> None:
    script = "def run():\n    return 'Zoe\u0308 \u200b'"
    assert TaskValues(name="t", script=script).script == script
    with pytest.raises(ValidationError, match="U\\+202E"):
        TaskValues(name="t", script="def run(): ...  # \u202e")
    with pytest.raises(ValidationError):
        UserValues(email="da\u3164na@example.com", name="Dana")
    with pytest.raises(ValidationError):
        IntegrationValues.model_validate(
            {"name": "w", "target": "webhook", "events": ["access_request.approved"], "url": "https://a.example/\u202e"}
        )


def test_signals_are_read_as_they_always_were() -> None:
    # Stricter, a history with such a signal would not replay.
    assert Decision(actor="\u202e", comment="\u2066\u200b").comment == "\u2066\u200b"


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "+1",
        "-1",
        "@a",
        ";1",
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff20a",
        "\t1",
        "\r1",
        "\n1",
        "  =1",
        "\u3000\u200b=1",
        "\ufeff=1",
    ],
)
def test_what_a_spreadsheet_may_calculate_with_is_text_in_a_cell(text: str) -> None:
    assert in_a_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        (";=1", "';'=1"),
        ("a;=1", "a;'=1"),
        ('{"Why": "a; \u200b;@b;c"}', '{"Why": "a; \u200b;\'@b;c"}'),
        ("a\t+1", "a\t'+1"),
        ("two\n\n -1 lines\n=2", "two\n\n '-1 lines\n'=2"),
        ("a;\uff1d1", "a;'\uff1d1"),
    ],
)
def test_what_begins_a_cell_where_semicolons_end_cells_is_text(text: str, cell: str) -> None:
    assert in_a_cell(text) == cell


@pytest.mark.parametrize("text", ["", " ", "a=1", "1-1", "two\nlines", " a", "a;b", "a;", "é"])
def test_other_text_stays_as_it_is_in_a_cell(text: str) -> None:
    assert in_a_cell(text) == text


@pytest.mark.parametrize(("kind", "limit"), [(ShortText, 1000), (ClaimValue, 1000), (LongText, 10_000)])
def test_text_that_composing_makes_too_long_is_refused(kind: Any, limit: int) -> None:
    adapter = TypeAdapter(kind)
    # Composed, U+0958 is two characters. Stored so, it could not be saved unchanged.
    assert len(adapter.validate_python("\u0958" * (limit // 2))) == limit
    with pytest.raises(ValidationError, match=f"at most {limit} characters"):
        adapter.validate_python("\u0958" * (limit // 2 + 1))


def test_marks_in_a_row_are_bounded() -> None:
    adapter = TypeAdapter(LongText)
    assert adapter.validate_python("x" + "\u0316\u0301" * 15) == "x" + "\u0316" * 15 + "\u0301" * 15
    with pytest.raises(ValidationError, match="more than 30 combining marks"):
        adapter.validate_python("x" + "\u0316\u0301" * 15 + "\u0316")
    # What was stored before is read as it is.
    assert adapter.validate_python("\u0301" * 31, context=STORED) == "\u0301" * 31
