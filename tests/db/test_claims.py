"""What people hold at this moment, and what a grant never gives (design, sections 2 and 4)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from db import applications, claims, groups
from db.administrators import OPERATOR
from domain.actors import Permission, SystemActor, temporary_group_name
from domain.errors import Forbidden
from domain.states import Action
from tests.record import Account, Cast, Record

NOTHING: dict[str, list[str]] = {}
HELD = {"roles": ["db_readonly"]}


async def granted(record: Record, cast: Cast, *, at: datetime | None = None, minutes: int = 60) -> UUID:
    request_id = await record.submit(cast.template, cast.requester, minutes=minutes)
    outcome = await record.decide(request_id, Action.APPROVE, cast.approver, at=at)
    assert outcome.refusal is None
    return request_id


async def held_groups(record: Record, account: Account) -> set[str]:
    async with record.db.connection() as connection:
        return {str(group["name"]) for group in await claims.get_groups(connection, account.id)}


class TestGrants:
    async def test_give_their_claims_and_their_group_while_they_last(self, shared: Record) -> None:
        cast = await shared.cast()
        assert await shared.claims(cast.requester, cast.application) == NOTHING
        request_id = await granted(shared, cast)
        assert await shared.claims(cast.requester, cast.application) == HELD
        assert await held_groups(shared, cast.requester) == {temporary_group_name(request_id)}
        await shared.decide(request_id, Action.REVOKE, cast.requester)
        assert await shared.claims(cast.requester, cast.application) == NOTHING
        assert await held_groups(shared, cast.requester) == set()

    async def test_are_for_one_person_and_one_application(self, shared: Record) -> None:
        cast, other = await shared.cast(), await shared.cast()
        await granted(shared, cast)
        assert await shared.claims(cast.approver, cast.application) == NOTHING
        assert await shared.claims(cast.requester, other.application) == NOTHING

    @pytest.mark.parametrize("first_to_end", [0, 1])
    @pytest.mark.parametrize("way", [Action.REVOKE, Action.EXPIRE])
    async def test_that_overlap_end_each_for_itself(self, shared: Record, first_to_end: int, way: Action) -> None:
        cast = await shared.cast()
        grants = [await granted(shared, cast, minutes=60), await granted(shared, cast, minutes=120)]
        assert await shared.claims(cast.requester, cast.application) == HELD
        ended, lasting = grants[first_to_end], grants[1 - first_to_end]

        async def end(request_id: UUID) -> None:
            if way is Action.REVOKE:
                await shared.decide(request_id, Action.REVOKE, cast.admin)
            else:
                late = datetime.now(UTC) + timedelta(hours=3)
                await shared.take(request_id, Action.EXPIRE, SystemActor.EXPIRY, key="expire", at=late)

        await end(ended)
        assert await shared.temporary_groups(ended) == []
        assert await held_groups(shared, cast.requester) == {temporary_group_name(lasting)}
        assert await shared.claims(cast.requester, cast.application) == HELD
        await end(lasting)
        assert await shared.claims(cast.requester, cast.application) == NOTHING

    async def test_that_are_over_give_nothing_though_their_group_is_still_there(self, shared: Record) -> None:
        cast = await shared.cast()
        request_id = await granted(shared, cast, at=datetime.now(UTC) - timedelta(minutes=60, seconds=1))
        assert len(await shared.temporary_groups(request_id)) == 1
        assert await shared.claims(cast.requester, cast.application) == NOTHING
        assert await held_groups(shared, cast.requester) == set()

    async def test_end_to_the_second_with_nobody_doing_anything(self, shared: Record) -> None:
        cast = await shared.cast()
        request_id = await granted(shared, cast, at=datetime.now(UTC) - timedelta(minutes=60) + timedelta(seconds=1))
        (before,) = await shared.query(
            "SELECT now() < expires_at AS lasts FROM groups WHERE request_id = %s", request_id
        )
        if before["lasts"]:
            await shared.query(
                "SELECT pg_sleep(greatest(0, extract(epoch FROM expires_at - clock_timestamp())))"
                " FROM groups WHERE request_id = %s",
                request_id,
            )
        assert await shared.claims(cast.requester, cast.application) == NOTHING

    async def test_stay_beside_what_somebody_has_for_good(self, shared: Record) -> None:
        cast = await shared.cast()
        permanent = await shared.group(cast.requester)
        await applications.attach(shared.db, cast.mapping.id, permanent.id)
        request_id = await granted(shared, cast)
        assert await shared.claims(cast.requester, cast.application) == HELD
        await shared.decide(request_id, Action.REVOKE, cast.requester)
        assert await shared.claims(cast.requester, cast.application) == HELD


class TestClaims:
    async def test_have_each_value_once_in_order(self, shared: Record) -> None:
        cast = await shared.cast()
        others = [
            await shared.mapping(cast.application, claim=claim, value=value)
            for claim, value in (("roles", "audit"), ("roles", "db_readonly"), ("teams", "blue"))
        ]
        team = await shared.group(cast.requester)
        for mapping in others:
            await applications.attach(shared.db, mapping.id, team.id)
        await granted(shared, cast)
        assert await shared.claims(cast.requester, cast.application) == {
            "roles": ["audit", "db_readonly"],
            "teams": ["blue"],
        }

    async def test_are_not_for_somebody_deactivated(self, shared: Record) -> None:
        cast = await shared.cast()
        team = await shared.group(cast.requester)
        await applications.attach(shared.db, cast.mapping.id, team.id)
        await granted(shared, cast)
        await shared.execute("UPDATE users SET active = false WHERE id = %s", cast.requester.id)
        assert await shared.claims(cast.requester, cast.application) == NOTHING
        assert await held_groups(shared, cast.requester) == set()
        await shared.execute("UPDATE users SET active = true WHERE id = %s", cast.requester.id)
        assert await shared.claims(cast.requester, cast.application) == HELD

    async def test_are_not_those_of_the_owner(self, shared: Record) -> None:
        cast = await shared.cast()
        robot = await shared.user("robot", owner=cast.requester)
        await granted(shared, cast)
        assert await shared.claims(robot, cast.application) == NOTHING

    async def test_go_with_the_membership(self, shared: Record) -> None:
        cast = await shared.cast()
        team = await shared.group(cast.requester)
        await applications.attach(shared.db, cast.mapping.id, team.id)
        await groups.remove_member(shared.db, OPERATOR, team.id, cast.requester.id)
        assert await shared.claims(cast.requester, cast.application) == NOTHING


class TestTemporaryGroups:
    """What a grant gives never decides about grants, whatever a row may say."""

    @pytest.fixture
    async def tampered(self, record: Record) -> tuple[Record, Cast, UUID]:
        """A grant whose group was given permissions, in a database that does not refuse that any more."""
        cast = await record.cast()
        request_id = await granted(record, cast)
        await record.execute("ALTER TABLE groups DROP CONSTRAINT ck_groups_system_without_permissions")
        await record.execute(
            "UPDATE groups SET permissions = %s WHERE request_id = %s", [str(one) for one in Permission], request_id
        )
        return record, cast, request_id

    async def test_cannot_have_permissions(self, shared: Record) -> None:
        cast = await shared.cast()
        request_id = await granted(shared, cast)
        with pytest.raises(psycopg.errors.CheckViolation, match="ck_groups_system_without_permissions"):
            await shared.execute(
                "UPDATE groups SET permissions = %s WHERE request_id = %s", [Permission.REQUESTS.value], request_id
            )

    async def test_give_neither_permissions_nor_membership(self, tampered: tuple[Record, Cast, UUID]) -> None:
        record, cast, _ = tampered
        person = await record.person(cast.requester)
        assert (person.permissions, person.group_ids, person.is_admin) == (frozenset(), frozenset(), False)

    async def test_make_nobody_an_administrator_to_be_asked(self, tampered: tuple[Record, Cast, UUID]) -> None:
        record, cast, _ = tampered
        template = await record.template()
        request_id = await record.submit(template, cast.approver)
        row = await record.row(request_id)
        assert (row["admins_decide"], row["notified_ids"]) == (True, [cast.admin.id])

    @pytest.mark.parametrize("place", ["approver_group_ids", "escalation_group_id"])
    async def test_give_no_vote(self, tampered: tuple[Record, Cast, UUID], place: str) -> None:
        record, cast, granting = tampered
        (group,) = await record.temporary_groups(granting)
        request_id = await record.submit(await record.template(approver_group_ids=[cast.team.id]), cast.second_approver)
        value: Any = [group["id"]] if place == "approver_group_ids" else group["id"]
        await record.execute(
            f"UPDATE access_requests SET {place} = %s, escalated_at = now() WHERE id = %s",  # noqa: S608 - a constant
            value,
            request_id,
        )
        outcome = await record.decide(request_id, Action.APPROVE, cast.requester)
        assert outcome.refusal == Forbidden.code
