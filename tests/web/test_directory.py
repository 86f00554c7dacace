"""Applications, people and groups on pages: what is made, changed and refused, and by whom."""

from __future__ import annotations

from uuid import uuid4

import pytest

from db import applications, tokens
from domain.actors import Permission
from tests.api.house import House
from tests.web.conftest import Visitor, shown, visitor


@pytest.fixture(scope="module")
async def reader(house: House) -> Visitor:
    """Somebody who sees the directory, since they manage requests, and may not change it."""
    return await visitor(house, await house.person("reader", Permission.REQUESTS))


async def test_an_application_is_made_changed_given_claims_and_deleted(house: House, root: Visitor) -> None:
    mark = uuid4().hex[:8]
    answer = await root.post("/admin/applications", {"name": f"Ledger {mark}", "description": "Books"})
    here = answer.headers["location"]
    assert "Say now what it can grant." in shown(await root.follow(answer))
    again = await root.post("/admin/applications", {"name": f"LEDGER {mark}", "description": "<i>kept</i>"})
    assert again.status_code == 422
    assert "Another application has this name." in shown(again)
    assert "&lt;i&gt;kept" in again.text
    mapping = {"mapping.name": "Reader", "mapping.claim": "roles", "mapping.value": "reader"}
    assert (await root.post(f"{here}/mappings", mapping)).status_code == 303
    reserved = await root.post(f"{here}/mappings", mapping | {"mapping.name": "Subject", "mapping.claim": "sub"})
    assert reserved.status_code == 422
    assert 'id="mapping.claim-error"' in reserved.text
    assert (await root.post(here, {"name": f"Books {mark}", "description": ""})).status_code == 303
    page = await root.get(here)
    assert "roles: reader" in page.text
    mapping_id = page.text.partition(f"{here}/mappings/")[2].partition("/")[0]
    refused = shown(await root.follow(await root.post(f"{here}/delete")))
    assert "mapping" in refused
    group = await house.group(f"group {mark}")
    for step, sent, said in (
        ("attach", {"group": group.name.upper()}, "Its members get the claim from now on."),
        ("detach", {"group_id": str(group.id)}, "do not get the claim"),
    ):
        answer = await root.post(f"{here}/mappings/{mapping_id}/{step}", sent)
        assert said in shown(await root.follow(answer))
    none = await root.post(f"{here}/mappings/{mapping_id}/attach", {"group": ""})
    assert none.status_code == 422
    assert "Choose a group first." in shown(none)
    part = await root.post(f"{here}/mappings/{mapping_id}/attach", {"group": mark})
    assert f"There is no group “{mark}”" in shown(part)
    assert f'<option value="{group.name}">' in part.text
    assert (await root.post(f"{here}/mappings/{mapping_id}/delete")).status_code == 303
    assert "The application is deleted." in shown(await root.follow(await root.post(f"{here}/delete")))


async def test_a_client_secret_is_shown_once(house: House, root: Visitor) -> None:
    here = f"/admin/applications/{(await house.application(f'app {uuid4()}')).id}"
    answer = await root.post(f"{here}/client-secret")
    assert "justiam_secret_" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    page = await root.get(here)
    assert "justiam_secret_" not in page.text
    assert "made" in shown(page)


async def test_a_person_is_made_renamed_and_deactivated(house: House, root: Visitor) -> None:
    mark = uuid4().hex[:8]
    answer = await root.post("/admin/people", {"name": "Dana <b>", "email": f"dana-{mark}@example.com", "owner": ""})
    here = answer.headers["location"]
    page = await root.follow(answer)
    assert "Dana &lt;b&gt;" in page.text
    for form, message in (
        ({"name": "X", "email": f"DANA-{mark}@example.com"}, "Another user has this email address."),
        ({"name": "X", "email": "nonsense"}, "email"),
        ({"name": "X", "email": f"bot-{mark}@example.com", "owner": "nobody@example.com"}, "Nobody has this email"),
    ):
        wrong = await root.post("/admin/people", {"owner": "", **form})
        assert wrong.status_code == 422
        assert message in shown(wrong)
    bot = await root.post(
        "/admin/people", {"name": "Bot", "email": f"bot-{mark}@example.com", "owner": f"dana-{mark}@example.com"}
    )
    assert "service account of Dana <b>" in shown(await root.follow(bot))
    assert (await root.post(here, {"name": "Dana", "email": f"dana-{mark}@example.com"})).status_code == 303
    dana = await visitor(house, await house.person(f"other-{mark}"))
    assert "Dana is deactivated." in shown(await root.follow(await root.post(here, {"do": "deactivate"})))
    assert "Deactivated" in shown(await root.get(bot.headers["location"]))
    assert "Dana is active again." in shown(await root.follow(await root.post(here, {"do": "activate"})))
    assert (await dana.get("/admin/people")).status_code == 403
    # A name that is older than a rule keeps nobody active.
    async with house.db.connection() as connection:
        await connection.execute("UPDATE users SET name = %s WHERE id = %s", ["Da\u200bna", here.rpartition("/")[2]])
    assert "is deactivated." in shown(await root.follow(await root.post(here, {"do": "deactivate"})))


async def test_people_are_found_by_a_part_of_their_address(house: House, root: Visitor) -> None:
    mark = uuid4().hex[:8]
    await house.person(f"needle-{mark}")
    assert f"Needle-{mark}".title() in (await root.get(f"/admin/people?q=EEDLE-{mark}")).text
    assert "Nobody has such an address" in shown(await root.get("/admin/people?q=%25"))


async def test_a_group_gets_members_permissions_and_an_end(house: House, root: Visitor) -> None:
    mark = uuid4().hex[:8]
    person = await house.person(f"member-{mark}")
    answer = await root.post("/admin/groups", {"name": f"team {mark}", "permissions": ["tasks.manage"]})
    here = answer.headers["location"]
    assert "tasks.manage" in (await root.follow(answer)).text
    reserved = await root.post("/admin/groups", {"name": "__access_req_x"})
    assert reserved.status_code == 422
    assert "belong to the groups of access requests" in shown(reserved)
    assert "Added, as the last in order." in shown(
        await root.follow(await root.post(f"{here}/members", {"email": person.email.upper()}))
    )
    stranger = await root.post(f"{here}/members", {"email": "nobody@example.com"})
    assert stranger.status_code == 422
    assert 'value="nobody@example.com"' in stranger.text
    assert person.email in (await root.get(here)).text
    # Who is in the group now sees what it brings.
    assert (await (await visitor(house, person)).get("/admin")).headers["location"] == "/admin/tasks"
    removed = await root.follow(await root.post(f"{here}/members/{person.id}/remove"))
    assert "What membership gave is gone." in shown(removed)
    assert (await root.post(here, {"name": f"crew {mark}", "description": "New"})).status_code == 303
    template = await house.template(allowed_group_ids=[here.rpartition("/")[2]])
    refused = shown(await root.follow(await root.post(f"{here}/delete")))
    assert template.name in refused
    async with house.db.connection() as connection:
        await connection.execute("DELETE FROM access_request_templates WHERE id = %s", [template.id])
    assert "The group is deleted." in shown(await root.follow(await root.post(f"{here}/delete")))


async def test_who_only_reads_the_directory_sees_no_forms_and_changes_nothing(
    house: House, root: Visitor, reader: Visitor
) -> None:
    application = await house.application(f"app {uuid4()}")
    group = await house.group(f"group {uuid4()}")
    for path in (
        "/admin/applications",
        f"/admin/applications/{application.id}",
        "/admin/people",
        f"/admin/people/{house.admin.id}",
        "/admin/groups",
        f"/admin/groups/{group.id}",
    ):
        page = await reader.get(path)
        assert page.status_code == 200
        forms = page.text.count('method="post"')
        assert forms == 1, f"{path} has a form besides the one for signing out"
        assert (await root.get(path)).text.count('method="post"') > 1
        assert (await reader.post(path, {"name": "changed"})).status_code == 403
    assert (await reader.post(f"/admin/groups/{group.id}/delete")).status_code == 403


async def test_nobody_gives_what_they_do_not_hold(house: House) -> None:
    manager = await visitor(house, await house.person(f"manager-{uuid4()}", Permission.DIRECTORY))
    answer = await manager.post("/admin/groups", {"name": f"mighty {uuid4()}", "permissions": ["tasks.manage"]})
    assert answer.status_code == 422
    assert "permissions that you do not hold yourself: tasks.manage" in shown(answer)
    answer = await manager.post(f"/admin/people/{house.admin.id}", {"do": "deactivate"})
    assert answer.status_code == 422
    assert "permissions that you do not hold yourself" in shown(answer)


async def test_pages_hold_a_directory_manager_to_what_they_lack(house: House) -> None:
    mark = uuid4().hex[:8]
    keeper = await visitor(house, await house.person(f"keeper-{mark}", Permission.DIRECTORY))
    tasks = await house.person(f"tasks-{mark}", Permission.TASKS)
    token = await tokens.create_token(house.db, tasks.id, "laptop", None)
    app = await house.application(f"app {mark}")
    mapping = await house.mapping(app.id)
    powerful = await house.group(f"powerful {mark}", permissions=[Permission.TASKS])
    await applications.attach(house.db, mapping.id, powerful.id)
    plain = await house.person(f"plain-{mark}")
    lacking = "permissions that you do not hold yourself: tasks.manage"
    mappings = f"/admin/applications/{app.id}/mappings/{mapping.id}"
    for path, sent in (
        (f"/tokens/{token.id}/revoke", {"back": "/admin/tokens"}),
        (f"{mappings}/attach", {"group": powerful.name}),
        (f"{mappings}/detach", {"group_id": str(powerful.id)}),
        (f"{mappings}/delete", {}),
        ("/admin/people", {"name": "Bot", "email": f"bot-{mark}@example.com", "owner": tasks.email}),
    ):
        answer = await keeper.post(path, sent)
        assert lacking in shown(await keeper.follow(answer) if answer.status_code == 303 else answer), path
    assert await tokens.authenticate(house.db, token.token) is not None
    mine = await tokens.create_token(house.db, plain.id, "laptop", None)
    assert (await keeper.post(f"/tokens/{mine.id}/revoke", {"back": "/admin/tokens"})).status_code == 303
    assert await tokens.authenticate(house.db, mine.token) is None
