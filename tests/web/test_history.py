"""The history and the overview: every request, as far as filters leave it, on pages and in files."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from db import web_sessions
from db.overview import overview
from db.templates import TemplateView
from domain.states import Action, Verdict
from tests.api.house import House, Somebody
from tests.conftest import Databases
from tests.web.conftest import Visitor, open_pages, shown, visitor
from web.routes.history import ExportEndedError, Filters, _all


@dataclass(frozen=True)
class _Archive:
    house: House
    root: Visitor
    alice: Somebody
    bob: Somebody
    database: TemplateView
    cluster: TemplateView
    pending: UUID
    granted: UUID
    denied: UUID
    cancelled: UUID
    ended: UUID
    """Granted, and revoked later."""


@pytest.fixture(scope="module")
async def archive(new_database: Databases) -> AsyncIterator[_Archive]:
    with new_database() as url:
        async with open_pages(url) as house:
            alice, bob, carol = [await house.person(name) for name in ("alice", "bob", "carol")]
            team = await house.group("team", bob)
            made = {
                name: await house.template(
                    name=name, app_id=(await house.application(f"App of {name}")).id, approver_group_ids=[team.id]
                )
                for name in ("Database", "Cluster")
            }
            ids = {}
            for name, template, who, steps in (
                ("denied", "Database", alice, [(Action.DENY, bob)]),
                ("cancelled", "Database", alice, [(Action.REVOKE, alice)]),
                ("ended", "Cluster", alice, [(Action.APPROVE, bob), (Action.REVOKE, alice)]),
                ("granted", "Cluster", carol, [(Action.APPROVE, bob)]),
                ("pending", "Database", alice, []),
            ):
                ids[name] = await house.request(made[template], who)
                for action, by in steps:
                    await house.decide(ids[name], action, by)
            root = await visitor(house, house.admin)
            yield _Archive(house, root, alice, bob, made["Database"], made["Cluster"], **ids)


ALL = {"pending", "granted", "denied", "cancelled", "ended"}


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("", ALL),
        ("?status=&template_id=&app_id=&requester=&since=&until=", ALL),
        ("?status=pending", {"pending"}),
        ("?status=approved", {"granted"}),
        ("?status=revoked", {"cancelled", "ended"}),
        ("?requester=ALICE", ALL - {"granted"}),
        ("?requester=%20carol%20", {"granted"}),
        ("?template_id={database}", {"pending", "denied", "cancelled"}),
        ("?app_id={cluster_app}", {"granted", "ended"}),
        ("?app_id={cluster_app}&requester=alice&status=revoked", {"ended"}),
        ("?since={today}&until={today}", ALL),
        ("?until={yesterday}", set()),
        ("?since={tomorrow}", set()),
        ("?since=0001-01-01&until=9999-12-31", ALL),
        ("?since=9999-12-31", set()),
    ],
)
async def test_filters_leave_the_same_on_the_page_in_both_files_and_over_the_api(
    archive: _Archive, query: str, left: set[str]
) -> None:
    today = datetime.now(UTC).date()
    query = query.format(
        database=archive.database.id,
        cluster_app=archive.cluster.app_id,
        today=today,
        yesterday=today - timedelta(days=1),
        tomorrow=today + timedelta(days=1),
    )
    expected = {str(getattr(archive, name)) for name in left}
    page = await archive.root.get(f"/history{query}")
    assert page.status_code == 200
    assert {each for each in map(str, _ids(archive)) if f'data-request="{each}"' in page.text} == expected
    exported = (await archive.root.get(f"/history/export.json{query}")).json()
    assert {each["id"] for each in exported} == expected
    rows = _table(await archive.root.get(f"/history/export.csv{query}"))
    assert {row["id"] for row in rows} == expected


def _ids(archive: _Archive) -> list[UUID]:
    return [getattr(archive, name) for name in ALL]


async def test_the_api_takes_the_new_filters(archive: _Archive) -> None:
    for query, left in (
        ({"app_id": str(archive.cluster.app_id)}, {"granted", "ended"}),
        ({"since": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, set()),
        ({"until": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, ALL),
    ):
        answer = await archive.house.call("GET", "/access-requests/all", archive.house.admin, params=query)
        assert {each["id"] for each in answer.json()["items"]} == {str(getattr(archive, name)) for name in left}
    for wrong in ("2026-01-01T00:00:00", "0.5", "0", "yesterday", "2026-02-30T00:00:00Z"):
        answer = await archive.house.call("GET", "/access-requests/all", archive.house.admin, params={"since": wrong})
        assert answer.status_code == 422, wrong


async def test_the_decision_column_tells_cancelled_from_approved(archive: _Archive) -> None:
    rows = _table(await archive.root.get("/history/export.csv"))
    said = {row["id"]: row["decision"] for row in rows}
    assert said == {
        str(archive.pending): "",
        str(archive.granted): Verdict.APPROVED,
        str(archive.denied): Verdict.DENIED,
        str(archive.cancelled): Verdict.CANCELLED,
        str(archive.ended): Verdict.APPROVED,
    }
    page = await archive.root.get("/history?status=revoked")
    assert "Cancelled" in shown(page)
    assert "Approved by bob@example.com" in shown(page)


async def test_a_page_leads_on_with_its_filters(archive: _Archive) -> None:
    page = await archive.root.get("/history?requester=alice&limit=2")
    more = page.text.partition('href="?cursor=')[2].partition('"')[0].replace("&amp;", "&")
    assert "requester=alice" in more
    further = await archive.root.get(f"/history?cursor={more}&limit=2")
    assert str(archive.denied) in further.text
    assert "carol" not in shown(further)


async def test_where_nothing_fits_the_filters_can_be_cleared(archive: _Archive) -> None:
    page = await archive.root.get("/history?requester=nobody-of-this-name")
    assert "No request fits" in shown(page)
    assert "Clear the filters" in shown(page)


async def test_a_deleted_template_is_marked(archive: _Archive) -> None:
    house = archive.house
    template = await house.template(name="Short-lived")
    request_id = await house.request(template, archive.bob)
    await house.decide(request_id, Action.REVOKE, archive.bob)
    answer = await house.call("DELETE", f"/access-request-templates/{template.id}", house.admin)
    assert answer.status_code == 204
    try:
        assert "Short-lived (deleted template)" in shown(await archive.root.get("/history"))
    finally:
        async with house.db.connection() as connection:
            await connection.execute("ALTER TABLE access_request_timeline DISABLE TRIGGER append_only")
            await connection.execute("DELETE FROM access_request_timeline WHERE request_id = %s", [request_id])
            await connection.execute("ALTER TABLE access_request_timeline ENABLE TRIGGER append_only")
            await connection.execute("DELETE FROM access_requests WHERE id = %s", [request_id])


def _table(answer: httpx.Response) -> list[dict[str, str]]:
    """Return the rows of a CSV file, which spreadsheets read as UTF-8 by its first bytes alone."""
    assert answer.content.startswith(codecs.BOM_UTF8)
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))


async def test_no_cell_is_a_formula(new_database: Databases) -> None:
    nasty = [
        "=HYPERLINK(1)",
        "+1",
        "-1",
        "@SUM(A1)",
        "\tx",
        ";1",
        "\n1",
        "\uff1d1",
        " \u00a0=1",
        'a "quoted", one',
        "two\nlines",
        "a;=1\n=2",
    ]
    with new_database() as url:
        async with open_pages(url) as house:
            for justification in nasty:
                sent = {"template_id": str((await house.template()).id), "requested_duration_mins": 60}
                answer = await house.call(
                    "POST", "/access-requests", house.admin, json={**sent, "justification": justification}
                )
                assert answer.status_code == 201
            answer = await (await visitor(house, house.admin)).get("/history/export.csv")
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            assert answer.headers["content-disposition"].startswith('attachment; filename="access-requests-20')
            cells = [row["justification"] for row in _table(answer)]
            assert cells[::-1] == [f"'{text}" for text in nasty[:-3]] + nasty[-3:-1] + ["a;'=1\n'=2"]


async def test_a_file_has_more_than_a_page_and_an_empty_one_is_whole(
    archive: _Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.routes.history.LARGEST_LIMIT", 2)
    assert len((await archive.root.get("/history/export.json")).json()) == 5
    assert (await archive.root.get("/history/export.json?requester=nobody")).json() == []
    monkeypatch.setattr("web.routes.history._MOST_EXPORTED", 3)
    assert len(json.loads((await archive.root.get("/history/export.json")).text)) == 4


async def test_the_overview_counts_what_the_rules_say(archive: _Archive) -> None:
    async with archive.house.db.connection() as connection:
        seen = await overview(connection)
    assert (seen.pending, seen.grants, seen.decided) == (1, 1, 3)
    today = seen.days[-1]
    assert len(seen.days) == 30
    assert (today.pending, today.approved, today.denied, today.cancelled) == (1, 2, 1, 1)
    assert [(each.app_name, each.grants) for each in seen.by_application] == [("App of Cluster", 1)]
    assert seen.median_secs is not None
    assert seen.p90_secs is not None
    assert 0 <= seen.median_secs <= seen.p90_secs < 600
    said = shown(await archive.root.get("/overview"))
    assert "Waiting for a decision 1" in said
    assert "Grants that last 1" in said
    assert f"/history?since={today.day}&amp;until={today.day}" in (await archive.root.get("/overview")).text


async def test_the_overview_of_nothing_says_so(new_database: Databases) -> None:
    with new_database() as url:
        async with open_pages(url) as house:
            root = await visitor(house, house.admin)
            said = shown(await root.get("/overview"))
            assert "nothing waits" in said
            assert "No grant lasts at this moment." in said
            assert "Nobody has asked for anything yet" in shown(await root.get("/history"))


async def test_an_address_that_means_nothing_is_told_as_such(archive: _Archive) -> None:
    for query in ("status=granted", "template_id=x", "since=yesterday", f"app_id={uuid4()}x"):
        answer = await archive.root.get(f"/history?{query}")
        assert answer.status_code == 422
        assert f"{query.partition('=')[0]}: must be" in shown(answer)
    # Addresses are passed on with marks of where they came from.
    assert (await archive.root.get("/history?utm_source=chat")).status_code == 200


async def test_an_export_ends_with_the_session(archive: _Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.routes.history.LARGEST_LIMIT", 1)
    house = archive.house
    session = await web_sessions.begin(house.db, house.admin.id, None)
    views = _all(house.db, Filters(), session)
    await anext(views)
    await web_sessions.end(house.db, session)
    with pytest.raises(ExportEndedError):
        await anext(views)
