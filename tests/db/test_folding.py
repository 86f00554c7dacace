"""A name finds itself, whatever case it is typed in; an address in any of its spellings."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import assume, example, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from scim2_models import ScimFilter

from db import audit_log, groups, offers, people, requests, users
from db import scim as directory
from db.administrators import OPERATOR
from db.folding import within
from db.paging import Position
from domain import scim
from domain.addresses import normal_address, sought_address
from domain.audit_log import Kind
from domain.directory import GroupValues, UserValues
from domain.errors import InUse
from tests.conftest import Databases
from tests.record import Account, Record

CASES = (str.lower, str.upper, str.casefold, str.title, str.swapcase)
letters = st.characters(
    # The dotless i is a letter of its own: its upper case is that of the i with a dot.
    codec="utf-8",
    exclude_categories=("Cc", "Cn", "Cs", "Co"),
    exclude_characters="\N{LATIN SMALL LETTER DOTLESS I}",
)
names = st.text(letters, min_size=1, max_size=30).map(lambda text: unicodedata.normalize("NFC", text))
NAMED = ["ΟΜΑΔΑ ΠΕΛΑΤΕΣ x", "Ärzte 100%", "İstanbul_", "Straßenbau", "ﬁnance \\ ops", "ΐ", "dba_team", "Weiß 數據庫"]


@pytest.fixture(scope="module")
def connection(new_database: Databases) -> Iterator[psycopg.Connection[Any]]:
    with new_database() as url, psycopg.connect(url, autocommit=True) as connection:
        yield connection


@limits(max_examples=150)
@given(names, st.sampled_from(CASES), st.data())
@example("ΟΜΑΔΑ ΠΕΛΑΤΕΣ x", str.lower, None)
@example("Straße ΐ ŉ ﬁ ς", str.upper, None)
def test_a_name_finds_itself_in_any_case(
    connection: psycopg.Connection[Any], name: str, case: Any, data: st.DataObject | None
) -> None:
    typed = unicodedata.normalize("NFC", case(name))
    part = typed
    if data is not None:
        begin = data.draw(st.integers(0, len(name) - 1))
        end = data.draw(st.integers(begin + 1, len(name)))
        part = name[begin:end]
        # A mark that begins a part joins the letter before it in the name.
        assume(not unicodedata.combining(part[0]))
        assume(end == len(name) or not unicodedata.combining(name[end]))
        part = case(part)
    found = connection.execute(
        "SELECT folded_name(%s) = folded_name(%s), folded_name(%s) LIKE folded_name(%s)",
        [name, typed, name, within(part)],
    ).fetchone()
    assert found == (True, True), (name, typed, part)


@limits(max_examples=60)
@given(st.text(st.characters(codec="utf-8", categories=("L", "Nd")), min_size=1, max_size=12))
@example("straße")
def test_an_address_finds_itself_and_no_other(connection: psycopg.Connection[Any], local: str) -> None:
    try:
        stored = normal_address(f"{local}@straße.example")
    except ValueError:
        stored = ""
    assume(stored)
    typed = f"{stored.rpartition('@')[0]}@XN--STRAE-OQA.Example"
    found = connection.execute(
        "SELECT folded_address(%s) = folded_address(%s), folded_address(%s) = folded_address(%s)",
        [stored, sought_address(typed), stored, sought_address(typed).replace("ß", "ss")],
    ).fetchone()
    assert found == (True, False)


@pytest.mark.parametrize("case", [str, *CASES])
async def test_every_list_finds_a_name_by_itself(shared: Record, case: Callable[[str], str]) -> None:
    db, mark = shared.db, uuid4().hex[:6]
    caller = await shared.person(await shared.user())
    for each in NAMED:
        name = f"{each} {mark}"
        group = await groups.create(db, OPERATOR, GroupValues(name=name))
        template = await shared.template(name=name)
        typed = case(name)
        by_name = await groups.list_groups(db, Position(), name=typed)
        assert [found.id for found in by_name.items] == [group.id], typed
        filter_ = ScimFilter[scim.Group](f"displayName eq {json.dumps(typed)} or displayName co {json.dumps(typed)}")
        filtered = await directory.list_groups(db, filter_, 1, 9, with_members=False)
        assert [found.id for found in filtered.resources] == [str(group.id)], typed
        with pytest.raises(InUse):
            await groups.create(db, OPERATOR, GroupValues(name=typed))
        async with db.connection() as connection:
            offered = await offers.list_offers(connection, caller, typed)
        assert [offer.id for offer in offered] == [template.id], typed


SPELLINGS = [
    "erika.{mark}@straße.example",
    "ERIKA.{mark}@xn--strae-oqa.example",
    "Erika.{mark}@STRAßE\u3002\uff25xample",
]


async def test_every_look_up_finds_an_address_by_each_spelling(shared: Record) -> None:
    db, mark = shared.db, uuid4().hex[:6]
    template = await shared.template(auto_approve=True)
    for local, others in (
        (SPELLINGS[0], SPELLINGS),
        ("erika.{mark}@strasse.example", ["Erika.{mark}@Strasse.Example"]),
    ):
        person = await users.create(db, UserValues(email=local.format(mark=mark), name="Erika"))
        await shared.submit(template, Account(person.id, person.email))
        for spelling in others:
            typed = spelling.format(mark=mark)
            listed = await users.list_users(db, Position(), email=typed)
            assert [found.id for found in listed.items] == [person.id], typed
            with pytest.raises(InUse):
                await users.create(db, UserValues(email=typed, name="Erika"))
            async with db.connection() as connection:
                found = await people.find(connection, typed)
                history = await requests.list_all(connection, Position(), requester=typed[:-4])
            assert found is not None
            assert found.id == person.id
            assert [each.requester.id for each in history.items] == [person.id]
            filter_ = ScimFilter[scim.User](f"userName eq {json.dumps(typed)} and emails.value eq {json.dumps(typed)}")
            assert [each.id for each in (await directory.list_users(db, filter_, 1, 9)).resources] == [str(person.id)]


async def test_the_audit_log_finds_an_actor_by_each_spelling_of_the_address(shared: Record) -> None:
    mark = uuid4().hex[:6]
    async with shared.db.transaction() as connection:
        await connection.execute("SELECT set_config('justiam.actor', %s, true)", [f"erika.{mark}@straße.example"])
        await connection.execute(
            "INSERT INTO groups (id, name, description) VALUES (gen_random_uuid(), %s, '')", [f"audited {mark}"]
        )
    for domain, there in (("straße.example", 1), ("xn--strae-oqa.example", 1), ("strasse.example", 0)):
        page = await audit_log.list_entries(shared.db, Position(), kinds=list(Kind), actor=f"erika.{mark}@{domain}")
        assert len(page.items) == there
