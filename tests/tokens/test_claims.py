"""What an issuer's claims do here: accounts that are made, groups that are filled, and what none of them may do."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from structlog.testing import capture_logs

from api import claims
from api.issuers import Issuers
from db import groups, identities, users
from db.administrators import OPERATOR
from db.groups import GroupView
from db.identities import GroupsSaid, Identity
from domain.actors import TEMPORARY_GROUP_PREFIX, Permission
from domain.directory import GroupValues, UserValues
from domain.newcomers import counted_address, newcomer
from settings import OidcIssuer
from tests.api.house import Somebody
from tests.api.problem import check_problem
from tests.tokens.issuer import AUDIENCE, Issuer, serve_issuer
from tests.tokens.shop import JWT, Shop

_numbers: Iterator[int] = itertools.count(1)


@pytest.fixture
async def issuer(standing_shop: Shop) -> AsyncIterator[Issuer]:
    with serve_issuer() as served:
        # The port may have been another test's issuer.
        await standing_shop.execute("DELETE FROM user_identities")
        await standing_shop.execute("DELETE FROM group_members WHERE issuer IS NOT NULL")
        yield served


@pytest.fixture
async def other(issuer: Issuer) -> AsyncIterator[Issuer]:
    """Another issuer, with keys of the same names; it is configured as the test says."""
    with serve_issuer() as served:
        assert served.url != issuer.url
        yield served


def _trusted(issuer: Issuer, **values: Any) -> OidcIssuer:
    return OidcIssuer.model_validate({"issuer": issuer.url, "audience": AUDIENCE, **values})


@asynccontextmanager
async def _accepting(shop: Shop, *accepted: OidcIssuer) -> AsyncIterator[None]:
    async with Issuers(accepted, leeway_secs=30) as shop.house.app.state.issuers:
        yield


async def _me(shop: Shop, token: str) -> httpx.Response:
    return await shop.house.client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {token}"})


async def _seen(shop: Shop, token: str) -> dict[str, Any]:
    answer = await _me(shop, token)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def _refused(shop: Shop, token: str) -> None:
    check_problem(await _me(shop, token), 401, "unauthenticated")


def _somebody(**changed: Any) -> dict[str, Any]:
    """Claims of somebody whom nobody knows yet."""
    number = next(_numbers)
    return {
        "sub": f"new-{number}",
        "email": f"new.{number}@example.com",
        "email_verified": True,
        "name": f"Newcomer {number}",
        **changed,
    }


async def _people(shop: Shop, email: str = "") -> int:
    return await shop.count("SELECT count(*) AS n FROM users WHERE lower(email) LIKE lower(%s)", email or "%")


class TestTheClock:
    """30 seconds of leeway, judged by a clock that stands."""

    @pytest.mark.parametrize(
        ("inside", "outside"),
        [({"exp": -29}, {"exp": -30}), ({"nbf": 30}, {"nbf": 31}), ({"iat": 30}, {"iat": 31})],
        ids=["exp", "nbf", "iat"],
    )
    async def test_may_be_off_by_the_leeway_and_no_second_more(
        self,
        shop: Shop,
        issuer: Issuer,
        inside: dict[str, int],
        outside: dict[str, int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        now = int(time.time())
        monkeypatch.setattr(claims, "_now", lambda: now)
        await identities.link(shop.house.db, shop.dana.email, issuer.url, "dana-1")
        async with _accepting(shop, _trusted(issuer)):
            for changed, counts in ((inside, True), (outside, False)):
                times = {"iat": now - 600, "exp": now + 300} | {name: now + by for name, by in changed.items()}
                assert ((await _me(shop, issuer.token(**times))).status_code == 200) is counts, changed

    async def test_of_an_issuer_without_leeway_may_not_be_off(
        self, shop: Shop, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = int(time.time())
        monkeypatch.setattr(claims, "_now", lambda: now)
        await identities.link(shop.house.db, shop.dana.email, issuer.url, "dana-1")
        async with Issuers([_trusted(issuer)], leeway_secs=0) as shop.house.app.state.issuers:
            await _seen(shop, issuer.token(iat=now, nbf=now, exp=now + 1))
            for changed in ({"exp": now}, {"nbf": now + 1}, {"iat": now + 1}):
                await _refused(shop, issuer.token(**{"iat": now, "exp": now + 300, **changed}))


class TestWhichClaims:
    async def test_name_somebody_is_up_to_the_issuers_settings(self, shop: Shop, issuer: Issuer) -> None:
        email = f"new.{next(_numbers)}@example.com"
        entra = {
            "subject_claim": "oid",
            "email_claim": "upn",
            "email_verified_claim": "xms_edov",
            "name_claim": "display_name",
            "create_users": True,
        }
        async with _accepting(shop, _trusted(issuer, **entra)):
            said = {
                "oid": "o-1",
                "upn": email,
                "xms_edov": "1",
                "display_name": "Erin",
                "name": "No",
                "email": "n@o.no",
            }
            seen = await _seen(shop, issuer.token(sub=..., **said))
            assert (seen["email"], seen["name"]) == (email, "Erin")
            assert (await _seen(shop, issuer.token(sub="another", oid="o-1")))["id"] == seen["id"]
            await _refused(shop, issuer.token(sub="o-1"))
            for subject in ("", None, 5, ["o-1"], "o-1\x00", "o" * 256, {"o-1": 1}):
                await _refused(shop, issuer.token(oid=subject))

    @pytest.mark.parametrize("said", [{}, {"email_verified": True}, {"xms_edov": False}, {"xms_edov": "true"}])
    async def test_verify_an_address_is_up_to_them_too(self, shop: Shop, issuer: Issuer, said: dict[str, Any]) -> None:
        trusted = _trusted(issuer, create_users=True, email_verified_claim="xms_edov")
        async with _accepting(shop, trusted):
            await _refused(shop, issuer.token(**_somebody(email_verified=...) | said))


class TestAccountsThatAreMade:
    async def test_are_of_people_with_a_verified_address_and_hold_nothing(self, shop: Shop, issuer: Issuer) -> None:
        somebody = _somebody()
        async with _accepting(shop, _trusted(issuer, create_users=True)):
            with capture_logs() as logs:
                seen = await _seen(shop, issuer.token(**somebody))
                again = await _seen(shop, issuer.token(sub=somebody["sub"], email="moved@example.com", name="Other"))
        assert (seen["email"], seen["name"]) == (somebody["email"], somebody["name"])
        assert (seen["permissions"], seen["groups"], seen["owner_id"], seen["active"]) == ([], [], None, True)
        assert again == seen
        made = [entry for entry in logs if entry["event"] == "user_created_by_issuer"]
        assert [(entry["user_id"], entry["issuer"]) for entry in made] == [(seen["id"], issuer.url)]

    async def test_may_exchange_tokens_at_once(self, shop: Shop, issuer: Issuer) -> None:
        async with _accepting(shop, _trusted(issuer, create_users=True)):
            token = await shop.token(subject_token=issuer.token(**_somebody()), subject_token_type=JWT)
            assert "roles" not in await shop.verified(token)

    @pytest.mark.parametrize(
        "changed",
        [
            {"email_verified": False},
            {"email_verified": "true"},
            {"email_verified": 1},
            {"email_verified": ...},
            {"email": ...},
            {"email": None},
            {"email": 5},
            {"email": ["x@example.com"]},
            {"email": ""},
            {"email": "nobody"},
            {"email": "a@b@example.com"},
            {"email": "Dana <x@example.com>"},
            {"email": "x@example.com\n"},
            {"email": "x\x00@example.com"},
            {"email": "\ud800@example.com"},
            {"email": "x" * 60_000 + "@example.com"},
        ],
        ids=lambda value: ascii(value)[:40],
    )
    async def test_are_of_nobody_else(self, shop: Shop, issuer: Issuer, changed: dict[str, Any]) -> None:
        before = await _people(shop)
        async with _accepting(shop, _trusted(issuer, create_users=True)):
            await _refused(shop, issuer.token(**_somebody(**changed)))
        assert await _people(shop) == before

    async def test_are_made_by_issuers_that_are_trusted_with_it(self, shop: Shop, issuer: Issuer) -> None:
        async with _accepting(shop, _trusted(issuer, link_by_email=True)):
            await _refused(shop, issuer.token(**_somebody()))

    async def test_are_of_the_domains_that_count(self, shop: Shop, issuer: Issuer) -> None:
        trusted = _trusted(
            issuer, create_users=True, link_by_email=True, email_domains=["Corp.example", "bücher.example"]
        )
        async with _accepting(shop, trusted):
            for email in (
                "a@example.com",
                "a@sub.corp.example",
                "a@corp.example.evil.com",
                "a@evil.com@corp.example",
                '"a@evil.com"@corp.example',
                "a@notcorp.example",
                "a@corp。example",
                shop.dana.email,
            ):
                await _refused(shop, issuer.token(**_somebody(email=email)))
            for email, stored in (
                (f"A.{next(_numbers)}@CORP.example", None),
                (f"b.{next(_numbers)}@xn--bcher-kva.example", "bücher.example"),
            ):
                seen = await _seen(shop, issuer.token(**_somebody(email=email)))
                local, _, domain = email.partition("@")
                assert seen["email"] == f"{local}@{stored or domain.lower()}"

    async def test_never_take_over_one_that_there_is(self, shop: Shop, issuer: Issuer) -> None:
        bot = await shop.person("bot", owner=shop.dana)
        gone = await shop.person("gone")
        await shop.execute("UPDATE users SET active = false WHERE id = %s", gone.id)
        before = await _people(shop)
        async with _accepting(shop, _trusted(issuer, create_users=True)):
            for account in (shop.dana, shop.house.admin, bot, gone):
                for email in (account.email, account.email.upper()):
                    await _refused(shop, issuer.token(**_somebody(email=email)))
        async with _accepting(shop, _trusted(issuer, create_users=True, link_by_email=True)):
            for account in (bot, gone):
                await _refused(shop, issuer.token(**_somebody(email=account.email)))
            linked = await _seen(shop, issuer.token(**_somebody(email=shop.dana.email)))
            assert linked["id"] == str(shop.dana.id), "the rule for linking is as it was"
            await _refused(shop, issuer.token(**_somebody(email=shop.dana.email)))
        assert await _people(shop) == before

    async def test_are_no_others_where_letters_are_alike(self, shop: Shop, issuer: Issuer) -> None:
        kim = await shop.person("kim")
        async with _accepting(shop, _trusted(issuer, create_users=True, link_by_email=True)):
            await _refused(shop, issuer.token(**_somebody(email=kim.email.replace("k", "\N{KELVIN SIGN}"))))

    async def test_stay_out_when_they_are_deactivated(self, shop: Shop, issuer: Issuer) -> None:
        somebody = _somebody()
        async with _accepting(shop, _trusted(issuer, create_users=True, link_by_email=True)):
            user_id = UUID((await _seen(shop, issuer.token(**somebody)))["id"])
            values = UserValues(email=somebody["email"], name="Gone", active=False)
            await users.replace(shop.house.db, OPERATOR, user_id, values)
            await _refused(shop, issuer.token(**somebody))
            await _refused(shop, issuer.token(**{**somebody, "email": f"x.{somebody['email']}"}))
            await _refused(shop, issuer.token(**{**somebody, "sub": "as somebody else"}))
        assert await _people(shop, f"%{somebody['email']}") == 1

    async def test_are_not_shared_with_who_comes_later_from_another_issuer(
        self, shop: Shop, issuer: Issuer, other: Issuer
    ) -> None:
        victim = _somebody()
        # Whoever runs it makes an account for somebody who has not come yet, and waits.
        hostile = _trusted(other, create_users=True)
        async with _accepting(shop, hostile, _trusted(issuer, create_users=True, link_by_email=True)):
            squatted = await _seen(shop, other.token(**{**victim, "sub": "evil"}))
            await _refused(shop, issuer.token(**victim))
            # An operator who has looked into it decides.
            await identities.link(shop.house.db, victim["email"], issuer.url, victim["sub"])
            assert (await _seen(shop, issuer.token(**victim)))["id"] == squatted["id"]

    async def test_of_one_issuer_are_not_open_to_its_subjects_at_another(
        self, shop: Shop, issuer: Issuer, other: Issuer
    ) -> None:
        somebody = _somebody()
        both = [_trusted(each, create_users=True) for each in (issuer, other)]
        async with _accepting(shop, *both):
            await _seen(shop, issuer.token(**somebody))
            await _refused(shop, other.token(**somebody))
            await _refused(shop, other.token(**{**somebody, "iss": issuer.url}, aud="else"))

    async def test_by_many_first_calls_at_once_are_one(self, shop: Shop, issuer: Issuer) -> None:
        somebody = _somebody()
        async with _accepting(shop, _trusted(issuer, create_users=True)):
            seen = await asyncio.gather(*(_seen(shop, issuer.token(**somebody)) for _ in range(12)))
        assert len({each["id"] for each in seen}) == 1
        assert await _people(shop, somebody["email"]) == 1

    async def test_with_one_address_and_many_subjects_are_one(self, shop: Shop, issuer: Issuer) -> None:
        somebody = _somebody()
        tokens = [issuer.token(**{**somebody, "sub": f"{somebody['sub']}.{number}"}) for number in range(12)]
        async with _accepting(shop, _trusted(issuer, create_users=True)):
            answers = await asyncio.gather(*(_me(shop, token) for token in tokens))
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 11
        assert await _people(shop, somebody["email"]) == 1

    async def test_of_one_subject_with_many_addresses_are_one(self, shop: Shop, issuer: Issuer) -> None:
        somebody = _somebody()
        tokens = [issuer.token(**{**somebody, "email": f"{number}.{somebody['email']}"}) for number in range(12)]
        async with _accepting(shop, _trusted(issuer, create_users=True)):
            seen = await asyncio.gather(*(_seen(shop, token) for token in tokens))
        assert len({each["id"] for each in seen}) == 1
        assert await _people(shop, f"%{somebody['email']}") == 1, "no account is left without its identity"

    @pytest.mark.parametrize(
        "name",
        [
            "Dana\x1b[31m",
            "Dana\nAdmin",
            "Da\u2028na",
            "\u202enimdA",
            "\x00",
            "\ud800",
            "",
            "  ",
            "x" * 201,
            5,
            None,
            ["D"],
        ],
        ids=ascii,
    )
    async def test_are_called_by_their_address_where_the_name_is_none(
        self, shop: Shop, issuer: Issuer, name: Any
    ) -> None:
        somebody = _somebody(name=name)
        async with _accepting(shop, _trusted(issuer, create_users=True)):
            assert (await _seen(shop, issuer.token(**somebody)))["name"] == somebody["email"]

    def test_have_addresses_and_names_as_accounts_have_them(self) -> None:
        assert counted_address("Dana@EXAMPLE.com", ()) == "Dana@example.com"
        # Two letters that look like one are another mailbox than that one.
        assert counted_address("da\u0308na@example.com", ()) is None
        longest = f"{'l' * 64}@{'d' * 60}.{'e' * 60}.{'f' * 60}.com"
        assert newcomer(longest, None).name == longest[:200]


async def _group(shop: Shop, *permissions: Permission, name: str | None = None) -> GroupView:
    values = GroupValues(name=name or f"filled {next(_numbers):05}", permissions=list(permissions))
    return await groups.create(shop.house.db, OPERATOR, values)


async def _known(shop: Shop, issuer: Issuer) -> tuple[Somebody, str]:
    """Somebody with an account, and their subject."""
    somebody, subject = await shop.person("known"), f"known-{next(_numbers)}"
    await identities.link(shop.house.db, somebody.email, issuer.url, subject)
    return somebody, subject


def _held(seen: dict[str, Any]) -> list[str]:
    return sorted((group["name"] for group in seen["groups"]), key=str.casefold)


class _Told:
    """An issuer that says, in one token after the other, which groups somebody is in."""

    def __init__(self, shop: Shop, issuer: Issuer, subject: str) -> None:
        self._shop, self._issuer, self._subject = shop, issuer, subject
        self._age = 1_000

    def token(self, groups: Any, **changed: Any) -> str:
        """A newer one than those before."""
        self._age -= 1
        said = {"sub": self._subject, "iat": timedelta(seconds=-self._age), "groups": groups, **changed}
        return self._issuer.token(**said)

    async def groups(self, groups: Any, **changed: Any) -> list[str]:
        """The groups that somebody is in once the issuer has said so."""
        return _held(await _seen(self._shop, self.token(groups, **changed)))


class TestGroups:
    @pytest.fixture
    async def a(self, shop: Shop) -> GroupView:
        return await _group(shop)

    @pytest.fixture
    async def b(self, shop: Shop) -> GroupView:
        return await _group(shop)

    @pytest.fixture
    def trusted(self, issuer: Issuer, a: GroupView, b: GroupView) -> OidcIssuer:
        return _trusted(issuer, groups_claim="groups", groups={"A": a.name, "B": b.name.upper(), "A too": a.name})

    async def test_are_those_that_the_claims_say(
        self, shop: Shop, issuer: Issuer, a: GroupView, b: GroupView, trusted: OidcIssuer
    ) -> None:
        _, subject = await _known(shop, issuer)
        told = _Told(shop, issuer, subject)
        async with _accepting(shop, trusted):
            with capture_logs() as logs:
                assert await told.groups(["A", "unheard of"]) == [a.name]
                assert await told.groups(["B", "A", "A too"]) == [a.name, b.name]
                assert await told.groups("A") == [a.name], "some send a single one as it is"
                assert await told.groups(["a", "B "]) == [], "values are compared as they are"
                assert await told.groups(["B"]) == [b.name]
                assert await told.groups(...) == [], "no claim is how some say that there are none"
        changes = [entry for entry in logs if entry["event"] == "groups_changed_by_issuer"]
        assert [(len(entry["joined"]), len(entry["left"])) for entry in changes] == [
            (1, 0), (1, 0), (0, 1), (0, 1), (1, 0), (0, 1)
        ]  # fmt: skip

    async def test_come_with_an_account_that_is_made(
        self, shop: Shop, issuer: Issuer, a: GroupView, trusted: OidcIssuer
    ) -> None:
        somebody = _somebody()
        async with _accepting(shop, trusted.model_copy(update={"create_users": True})):
            seen = await asyncio.gather(*(_seen(shop, issuer.token(**somebody, groups=["A"])) for _ in range(8)))
        assert {tuple(_held(each)) for each in seen} == {(a.name,)}

    async def test_made_by_hand_stay_and_keep_their_place(
        self, shop: Shop, issuer: Issuer, a: GroupView, b: GroupView, trusted: OidcIssuer
    ) -> None:
        somebody, subject = await _known(shop, issuer)
        told, elsewhere = _Told(shop, issuer, subject), await _group(shop)
        for group in (a, elsewhere):
            await groups.add_member(shop.house.db, OPERATOR, group.id, somebody.id)
        place = "SELECT joined AS n FROM group_members WHERE group_id = %s AND user_id = %s"
        before = await shop.count(place, a.id, somebody.id)
        async with _accepting(shop, trusted):
            assert await told.groups(["A", "B"]) == [a.name, b.name, elsewhere.name]
            for group, made_by in ((a, None), (b, issuer.url)):
                members = await shop.house.call("GET", f"/groups/{group.id}/members", shop.house.admin)
                assert [(each["id"], each["issuer"]) for each in members.json()["items"]] == [
                    (str(somebody.id), made_by)
                ]
            assert await told.groups([]) == [a.name, elsewhere.name]
            assert await shop.count(place, a.id, somebody.id) == before
            # What was made by claims becomes somebody's own doing when they do it as well.
            assert await told.groups(["B"]) == [a.name, b.name, elsewhere.name]
            before = await shop.count(place, b.id, somebody.id)
            await groups.add_member(shop.house.db, OPERATOR, b.id, somebody.id)
            assert await told.groups([]) == [a.name, b.name, elsewhere.name]
            assert await shop.count(place, b.id, somebody.id) == before

    async def test_of_another_issuer_are_left_alone(
        self, shop: Shop, issuer: Issuer, other: Issuer, a: GroupView, b: GroupView, trusted: OidcIssuer
    ) -> None:
        somebody, subject = await _known(shop, issuer)
        await identities.link(shop.house.db, somebody.email, other.url, "theirs")
        # The same values, and a group of the first issuer that this one is not to fill.
        second = _trusted(other, groups_claim="groups", groups={"B": b.name})
        told, hostile = _Told(shop, issuer, subject), _Told(shop, other, "theirs")
        async with _accepting(shop, trusted, second):
            assert await told.groups(["A"]) == [a.name]
            assert await hostile.groups([]) == [a.name]
            assert await hostile.groups(["A", "B", a.name, str(a.id)]) == [a.name, b.name]
            assert await told.groups([]) == [b.name]
            assert await hostile.groups([]) == []

    @pytest.mark.parametrize(
        "said",
        [
            {"groups": ..., "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://x/"}}},
            {"groups": ["B"], "_claim_names": {"groups": "src1"}},
            {"groups": ..., "hasgroups": True},
            {"groups": 5},
            {"groups": {"A": True}},
            {"groups": ["B", 5]},
            {"groups": [["B"]]},
            {"groups": True},
        ],
        ids=lambda value: str(value)[:60],
    )
    async def test_stay_as_they_are_where_the_token_does_not_say(
        self, shop: Shop, issuer: Issuer, a: GroupView, trusted: OidcIssuer, said: dict[str, Any]
    ) -> None:
        _, subject = await _known(shop, issuer)
        told = _Told(shop, issuer, subject)
        async with _accepting(shop, trusted):
            assert await told.groups(["A"]) == [a.name]
            token = told.token(**said)
            with capture_logs() as logs:
                for _ in range(3):
                    assert _held(await _seen(shop, token)) == [a.name]
            assert [entry["event"] for entry in logs].count("groups_of_issuer_unknown") == 1, "once for each token"

    @pytest.mark.parametrize("elsewhere", [{"_claim_names": {"other": "src1"}}, {"_claim_names": ["groups"]}])
    async def test_are_not_kept_by_what_is_said_of_other_claims(
        self, shop: Shop, issuer: Issuer, a: GroupView, trusted: OidcIssuer, elsewhere: dict[str, Any]
    ) -> None:
        _, subject = await _known(shop, issuer)
        told = _Told(shop, issuer, subject)
        async with _accepting(shop, trusted):
            assert await told.groups(["A"]) == [a.name]
            assert await told.groups(..., **elsewhere) == []

    async def test_go_by_the_newest_token(
        self, shop: Shop, issuer: Issuer, a: GroupView, b: GroupView, trusted: OidcIssuer
    ) -> None:
        _, subject = await _known(shop, issuer)
        told = _Told(shop, issuer, subject)
        old, new = told.token(["A", "B"]), told.token(["A"])
        async with _accepting(shop, trusted):
            assert _held(await _seen(shop, old)) == [a.name, b.name]
            assert _held(await _seen(shop, new)) == [a.name]
            # A token that is valid for a while yet does not bring back what its owner has lost.
            assert _held(await _seen(shop, old)) == [a.name]
            await _refused(shop, issuer.token(sub=subject, iat=..., groups=["B"]))
            await _refused(shop, issuer.token(sub=subject, iat=timedelta(hours=1), groups=["B"]))
            assert await told.groups(["A"], iat=-(10**18)) == [a.name], "from before there were tokens"

    async def test_go_by_the_newest_of_two_tokens_at_once(
        self, shop: Shop, issuer: Issuer, a: GroupView, b: GroupView, trusted: OidcIssuer
    ) -> None:
        """The call with the older one has looked before the newer one was applied, and writes after it."""
        _, subject = await _known(shop, issuer)
        old, new = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
        identity = Identity(issuer.url, subject)
        async with _accepting(shop, trusted):
            for names, at in (({b.name}, new), ({a.name}, old), ({a.name}, new)):
                said = GroupsSaid(frozenset(names), at)
                followed = await identities._follow(shop.house.db, identity, said)
                assert (followed is not None) is (names == {b.name})
            admission = await identities.admit(shop.house.db, identity)
        assert admission is not None
        assert admission.person.group_ids == {b.id}

    async def test_are_written_once_for_each_token(
        self, shop: Shop, issuer: Issuer, a: GroupView, trusted: OidcIssuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        somebody, subject = await _known(shop, issuer)
        token = _Told(shop, issuer, subject).token(["A"])
        version = "SELECT xmin::text::bigint AS n FROM user_identities WHERE issuer = %s AND subject = %s"
        async with _accepting(shop, trusted):
            await asyncio.gather(*(_seen(shop, token) for _ in range(8)))
            before = await shop.count(version, issuer.url, subject)
            with monkeypatch.context() as without:
                without.delattr(identities, "_follow")
                for _ in range(3):
                    assert _held(await _seen(shop, token)) == [a.name]
            assert await shop.count(version, issuer.url, subject) == before
            # So who is taken out by hand is out until the issuer says so once more.
            await groups.remove_member(shop.house.db, OPERATOR, a.id, somebody.id)
            assert _held(await _seen(shop, token)) == []

    async def test_with_permissions_are_filled_by_issuers_that_may_give_these(self, shop: Shop, issuer: Issuer) -> None:
        _, subject = await _known(shop, issuer)
        told = _Told(shop, issuer, subject)
        mighty = await _group(shop, Permission.DIRECTORY, Permission.REQUESTS)
        trusted_by_hand, theirs = await _known(shop, issuer)
        await groups.add_member(shop.house.db, OPERATOR, mighty.id, trusted_by_hand.id)
        mapped = {"groups_claim": "groups", "groups": {"A": mighty.name}}
        for may_have in ([], ["access_requests.manage"], ["tasks.manage"]):
            async with _accepting(shop, _trusted(issuer, **mapped, groups_may_have=may_have)):
                with capture_logs() as logs:
                    seen = await _seen(shop, told.token(["A"]))
                by_hand = await _Told(shop, issuer, theirs).groups(["A"], iat=timedelta(seconds=len(may_have)))
            assert (_held(seen), seen["permissions"]) == ([], [])
            assert by_hand == [mighty.name], "what was done by hand stays"
            [entry] = [entry for entry in logs if entry["event"] == "groups_refused_to_issuer"]
            assert entry["groups"] == [mighty.name]
        may_have = ["access_requests.manage", "directory.manage"]
        async with _accepting(shop, _trusted(issuer, **mapped, groups_may_have=may_have)):
            seen = await _seen(shop, told.token(["A"]))
            assert (_held(seen), len(seen["permissions"])) == ([mighty.name], 2)
            others = _Told(shop, issuer, (await _known(shop, issuer))[1])
            assert (
                await others.groups(["a", mighty.name, str(mighty.id), "administrators", "permissions of admin"]) == []
            )

    async def test_that_are_given_permissions_later_are_left_by_who_came_by_claims(
        self, shop: Shop, issuer: Issuer, a: GroupView, trusted: OidcIssuer
    ) -> None:
        _, subject = await _known(shop, issuer)
        told = _Told(shop, issuer, subject)
        async with _accepting(shop, trusted):
            assert await told.groups(["A"]) == [a.name]
            values = GroupValues(name=a.name, permissions=[Permission.TASKS])
            await groups.replace(shop.house.db, OPERATOR, a.id, values)
            seen = await _seen(shop, told.token(["A"]))
            assert (_held(seen), seen["permissions"]) == ([], [])

    async def test_that_there_are_not_are_reported_and_the_others_filled(
        self, shop: Shop, issuer: Issuer, a: GroupView
    ) -> None:
        _, subject = await _known(shop, issuer)
        told, name = _Told(shop, issuer, subject), f"not there {next(_numbers):05}"
        async with _accepting(shop, _trusted(issuer, groups_claim="groups", groups={"A": a.name, "N": name})):
            with capture_logs() as logs:
                assert await told.groups(["A", "N"]) == [a.name]
            [entry] = [entry for entry in logs if entry["event"] == "groups_of_issuer_missing"]
            assert entry["groups"] == [name]
            made = await _group(shop, name=name.upper())
            assert await told.groups(["A", "N"]) == [a.name, made.name]
            await groups.delete(shop.house.db, OPERATOR, made.id)
            assert await told.groups(["A", "N"]) == [a.name]

    async def test_of_requests_are_never_filled(self, shop: Shop, issuer: Issuer) -> None:
        _, subject = await _known(shop, issuer)
        request_id = await shop.granted(shop.dana, f"value-{next(_numbers)}")
        name = f"{TEMPORARY_GROUP_PREFIX}{request_id}"
        assert await shop.count("SELECT count(*) AS n FROM groups WHERE lower(name) = lower(%s)", name) == 1
        with pytest.raises(ValueError, match="temporary group"):
            _trusted(issuer, groups_claim="groups", groups={"A": name})
        # Were the settings not as careful.
        unchecked = _trusted(issuer, groups_claim="groups", groups={"A": "x"}).model_copy(
            update={"groups": {"A": name}}
        )
        async with _accepting(shop, unchecked):
            assert await _Told(shop, issuer, subject).groups(["A", name]) == []

    async def test_may_be_thousands_there(self, shop: Shop, issuer: Issuer, a: GroupView, trusted: OidcIssuer) -> None:
        _, subject = await _known(shop, issuer)
        told = _Told(shop, issuer, subject)
        async with _accepting(shop, trusted):
            assert await told.groups([f"{number}" for number in range(5_000)] + ["A"]) == [a.name]
            await _refused(shop, told.token([f"{number}" for number in range(50_000)]))

    async def test_of_somebody_deactivated_are_left_alone(
        self, shop: Shop, issuer: Issuer, trusted: OidcIssuer
    ) -> None:
        somebody, subject = await _known(shop, issuer)
        told = _Told(shop, issuer, subject)
        async with _accepting(shop, trusted):
            await shop.execute("UPDATE users SET active = false WHERE id = %s", somebody.id)
            await _refused(shop, told.token(["A"]))
        assert await shop.count("SELECT count(*) AS n FROM group_members WHERE user_id = %s", somebody.id) == 0

    async def test_go_with_the_identity(
        self, shop: Shop, issuer: Issuer, a: GroupView, b: GroupView, trusted: OidcIssuer
    ) -> None:
        somebody, subject = await _known(shop, issuer)
        await groups.add_member(shop.house.db, OPERATOR, b.id, somebody.id)
        async with _accepting(shop, trusted):
            assert await _Told(shop, issuer, subject).groups(["A", "B"]) == [a.name, b.name]
        await identities.unlink(shop.house.db, issuer.url, subject)
        me = await shop.house.call("GET", "/users/me", somebody)
        assert _held(me.json()) == [b.name]

    async def test_that_somebody_leaves_have_their_requests_looked_at(
        self, shop: Shop, issuer: Issuer, a: GroupView, trusted: OidcIssuer
    ) -> None:
        """Whoever was to decide may be gone: as when they are taken out by hand."""
        _, subject = await _known(shop, issuer)
        told = _Told(shop, issuer, subject)
        template = await shop.house.template(name=f"decided {next(_numbers)}", approver_group_ids=[a.id])
        async with _accepting(shop, trusted):
            await told.groups(["A"])
            request_id = await shop.house.request(template, shop.dana)
            await shop.execute("UPDATE access_requests SET attention_at = NULL WHERE id = %s", request_id)
            marked = "SELECT count(*) AS n FROM access_requests WHERE id = %s AND attention_at IS NOT NULL"
            await told.groups(["A", "B"])
            assert await shop.count(marked, request_id) == 0
            await told.groups([])
            assert await shop.count(marked, request_id) == 1

    async def test_change_for_many_at_once_without_standing_in_each_others_way(
        self, shop: Shop, issuer: Issuer, other: Issuer, a: GroupView, b: GroupView, trusted: OidcIssuer
    ) -> None:
        somebody, subject = await _known(shop, issuer)
        await identities.link(shop.house.db, somebody.email, other.url, "theirs")
        second = _trusted(other, groups_claim="groups", groups={"A": b.name, "B": a.name})
        told, also = _Told(shop, issuer, subject), _Told(shop, other, "theirs")
        async with _accepting(shop, trusted, second):
            tokens = [
                one.token(said)
                for _ in range(6)
                for one in (told, also)
                for said in (["A", "B"], ["B", "A"], [], ["B"])
            ]
            await asyncio.gather(*(_seen(shop, token) for token in tokens))
            await told.groups([])
            assert await also.groups([]) == []


class TestSettings:
    @pytest.mark.parametrize(
        ("values", "problem"),
        [
            ({"subject_claim": "email"}, "pass to others"),
            ({"subject_claim": "nick", "name_claim": "nick"}, "pass to others"),
            ({"subject_claim": ""}, "at least 1"),
            ({"create_users": True, "email_claim": "upn"}, "email_verified_claim"),
            ({"link_by_email": True, "email_claim": "upn"}, "email_verified_claim"),
            ({"email_domains": ["example.com"]}, "needs link_by_email or create_users"),
            ({"create_users": True, "email_domains": ["*.example.com"]}, "must be a domain"),
            ({"create_users": True, "email_domains": ["@example.com"]}, "must be a domain"),
            ({"create_users": True, "email_domains": [""]}, "must be a domain"),
            ({"groups_claim": "groups"}, "together"),
            ({"groups": {"A": "dba"}}, "together"),
            ({"groups_claim": "groups", "groups": {}}, "together"),
            ({"groups_claim": "groups", "groups": {"": "dba"}}, "at least 1"),
            ({"groups_claim": "groups", "groups": {"A": ""}}, "at least 1"),
            ({"groups_claim": "groups", "groups": {"A": "a\nb"}}, "single line"),
            ({"groups_claim": "groups", "groups": {"A": "__access_req_1"}}, "temporary group"),
            ({"groups_claim": "groups", "groups": {"A": " __ACCESS_req_1"}}, "temporary group"),
            ({"groups_claim": "groups", "groups": ["A"]}, "dictionary"),
            ({"groups_may_have": ["tasks.manage"]}, "needs the groups"),
            ({"groups_claim": "g", "groups": {"A": "a"}, "groups_may_have": ["root"]}, "tasks.manage"),
            ({"web_scope": "email"}, "openid"),
        ],
        ids=str,
    )
    def test_that_contradict_themselves_are_refused(self, values: dict[str, Any], problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            OidcIssuer.model_validate({"issuer": "https://login.example.com", "audience": "x", **values})

    @pytest.mark.parametrize("page", ["tokens.md", "pages.md"])
    def test_that_are_documented_are_good(self, page: str) -> None:
        text = (Path(__file__).parents[2] / "docs" / page).read_text()
        examples = re.findall(r"```json\n(\[\{.*?)\n```", text, re.DOTALL)
        assert examples
        for example in examples:
            for values in json.loads(example):
                OidcIssuer.model_validate(values)
