"""The life of a request as people see it, each in a browser of their own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from db.templates import TemplateView
from tests.api.house import Somebody
from tests.web.conftest import Stage, violations

DONE: Final = "I\N{RIGHT SINGLE QUOTATION MARK}m done"


@dataclass(frozen=True)
class _Scene:
    alice: Somebody
    bob: Somebody
    carol: Somebody
    template: TemplateView


@pytest.fixture(scope="module")
async def scene(stage: Stage) -> _Scene:
    """A requester, two approvers, and a template with questions of every type."""
    house = stage.house
    alice, bob, carol = [await house.person(name) for name in ("alice", "bob", "carol")]
    team = await house.group("dba_team", bob, carol)
    application = await house.application()
    mapping = await house.mapping(application.id)
    template = await house.template(
        name="Database read-only access",
        description="Grants read-only database credentials for up to 8 hours.",
        app_id=application.id,
        mapping_ids=[mapping.id],
        allowed_durations=[60, 240, 480],
        approver_group_ids=[team.id],
        custom_fields=[
            {"label": "Ticket", "type": "text", "required": True, "placeholder": "INC-1234"},
            {"label": "What you will do", "type": "textarea"},
            {"label": "Environment", "type": "select", "required": True, "options": ["staging", "production"]},
            {"label": "Tables", "type": "multi_select", "options": ["orders", "customers"]},
            {"label": "I have read the rules", "type": "checkbox", "required": True},
        ],
    )
    return _Scene(alice, bob, carol, template)


async def _ask(page: Page, template: TemplateView) -> None:
    await page.goto(f"/ask/{template.id}")
    await page.get_by_label("4 hours").check()
    await page.get_by_label("Why do you need it?").fill("An incident: <b>orders</b> look wrong.")
    await page.get_by_label("Ticket").fill("INC-4711")
    await page.get_by_label("Environment").select_option("production")
    await page.get_by_label("orders").check()
    await page.get_by_label("I have read the rules").check()
    await page.get_by_role("button", name="Send the request").click()
    await page.wait_for_url("**/requests/*")


async def test_three_people_see_each_others_changes_without_a_reload(stage: Stage, scene: _Scene) -> None:
    async with (
        stage.person(scene.alice) as alice,
        stage.person(scene.bob) as bob,
        stage.person(scene.carol) as carol,
    ):
        for approver in (bob, carol):
            await approver.goto("/decide")
            await expect(approver.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
            await approver.evaluate("window.notReloaded = true")

        await _ask(alice, scene.template)
        await expect(alice.get_by_text("Your request was sent.")).to_be_visible()
        await alice.evaluate("window.notReloaded = true")
        for approver in (bob, carol):
            await expect(approver.get_by_role("button", name="Approve")).to_be_visible()
            await expect(approver.get_by_text("An incident: <b>orders</b> look wrong.")).to_be_visible()
            await expect(approver.locator("#to-decide .badge")).to_contain_text("1")

        await carol.get_by_role("link", name="Details").click()
        for label, answer in (("Ticket", "INC-4711"), ("Environment", "production"), ("Tables", "orders")):
            row = carol.locator("dl.facts", has_text="Why")
            await expect(row.locator(f"dt:has-text('{label}') + dd").first).to_contain_text(answer)
        await carol.get_by_label("Say something").fill("For how long do you need it?")
        await carol.get_by_role("button", name="Send").click()
        await expect(alice.locator("#thread")).to_contain_text("For how long do you need it?")
        await carol.evaluate("window.notReloaded = true")

        await bob.get_by_label("Comment").fill("For this incident.")
        await bob.get_by_role("button", name="Approve").click()
        await expect(bob.get_by_text("Approved: Alice has “Database read-only access” now.")).to_be_visible()
        await expect(bob.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
        for page in (alice, carol):
            await expect(page.locator("#title .chip")).to_have_text("Approved")
            await expect(page.locator("#timeline")).to_contain_text("For this incident.")
            assert await page.evaluate("window.notReloaded")

        await alice.goto("/")
        await expect(alice.locator("#active")).to_contain_text("3 h 59 min")
        await alice.get_by_text(DONE).click()
        await alice.get_by_role("button", name="End it").click()
        await expect(alice.get_by_text("Ended: “Database read-only access”.")).to_be_visible()
        await expect(alice.locator("#active")).to_be_hidden()
        await expect(carol.locator("#title .chip")).to_have_text("Revoked")
        # An approved-then-revoked request keeps its decision.
        await alice.goto("/requests")
        decision = alice.locator("tbody tr").first.locator("[data-label=Decision]")
        await expect(decision).to_contain_text("Approved by bob")


async def test_who_has_a_pending_request_is_told_and_cannot_send_another(stage: Stage, scene: _Scene) -> None:
    async with stage.person(scene.alice) as alice:
        await _ask(alice, scene.template)
        await alice.goto(f"/ask/{scene.template.id}")
        await expect(alice.get_by_role("button", name="Send the request")).to_be_disabled()
        await expect(alice.get_by_text("You have a pending request for this already.")).to_be_visible()
        await alice.goto("/requests")
        await alice.get_by_role("button", name="Cancel").click()
        await expect(alice.get_by_text("Cancelled: “Database read-only access”.")).to_be_visible()
        await expect(alice.locator("tbody tr").first.locator("[data-label=Decision]")).to_have_text("Cancelled")
        await alice.goto(f"/ask/{scene.template.id}")
        await expect(alice.get_by_role("button", name="Send the request")).to_be_enabled()


async def test_what_somebody_types_is_not_replaced_under_their_hands(stage: Stage, scene: _Scene) -> None:
    async with stage.person(scene.alice) as alice, stage.person(scene.bob) as bob:
        await _ask(alice, scene.template)
        await bob.goto(alice.url)
        await bob.locator("#comment").fill("Not before")
        await alice.get_by_label("Say something").fill("It is urgent.")
        await alice.get_by_role("button", name="Send").click()
        await expect(bob.locator("#thread")).to_contain_text("It is urgent.")
        await expect(bob.locator("#comment")).to_have_value("Not before")
        await bob.get_by_role("button", name="Deny").click()
        await expect(alice.locator("#title .chip")).to_have_text("Denied")


async def test_without_scripts_people_ask_approve_and_cancel(stage: Stage, scene: _Scene) -> None:
    async with (
        stage.person(scene.alice, java_script_enabled=False) as alice,
        stage.person(scene.bob, java_script_enabled=False) as bob,
    ):
        await _ask(alice, scene.template)
        await alice.get_by_role("button", name="Cancel the request").click()
        assert await alice.locator("#title .chip").inner_text() == "Revoked"
        await _ask(alice, scene.template)
        await bob.goto("/decide")
        await bob.get_by_role("button", name="Approve").click()
        await alice.reload()
        assert await alice.locator("#title .chip").inner_text() == "Approved"
        await alice.get_by_text(DONE).click()
        await alice.get_by_role("button", name="End it").click()
        assert await alice.locator("#title .chip").inner_text() == "Revoked"


@pytest.mark.usefixtures("scene")
async def test_in_development_people_sign_in_with_one_click_and_out(stage: Stage) -> None:
    async with stage.person(None) as page:
        await page.goto("/requests")
        assert "/sign-in" in page.url
        await page.get_by_role("button", name="Bob").click()
        await page.wait_for_url("**/requests")
        await page.get_by_label("Signed in as Bob").click()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_text("You are signed out.")).to_be_visible()
        await page.goto("/requests")
        assert "/sign-in" in page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_keeps_people_from_using_the_pages(stage: Stage, scene: _Scene, scheme: str) -> None:
    dora = await stage.house.person(f"dora-{uuid4()}")
    async with stage.person(dora, color_scheme=scheme, viewport={"width": 360, "height": 740}) as page:
        found = {}
        await _ask(page, scene.template)
        for path in (page.url, f"/ask/{scene.template.id}", "/", "/requests", "/decide", "/nothing-here", "/sign-in"):
            await page.goto(path)
            found[path] = await violations(page)
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, f"{path} is {width} wide"
        assert not any(found.values()), found


async def test_pages_over_the_bound_of_a_person_do_not_end_each_other_again_and_again(
    stage: Stage, scene: _Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.live._MOST_OF_A_PERSON", 1)
    sources = "window.sources = []; window.EventSource = class extends EventSource"
    sources += "{ constructor(url) { super(url); sources.push(this); } }"
    async with stage.person(scene.bob) as older:
        await older.context.add_init_script(sources)
        await older.goto("/decide")
        await _has_sources(older, "OPEN")
        newer = await older.context.new_page()
        await newer.goto("/decide")
        # Closed for good: the browser does not connect again by itself.
        await _has_sources(older, "CLOSED")
        await _has_sources(newer, "OPEN")
        # The older page is told again once somebody looks at it again.
        await older.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        await _has_sources(older, "CLOSED", "OPEN")
        await _has_sources(newer, "CLOSED")


async def _has_sources(page: Page, *states: str) -> None:
    """Wait until the connections that the page has made are in these states."""
    look = "names => sources.map(each => names[each.readyState])"
    async with asyncio.timeout(60):
        while await page.evaluate(look, ["CONNECTING", "OPEN", "CLOSED"]) != list(states):
            await asyncio.sleep(0.05)
