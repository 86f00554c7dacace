"""The audit log for administrators: who changed what, as people read it."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest
from pydantic import SecretStr

from db import acting, applications, groups, secrets, tasks
from db.administrators import OPERATOR
from db.secrets import SecretVault
from domain.actors import Permission
from domain.audit_log import Kind
from domain.directory import ApplicationValues, GroupValues
from domain.secrets import NewSecret
from domain.tasks import TaskValues
from tests.api.house import SECRET, House
from tests.conftest import Databases
from tests.web.conftest import Visitor, open_pages, shown, visitor

PAGE = "/admin/audit-log"
DOUBLE = '"'
DANA = "dana@example.com"


@dataclass(frozen=True)
class _Changed:
    house: House
    root: Visitor
    team: UUID
    bob: UUID
    task: UUID


@pytest.fixture(scope="module")
async def changed(new_database: Databases) -> AsyncIterator[_Changed]:
    with new_database() as url:
        async with open_pages(url) as house:
            root = await visitor(house, house.admin)
            bob = await house.person("bob")
            with acting.acting(DANA):
                team = await groups.create(house.db, OPERATOR, GroupValues(name="<b>team</b>", description="One"))
                await groups.add_member(house.db, OPERATOR, team.id, bob.id)
                await groups.replace(house.db, OPERATOR, team.id, GroupValues(name="crew", description="Two & more"))
                application = await applications.create_application(house.db, ApplicationValues(name="Ledger"))
                await applications.rotate_client_secret(house.db, application.id)
                await applications.rotate_client_secret(house.db, application.id)
                script = "def run():\n    first()\n    second()\n"
                task = await tasks.create(house.db, TaskValues(name="Tidy", script=script))
                await tasks.replace(
                    house.db, task.id, TaskValues(name="Tidy", script=script.replace("second", "third"))
                )
                vault = SecretVault(SecretStr(SECRET))
                await secrets.create(house.db, vault, NewSecret(name="HOOK", value=SecretStr("hush-hush")))
            yield _Changed(house, root, team.id, bob.id, task.id)


async def test_an_update_shows_what_was_and_what_is_and_nothing_else(changed: _Changed) -> None:
    text = shown(await changed.root.get(f"{PAGE}?object_id={changed.team}"))
    assert "before: One → after: Two & more" in text
    assert "before: <b>team</b> → after: crew" in text
    assert "permissions before" not in text
    assert text.index("Changed") < text.index("Made")


async def test_what_people_wrote_is_text(changed: _Changed) -> None:
    assert "<b>team" not in (await changed.root.get(PAGE)).text


async def test_a_text_of_lines_shows_those_that_differ(changed: _Changed) -> None:
    answer = await changed.root.get(f"{PAGE}?object_id={changed.task}")
    assert "<del>-     second()</del><ins>+     third()</ins>" in answer.text
    assert "first()" in answer.text


async def test_ids_are_shown_by_the_names_that_they_have_now(changed: _Changed) -> None:
    text = shown(await changed.root.get(f"{PAGE}?kind=group_members&actor={DANA}"))
    assert "crew \N{EN DASH} bob" in text


async def test_what_is_gone_is_shown_by_the_name_it_had(changed: _Changed) -> None:
    db = changed.house.db
    with acting.acting("erin@example.com"):
        gone = await groups.create(db, OPERATOR, GroupValues(name="short-lived"))
        await groups.add_member(db, OPERATOR, gone.id, changed.bob)
        await groups.delete(db, OPERATOR, gone.id)
    text = shown(await changed.root.get(f"{PAGE}?actor=erin@example.com"))
    assert "short-lived \N{EN DASH} bob@example.com" in text


async def test_secrets_are_shown_to_nobody(changed: _Changed) -> None:
    answer = await changed.root.get(PAGE)
    assert "hush" not in answer.text
    assert "(hidden, changed)" in answer.text


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        (f"actor={DANA}&kind=secrets", {"Secret"}),
        (f"actor=%20{DANA}%20&kind=&object_id=", {"Group", "Membership", "Application", "Task", "Secret"}),
        ("actor=dana&since=&until=", set()),
        ("since=9999-12-31", set()),
        ("until=9999-12-31&kind=scheduled_tasks", {"Task"}),
        ("until=2020-01-01", set()),
        ("object_id=nothing", set()),
    ],
)  # fmt: skip
async def test_filters_leave_what_fits(changed: _Changed, query: str, kinds: set[str]) -> None:
    answer = await changed.root.get(f"{PAGE}?{query}")
    assert answer.status_code == 200
    rows = answer.text.split("<tr data-entry=")[1:]
    assert {row.split('<span class="soft small">')[1].split("<")[0] for row in rows} == kinds
    if not kinds:
        assert "No change fits" in answer.text


async def test_pages_follow_each_other_with_the_same_filters(changed: _Changed) -> None:
    path: str | None = f"{PAGE}?actor={DANA}&limit=2"
    seen: list[int] = []
    while path is not None:
        text = (await changed.root.get(path)).text
        seen += [int(part.split('"')[1]) for part in text.split("<tr data-entry=")[1:]]
        _, more, rest = text.partition('aria-label="Pages"><a class="button" href="')
        path = f"{PAGE}{html.unescape(rest.partition(DOUBLE)[0])}&limit=2" if more else None
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == 9


@pytest.mark.parametrize("permission", Permission)
async def test_somebody_reads_of_what_they_manage(changed: _Changed, permission: Permission) -> None:
    """As the API has it, of which this calls the same functions."""
    house = changed.house
    person = await house.person(f"manages-{permission}", permission)
    manager = await visitor(house, person)
    for kind in Kind:
        answer = await house.call("GET", f"/audit-log?kind={kind}", person)
        assert (await manager.get(f"{PAGE}?kind={kind}")).status_code == answer.status_code
    text = (await manager.get(PAGE)).text
    assert ("Tidy" in text) is (permission is Permission.TASKS)
    assert ("crew" in text) is (permission is Permission.DIRECTORY)
    assert f'href="{PAGE}"' in text


async def test_a_filter_that_cannot_be_read_is_refused(changed: _Changed) -> None:
    for query in ("kind=weather", "since=yesterday"):
        answer = await changed.root.get(f"{PAGE}?{query}")
        assert answer.status_code == 422
        assert "A filter cannot be read" in shown(answer)


async def test_an_entry_that_cannot_be_read_is_shown_as_such(changed: _Changed) -> None:
    async with changed.house.db.transaction() as connection:
        rows = await connection.execute("SELECT entry FROM audit_log WHERE id = 2")
        said = (await rows.fetchone() or {})["entry"]
        await connection.execute("ALTER TABLE audit_log DISABLE TRIGGER USER")
        await connection.execute("UPDATE audit_log SET entry = 'lost' WHERE id = 2")
    try:
        page = await changed.root.get(PAGE)
    finally:
        async with changed.house.db.transaction() as connection:
            await connection.execute("UPDATE audit_log SET entry = %s WHERE id = 2", [said])
            await connection.execute("ALTER TABLE audit_log ENABLE TRIGGER USER")
    assert page.status_code == 200
    assert page.text.count("This entry was changed in the database and cannot be read.") == 1
