"""A submission and a change of what it names: one comes first, and the other sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from db import applications, submission, templates
from db.database import Database
from domain.directory import MappingValues
from domain.errors import InUse, Invalid, TemplateInUse
from domain.templates import TemplateValues
from tests.record import LONGEST_MINS, Cast, Record

A_MOMENT_SECS = 0.2

Change = Callable[[Database, Cast], Coroutine[Any, Any, Any]]


def renamed(cast: Cast, **values: Any) -> TemplateValues:
    kept = {name: getattr(cast.template, name) for name in TemplateValues.model_fields}
    return TemplateValues.model_validate(kept | {"name": "Another"} | values)


def revalued(cast: Cast) -> MappingValues:
    return MappingValues(app_id=cast.application.id, name=cast.mapping.name, claim="roles", value="db_owner")


async def _delete_template(db: Database, cast: Cast) -> None:
    await templates.delete(db, cast.template.id)


async def _edit_template(db: Database, cast: Cast) -> None:
    await templates.replace(db, cast.template.id, renamed(cast, auto_approve=True), longest_mins=LONGEST_MINS)


async def _revalue_mapping(db: Database, cast: Cast) -> None:
    await applications.replace_mapping(db, cast.mapping.id, revalued(cast))


async def _delete_mapping(db: Database, cast: Cast) -> None:
    # A template that names it would be reason enough to refuse.
    await templates.replace(db, cast.template.id, renamed(cast, mapping_ids=[]), longest_mins=LONGEST_MINS)
    await applications.delete_mapping(db, cast.mapping.id)


@pytest.fixture
async def half_way(shared: Record, monkeypatch: pytest.MonkeyPatch) -> Callable[[Cast], Any]:
    """Submits, and stops before the commit for as long as the block lasts; who submits meanwhile does not stop."""
    tell = submission._tell

    @asynccontextmanager
    async def submitting(cast: Cast) -> AsyncIterator[asyncio.Task[UUID]]:
        reached, proceed = asyncio.Event(), asyncio.Event()

        async def wait(*arguments: Any) -> None:
            if not reached.is_set():
                reached.set()
                await proceed.wait()
            await tell(*arguments)

        monkeypatch.setattr(submission, "_tell", wait)
        task = asyncio.create_task(shared.submit(cast.template, cast.requester))
        await reached.wait()
        try:
            yield task
        finally:
            proceed.set()

    return submitting


class TestSubmissionFirst:
    @pytest.mark.parametrize(
        ("change", "refusal"),
        [(_delete_template, TemplateInUse), (_revalue_mapping, InUse), (_delete_mapping, InUse)],
    )
    async def test_what_it_names_waits_for_it_and_is_kept(
        self, shared: Record, half_way: Callable[[Cast], Any], change: Change, refusal: type[Exception]
    ) -> None:
        cast = await shared.cast()
        async with half_way(cast) as submitting:
            changing = asyncio.create_task(change(shared.db, cast))
            await asyncio.sleep(A_MOMENT_SECS)
            assert not changing.done()
        assert (await shared.row(await submitting))["status"] == "pending"
        with pytest.raises(refusal):
            await changing

    async def test_an_edit_of_its_template_does_not_wait_and_does_not_reach_it(
        self, shared: Record, half_way: Callable[[Cast], Any]
    ) -> None:
        cast = await shared.cast()
        async with half_way(cast) as submitting:
            await _edit_template(shared.db, cast)
        row = await shared.row(await submitting)
        assert (row["template_name"], row["snapshot"]["auto_approve"]) == (cast.template.name, False)

    async def test_submissions_of_others_do_not_wait(self, shared: Record, half_way: Callable[[Cast], Any]) -> None:
        cast = await shared.cast()
        async with half_way(cast) as submitting, asyncio.timeout(60):
            assert (await shared.row(await shared.submit(cast.template, cast.manager)))["status"] == "pending"
        await submitting

    async def test_in_a_round_robin_they_take_turns(self, shared: Record, half_way: Callable[[Cast], Any]) -> None:
        cast = await shared.cast(notification_policy="round_robin")
        async with half_way(cast) as submitting:
            another = asyncio.create_task(shared.submit(cast.template, cast.manager))
            await asyncio.sleep(A_MOMENT_SECS)
            assert not another.done()
        served = [(await shared.row(await task))["notified_ids"] for task in (submitting, another)]
        assert served == [[cast.approver.id], [cast.second_approver.id]]


class TestSubmissionSecond:
    async def test_it_is_for_no_template_that_was_being_deleted(self, shared: Record) -> None:
        cast = await shared.cast()
        async with shared.db.transaction() as connection:
            await connection.execute("DELETE FROM access_request_templates WHERE id = %s", [cast.template.id])
            await (await connection.execute("SELECT 1")).fetchone()  # It is done, not only on its way.
            submitting = asyncio.create_task(shared.submit(cast.template, cast.requester))
            await asyncio.sleep(A_MOMENT_SECS)
            assert not submitting.done()
        with pytest.raises(Invalid) as raised:
            await submitting
        assert [field for field, _ in raised.value.errors] == ["template_id"]

    async def test_it_asks_for_the_value_that_a_mapping_was_being_given(self, shared: Record) -> None:
        cast = await shared.cast()
        async with shared.db.transaction() as connection:
            await connection.execute("UPDATE app_mappings SET value = 'db_owner' WHERE id = %s", [cast.mapping.id])
            await (await connection.execute("SELECT 1")).fetchone()  # It is done, not only on its way.
            submitting = asyncio.create_task(shared.submit(cast.template, cast.requester))
            await asyncio.sleep(A_MOMENT_SECS)
            assert not submitting.done()
        (granted,) = (await shared.row(await submitting))["snapshot"]["mappings"]
        assert granted["value"] == "db_owner"
