"""The form for a request and the decisions on pages: what is said, what is kept, what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from db.templates import TemplateView
from domain.states import Action
from tests.api.house import House, Somebody
from tests.web.conftest import Visitor, shown, visitor
from tests.web.forms import form_to

NASTY = "</textarea><script>alert(1)</script>\" onfocus='x' {{ 7*7 }}"


@dataclass(frozen=True)
class _Office:
    house: House
    alice: Visitor
    asker: Somebody
    bob: Visitor
    approver: Somebody
    template: TemplateView

    @property
    def form(self) -> dict[str, Any]:
        """Everything that the template asks for."""
        ids = {field.label: f"field.{field.key}" for field in self.template.custom_fields}
        return {
            "duration": "240",
            "justification": "An incident.",
            ids["Ticket"]: "INC-1",
            ids["Environment"]: "production",
            ids["Tables"]: ["orders", "customers"],
            ids["Rules"]: "true",
        }

    async def ask(self, **changed: Any) -> UUID:
        """A request of alice's that is pending."""
        answer = await self.alice.post(f"/ask/{self.template.id}", self.form | changed)
        assert answer.status_code == 303, shown(answer)
        return UUID(answer.headers["location"].rpartition("/")[2])


@pytest.fixture
async def office(house: House) -> _Office:
    mark = uuid4().hex[:8]
    asker, approver = await house.person(f"alice-{mark}"), await house.person(f"bob-{mark}")
    team = await house.group(f"team-{mark}", approver)
    application = await house.application(f"app-{mark}")
    template = await house.template(
        name=f"Read access <{mark}>",
        app_id=application.id,
        mapping_ids=[(await house.mapping(application.id)).id],
        approver_group_ids=[team.id],
        allowed_durations=[60, 240],
        custom_fields=[
            {"label": "Ticket", "type": "text", "required": True},
            {"label": "Environment", "type": "select", "required": True, "options": ["staging", "production"]},
            {"label": "Tables", "type": "multi_select", "options": ["orders", "customers"]},
            {"label": "More", "type": "textarea"},
            {"label": "Rules", "type": "checkbox", "required": True},
        ],
    )
    return _Office(house, await visitor(house, asker), asker, await visitor(house, approver), approver, template)


async def test_a_form_that_lacks_something_says_so_beside_it_and_keeps_the_rest(office: _Office) -> None:
    form = {**office.form, "justification": "  ", "duration": "61"}
    ids = {field.label: f"field.{field.key}" for field in office.template.custom_fields}
    del form[ids["Rules"]]
    form[ids["More"]] = NASTY
    answer = await office.alice.post(f"/ask/{office.template.id}", form)
    assert answer.status_code == 422
    said = shown(answer)
    assert "Not sent yet: see the marked fields." in said
    for message in ("This template requires one", "Must be one of the allowed durations: 60, 240", "must be ticked."):
        assert message in said
    for field in ("justification", "duration", ids["Rules"]):
        assert f'id="{field}-error"' in answer.text
    assert "INC-1" in answer.text
    assert '<option value="production" selected>production' in answer.text
    assert answer.text.count(" checked") >= 2
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text
    assert "{{ 7*7 }}" in said


async def test_an_answer_that_does_not_fit_is_told_at_its_question(office: _Office) -> None:
    ids = {field.label: f"field.{field.key}" for field in office.template.custom_fields}
    answer = await office.alice.post(
        f"/ask/{office.template.id}", {**office.form, ids["Environment"]: "the moon", ids["Ticket"]: ""}
    )
    assert answer.status_code == 422
    assert f'id="{ids["Environment"]}-error"' in answer.text
    assert f'id="{ids["Ticket"]}-error"' in answer.text
    assert "“Ticket” is required." in shown(answer)


async def test_what_is_sent_is_what_the_api_would_have_been_sent(office: _Office) -> None:
    request_id = await office.ask(justification="Two\r\nlines")
    view = (await office.house.call("GET", f"/access-requests/{request_id}", office.asker)).json()
    labels = {field["id"]: field["label"] for field in view["custom_fields"]}
    assert view["requested_duration_mins"] == 240
    assert view["justification"] == "Two\nlines"
    assert {labels[key]: value for key, value in view["custom_answers"].items()} == {
        "Ticket": "INC-1",
        "Environment": "production",
        "Tables": ["orders", "customers"],
        "Rules": True,
    }


async def test_a_form_that_is_sent_twice_makes_one_request(office: _Office) -> None:
    once = {"once": str(uuid4())}
    assert await office.ask(**once) == await office.ask(**once)


async def test_a_form_sent_again_says_what_became_of_its_request(office: _Office) -> None:
    form = {**office.form, "once": str(uuid4())}
    path = f"/ask/{office.template.id}"
    request_id = await office.ask(once=form["once"])
    again = await office.alice.follow(await office.alice.post(path, form))
    assert "This form was sent before and made this request. Nothing was sent again." in shown(again)
    await office.house.decide(request_id, Action.REVOKE, office.asker)
    reasons = ("An incident.", "Another reason")
    answers = [await office.alice.post(path, form | {"justification": why}) for why in reasons]
    for answer, why in zip(answers, reasons, strict=True):
        assert answer.status_code == 409
        said = shown(answer)
        assert "This form was sent before" in said
        assert "is cancelled now" in said
        assert f"/requests/{request_id}" in answer.text
        assert "was sent." not in said
        assert form_to(answer.text, path).values("justification") == [why]
    anew = form_to(answers[-1].text, path)
    assert anew.values("once") != [form["once"]]
    made = await office.alice.post(path, anew.sends(anew.button("Send the request")))
    assert "Your request was sent." in shown(await office.alice.follow(made))
    assert made.headers["location"] != f"/requests/{request_id}"


async def test_a_second_request_is_refused_also_where_the_button_was_not_disabled(office: _Office) -> None:
    request_id = await office.ask()
    answer = await office.alice.post(f"/ask/{office.template.id}", office.form)
    assert answer.status_code == 409
    assert "You have a pending request for this template." in shown(answer)
    assert f"/requests/{request_id}" in answer.text
    assert "disabled" in answer.text


@pytest.mark.parametrize(
    ("number", "unit", "minutes"), [("8", "60", 480), ("45", "1", 45), ("2", "1440", 2880), ("007", "1", 7)]
)
async def test_where_any_duration_may_be_asked_for_it_is_a_number_and_a_unit(
    office: _Office, number: str, unit: str, minutes: int
) -> None:
    template = await office.house.template(name=f"any {uuid4()}", require_justification=False)
    answer = await office.alice.post(f"/ask/{template.id}", {"duration": number, "unit": unit})
    assert answer.status_code == 303, shown(answer)
    view = (await office.house.call("GET", f"/access-{answer.headers['location'][1:]}", office.asker)).json()
    assert view["requested_duration_mins"] == minutes


@pytest.mark.parametrize("number", ["", "0", "-1", "1.5", "8h", "99999999", "\N{ARABIC-INDIC DIGIT ONE}"])
async def test_a_duration_that_is_none_is_told_at_its_field(office: _Office, number: str) -> None:
    template = await office.house.template(name=f"any {uuid4()}", require_justification=False)
    answer = await office.alice.post(f"/ask/{template.id}", {"duration": number, "unit": "1"})
    assert answer.status_code == 422
    assert 'id="duration-error"' in answer.text


async def test_a_template_for_others_is_neither_shown_nor_asked_for(office: _Office) -> None:
    group = await office.house.group(f"members-{uuid4()}", office.approver)
    template = await office.house.template(name=f"hidden {uuid4()}", allowed_group_ids=[group.id])
    assert template.name not in (await office.alice.get("/")).text
    assert template.name in (await office.bob.get("/")).text
    assert (await office.alice.get(f"/ask/{template.id}")).status_code == 404
    assert (await office.alice.post(f"/ask/{template.id}", {"duration": "1"})).status_code == 404


async def test_the_search_finds_by_template_application_and_description(office: _Office) -> None:
    name = office.template.name
    for sought in (name.upper(), office.template.app_name[2:]):
        assert "Ask for Read access &lt;" in (await office.alice.get(f"/?q={sought}")).text
    answer = await office.alice.get("/?q=%25")
    assert "Nothing fits “%”" in shown(answer)
    assert "<b>" not in (await office.alice.get("/?q=<b>")).text


async def test_somebody_elses_request_is_not_shown(office: _Office) -> None:
    request_id = await office.ask()
    stranger = await visitor(office.house, await office.house.person(f"stranger-{uuid4()}"))
    for answer in (
        await stranger.get(f"/requests/{request_id}"),
        await stranger.post(f"/requests/{request_id}/messages", {"body": "Hello"}),
    ):
        assert answer.status_code == 403
        assert "INC-1" not in answer.text
    for action in ("approve", "deny", "revoke"):
        answer = await stranger.follow(await stranger.post(f"/requests/{request_id}/{action}", {"back": "/"}))
        assert "Only its requester, those who may decide it and administrators" in shown(answer)


async def test_a_requester_has_no_button_to_approve_and_is_refused_who_tries(office: _Office) -> None:
    request_id = await office.ask()
    page = await office.alice.get(f"/requests/{request_id}")
    assert "/approve" not in page.text
    assert "/approve" in (await office.bob.get(f"/requests/{request_id}")).text
    answer = await office.alice.follow(await office.alice.post(f"/requests/{request_id}/approve"))
    assert "Nobody decides their own request." in shown(answer)


async def test_who_decides_too_late_is_told_what_happened(office: _Office) -> None:
    request_id = await office.ask()
    await office.house.decide(request_id, Action.DENY, office.approver)
    answer = await office.bob.post(f"/requests/{request_id}/approve", {"back": "/decide"})
    said = shown(await office.bob.follow(answer))
    assert f"it is denied, decided by {office.approver.email}" in said


async def test_where_temporal_is_away_a_decision_says_so_and_a_request_is_accepted(office: _Office) -> None:
    request_id = await office.ask()
    answer = await office.bob.follow(await office.bob.post(f"/requests/{request_id}/approve"))
    assert "It is not certain yet whether that was carried out" in shown(answer)


async def test_what_people_write_is_shown_as_they_wrote_it(office: _Office) -> None:
    request_id = await office.ask(justification=NASTY)
    assert (await office.alice.post(f"/requests/{request_id}/messages", {"body": NASTY})).status_code == 303
    for who, path in ((office.alice, f"/requests/{request_id}"), (office.bob, "/decide")):
        page = await who.get(path)
        assert "<script>alert" not in page.text
        assert "{{ 7*7 }}" in page.text
    empty = await office.alice.post(f"/requests/{request_id}/messages", {"body": " \r\n "})
    assert empty.status_code == 422
    assert "Write something first" in shown(empty)


async def test_what_waits_is_shown_as_it_came(office: _Office) -> None:
    await office.ask()
    carol = await visitor(office.house, await office.house.person(f"carol-{uuid4()}"))
    answer = await carol.post(f"/ask/{office.template.id}", office.form | {"justification": "The second."})
    assert answer.status_code == 303
    said = shown(await office.bob.get("/decide"))
    assert said.index("An incident.") < said.index("The second.")
    page = await office.bob.get("/decide?limit=1")
    assert "The second." not in page.text
    more = page.text.partition('href="?cursor=')[2].partition('"')[0]
    assert "The second." in (await office.bob.get(f"/decide?limit=1&cursor={more}")).text
