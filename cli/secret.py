"""`justiam secrets`: the values that scripts read, as whoever runs the service sees them: never the values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.explaining import checked_settings, fail
from cli.record import on_record

if TYPE_CHECKING:
    from db.database import Database
    from db.secrets import Rotation, SecretView

app = typer.Typer(help="List what scripts read by name, and encrypt it with another key.", no_args_is_help=True)


@app.command("list")
def list_(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the secrets, newest first, without their values."""
    from db import secrets
    from db.paging import LARGEST_LIMIT, Position

    async def work(db: Database) -> list[SecretView]:
        found: list[SecretView] = []
        cursor = None
        while True:
            page = await secrets.list_secrets(db, Position.of(LARGEST_LIMIT, cursor))
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found

    for secret in on_record(work):
        if as_json:
            typer.echo(secret.model_dump_json())
        else:
            about = secret.description.partition("\n")[0]
            typer.echo(f"{secret.name}  set {secret.updated_at:%Y-%m-%d %H:%M} UTC  {about}".rstrip())


@app.command()
def rotate() -> None:
    """Encrypt all secrets, and those of integrations, with the first of JUSTIAM_ENCRYPTION_KEYS.

    Safe to repeat, and to interrupt: it goes on where it was. Afterwards the other keys are not needed any more. Exits
    with 1 where something could be decrypted with none of the keys; that stays as it is.
    """
    from db import secrets
    from db.secrets import SecretVault

    settings = checked_settings()
    vault = SecretVault(settings.secret_key, settings.encryption_keys)

    async def work(db: Database) -> Rotation:
        return await secrets.rotate(db, vault)

    rotation = on_record(work)
    typer.echo(f"Encrypted anew: secrets {rotation.secrets}, integrations {rotation.integrations}")
    if rotation.unreadable:
        fail("\n".join(rotation.unreadable))
