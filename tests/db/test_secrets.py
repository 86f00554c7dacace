"""What nobody may read: sealed for one purpose, under keys that can be exchanged, and never in plain anywhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner, Result

from cli.main import app
from db import integrations, secrets
from db.database import Database
from db.secrets import SecretVault
from domain.errors import NotFound, SecretUnreadable
from domain.integrations import IntegrationValues
from domain.secrets import LONGEST_VALUE_CHARS, NewSecret
from tests.record import Record

SECRET_KEY: Final = SecretStr("the secret key of a service that is tested")
OLD, NEW, OTHER = (SecretStr(f"an encryption key that is long enough {number}") for number in range(3))
VALUE: Final = "https://hooks.example.com/hush-hush-Grüße\nand a second line"
VAULT: Final = SecretVault(SECRET_KEY, [OLD])


async def _make(db: Database, name: str = "SLACK_WEBHOOK", value: str = VALUE, vault: SecretVault = VAULT) -> UUID:
    return (await secrets.create(db, vault, NewSecret(name=name, value=SecretStr(value)))).id


async def _reveal(db: Database, vault: SecretVault, *names: str) -> dict[str, str]:
    async with db.connection() as connection:
        return await secrets.reveal(connection, vault, names)


class TestVault:
    @pytest.mark.parametrize("plain", [VALUE, "", "x" * LONGEST_VALUE_CHARS], ids=["text", "nothing", "much"])
    def test_opens_what_it_sealed(self, plain: str) -> None:
        assert VAULT.open("one", VAULT.seal("one", plain)) == plain

    def test_seals_the_same_differently_each_time(self) -> None:
        assert VAULT.seal("one", VALUE) != VAULT.seal("one", VALUE)

    def test_does_not_open_for_another_purpose(self) -> None:
        with pytest.raises(SecretUnreadable, match="two was not encrypted for this"):
            VAULT.open("two", VAULT.seal("one", VALUE))

    @pytest.mark.parametrize("place", range(9 + 12 + 3 + 16))
    def test_does_not_open_what_was_changed(self, place: int) -> None:
        sealed = bytearray(VAULT.seal("one", "abc"))
        assert len(sealed) == 9 + 12 + 3 + 16
        sealed[place] ^= 1
        with pytest.raises(SecretUnreadable):
            VAULT.open("one", bytes(sealed))

    @pytest.mark.parametrize("length", [0, 1, 9, 10, 21, 25, 36])
    def test_does_not_open_what_was_cut_off(self, length: int) -> None:
        with pytest.raises(SecretUnreadable):
            VAULT.open("one", VAULT.seal("one", VALUE)[:length])

    def test_says_that_the_key_is_another(self) -> None:
        sealed = SecretVault(SECRET_KEY, [NEW]).seal("secret:X", VALUE)
        with pytest.raises(SecretUnreadable, match=r"secret:X .*JUSTIAM_ENCRYPTION_KEYS") as error:
            VAULT.open("secret:X", sealed)
        assert VALUE not in str(error.value)

    def test_encrypts_with_the_first_key_and_decrypts_with_all(self) -> None:
        both = SecretVault(SECRET_KEY, [NEW, OLD])
        assert both.open("one", VAULT.seal("one", VALUE)) == VALUE
        assert SecretVault(SECRET_KEY, [NEW]).open("one", both.seal("one", VALUE)) == VALUE

    def test_derives_a_key_where_none_is_set_and_opens_with_it_when_one_is(self) -> None:
        without = SecretVault(SECRET_KEY)
        assert VAULT.open("one", without.seal("one", VALUE)) == VALUE
        with pytest.raises(SecretUnreadable):
            without.open("one", VAULT.seal("one", VALUE))
        with pytest.raises(SecretUnreadable, match="JUSTIAM_SECRET_KEY"):
            SecretVault(OTHER).open("one", without.seal("one", VALUE))

    def test_does_not_show_its_keys(self) -> None:
        shown = f"{VAULT!r} {VAULT}"
        assert "key that is long enough" not in shown
        assert OLD.get_secret_value().encode() not in VAULT.header


class TestReveal:
    async def test_answers_the_values_that_are_named(self, db: Database) -> None:
        await _make(db, "ONE", "1")
        await _make(db, "TWO", "2")
        await _make(db, "THREE", "3")
        assert await _reveal(db, VAULT, "TWO", "ONE") == {"TWO": "2", "ONE": "1"}
        assert await _reveal(db, VAULT) == {}

    async def test_names_what_is_missing(self, db: Database) -> None:
        await _make(db, "ONE", "hush")
        with pytest.raises(NotFound, match="There is no secret GONE, LOST") as error:
            await _reveal(db, VAULT, "GONE", "ONE", "LOST")
        assert "hush" not in error.value.detail

    @pytest.mark.parametrize(
        "tampering",
        [
            ["UPDATE secrets a SET sealed = b.sealed FROM secrets b WHERE a.name = 'ONE' AND b.name = 'TWO'"],
            ["DELETE FROM secrets WHERE name = 'ONE'", "UPDATE secrets SET name = 'ONE'"],
        ],
        ids=["swapped values", "swapped names"],
    )
    async def test_refuses_rows_that_were_swapped(self, db: Database, record: Record, tampering: list[str]) -> None:
        await _make(db, "TWO", "2")
        await _make(db, "ONE", "1")
        for statement in tampering:
            await record.execute(statement)
        with pytest.raises(SecretUnreadable, match="moved here"):
            await _reveal(db, VAULT, "ONE")

    async def test_says_that_the_key_is_another(self, db: Database) -> None:
        await _make(db)
        with pytest.raises(SecretUnreadable, match="JUSTIAM_ENCRYPTION_KEYS"):
            await _reveal(db, SecretVault(SECRET_KEY, [NEW]), "SLACK_WEBHOOK")


class TestRotation:
    async def _integration(self, db: Database, vault: SecretVault, name: str = "webhook") -> tuple[UUID, str]:
        values = IntegrationValues.model_validate(
            {
                "name": name,
                "target": "webhook",
                "events": ["access_request.submitted"],
                "url": "https://hooks.example.com/",
            }
        )
        made = await integrations.create(db, vault, values)
        assert made.signing_secret is not None
        return made.id, made.signing_secret

    async def test_lets_the_old_key_be_dropped(self, db: Database) -> None:
        await _make(db)
        integration_id, signing_secret = await self._integration(db, VAULT)
        rotation = await secrets.rotate(db, SecretVault(SECRET_KEY, [NEW, OLD]))
        assert (rotation.secrets, rotation.integrations, rotation.unreadable) == (1, 1, [])
        only_new = SecretVault(OTHER, [NEW])
        assert await _reveal(db, only_new, "SLACK_WEBHOOK") == {"SLACK_WEBHOOK": VALUE}
        _, _, opened = await integrations.for_sending(db, only_new, integration_id)
        assert opened == {"signing_secrets": [signing_secret]}
        with pytest.raises(SecretUnreadable):
            await _reveal(db, SecretVault(OTHER, [OLD]), "SLACK_WEBHOOK")

    async def test_moves_from_the_derived_key_to_one_of_its_own(self, db: Database) -> None:
        await _make(db, vault=SecretVault(SECRET_KEY))
        assert (await secrets.rotate(db, SecretVault(SECRET_KEY, [NEW]))).secrets == 1
        assert await _reveal(db, SecretVault(OTHER, [NEW]), "SLACK_WEBHOOK") == {"SLACK_WEBHOOK": VALUE}

    async def test_goes_on_where_it_was_in_batches(self, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(secrets, "_ROTATED_AT_ONCE", 2)
        for number in range(5):
            await _make(db, f"S{number}", str(number))
        vault = SecretVault(SECRET_KEY, [NEW, OLD])
        await _make(db, "NEW", "is under the new key already", vault)
        seal, sealed = SecretVault.seal, 0

        def interrupted(self: SecretVault, purpose_id: str, plain: str, /) -> bytes:
            nonlocal sealed
            sealed += 1
            if sealed == 4:
                raise KeyboardInterrupt
            return seal(self, purpose_id, plain)

        monkeypatch.setattr(SecretVault, "seal", interrupted)
        with pytest.raises(KeyboardInterrupt):
            await secrets.rotate(db, vault)
        assert (await secrets.rotate(db, vault)).secrets == 3, "two were committed before"
        assert (await secrets.rotate(db, vault)).secrets == 0
        values = await _reveal(db, SecretVault(OTHER, [NEW]), *(f"S{number}" for number in range(5)))
        assert values == {f"S{number}": str(number) for number in range(5)}

    async def test_leaves_what_it_cannot_open_and_does_the_rest(
        self, db: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(secrets, "_ROTATED_AT_ONCE", 1)
        await _make(db, "LOST", vault=SecretVault(OTHER))
        for name in ("A", "B"):
            await _make(db, name, name)
        rotation = await secrets.rotate(db, SecretVault(SECRET_KEY, [NEW, OLD]))
        assert rotation.secrets == 2
        [reason] = rotation.unreadable
        assert reason.startswith("secret:LOST:")
        assert await _reveal(db, SecretVault(OTHER), "LOST") == {"LOST": VALUE}

    async def test_keeps_when_a_value_was_set(self, db: Database) -> None:
        secret_id = await _make(db)
        before = await secrets.get(db, secret_id)
        await secrets.rotate(db, SecretVault(SECRET_KEY, [NEW, OLD]))
        assert await secrets.get(db, secret_id) == before


class TestPlain:
    async def test_is_in_no_column_of_any_row(self, db: Database, database_url: str) -> None:
        await _make(db, value="hush-hush")
        with psycopg.connect(database_url) as connection:
            tables = connection.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            ).fetchall()
            rows = [
                row
                for (name,) in tables
                for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name)))
            ]
        assert any("SLACK_WEBHOOK" in row for row in rows)
        for value in (each for row in rows for each in row):
            assert "hush" not in str(value)
            assert not isinstance(value, bytes) or b"hush" not in value

    async def test_is_in_no_log_even_of_every_statement(self, db: Database, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            await _make(db, value="hush-hush")
            await _reveal(db, VAULT, "SLACK_WEBHOOK")
            await secrets.rotate(db, SecretVault(SECRET_KEY, [NEW, OLD]))
        assert "hush" not in caplog.text

    @pytest.mark.parametrize("value", ["", "hush" * LONGEST_VALUE_CHARS, "hush\x00", "hush\ud800", ["hush"], None])
    def test_is_in_no_refusal_of_ours(self, value: Any) -> None:
        with pytest.raises(ValidationError) as error:
            NewSecret.model_validate({"name": "ONE", "value": value})
        assert all("hush" not in problem["msg"] for problem in error.value.errors())

    def test_is_in_no_representation(self) -> None:
        values = NewSecret(name="ONE", value=SecretStr("hush-hush"))
        for shown in (repr(values), str(values), values.model_dump_json(), str(values.model_dump())):
            assert "hush" not in shown


@pytest.fixture
def operator(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `justiam secrets` with these encryption keys."""
    monkeypatch.setenv("JUSTIAM_DATABASE_URL", database_url)
    monkeypatch.setenv("JUSTIAM_SECRET_KEY", SECRET_KEY.get_secret_value())

    def run(*arguments: str, keys: tuple[SecretStr, ...] = ()) -> Result:
        monkeypatch.setenv("JUSTIAM_ENCRYPTION_KEYS", ", ".join(key.get_secret_value() for key in keys))
        return CliRunner().invoke(app, ["secrets", *arguments])

    return run


class TestTheCommand:
    def test_lists_and_rotates(self, operator: Callable[..., Result], database_url: str) -> None:
        assert operator("list").output == ""
        _sealed(database_url, "SLACK_WEBHOOK", SecretVault(SECRET_KEY))
        listed = operator("list")
        assert listed.output.startswith("SLACK_WEBHOOK  set 2")
        assert '"name":"SLACK_WEBHOOK"' in operator("list", "--json").output
        for keys in ((OLD,), (NEW, OLD), (NEW,)):
            rotated = operator("rotate", keys=keys)
            assert rotated.exit_code == 0, rotated.output
            assert rotated.output == f"Encrypted anew: secrets {int(keys != (NEW,))}, integrations 0\n"

    def test_says_what_it_could_not_decrypt(self, operator: Callable[..., Result], database_url: str) -> None:
        _sealed(database_url, "LOST", SecretVault(OTHER))
        rotated = operator("rotate", keys=(NEW,))
        assert rotated.exit_code == 1
        assert "secret:LOST" in rotated.output
        assert "hush" not in rotated.output


def _sealed(database_url: str, name: str, vault: SecretVault) -> None:
    secret_id = uuid4()
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO secrets (id, name, description, sealed) VALUES (%s, %s, '', %s)",
            [secret_id, name, vault.seal(f"secret:{name}:{secret_id}", "hush-hush")],
        )
