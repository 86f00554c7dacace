"""`justiam signing-key`: the keys that sign the tokens for applications."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.explaining import checked_settings
from cli.record import on_record

if TYPE_CHECKING:
    from db.database import Database
    from db.signing_keys import SigningKeyView

app = typer.Typer(help="List and rotate the keys that sign tokens for applications.", no_args_is_help=True)


class _Algorithm(StrEnum):
    # As in `domain.access_tokens`, which takes too long to import for `justiam --help`.
    ES256 = "ES256"
    RS256 = "RS256"


@app.command("list")
def list_(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the keys, newest first, those included that only verify what they once signed."""
    from db import signing_keys

    for key in on_record(signing_keys.list_keys):
        typer.echo(key.model_dump_json() if as_json else _line(key))


@app.command()
def rotate(
    algorithm: Annotated[
        _Algorithm, typer.Option(help="ES256, or RS256 for verifiers that know nothing else.")
    ] = _Algorithm.ES256,
    *,
    now: Annotated[
        bool,
        typer.Option(help="Sign with the new key at once, not when verifiers have had the time to learn of it."),
    ] = False,
    compromised: Annotated[
        bool,
        typer.Option(
            help="A key has leaked, or may have: sign with the new one at once, delete all others, and void every "
            "token that was issued."
        ),
    ] = False,
) -> None:
    """Make a new key and print its id.

    It is published at once and signs after ten minutes. The key before it stays published until the last token that it
    signed has expired. No process has to be restarted.
    """
    from db import signing_keys
    from db.signing_keys import Vault
    from domain.access_tokens import Algorithm

    vault = Vault(checked_settings().secret_key.get_secret_value())

    async def work(db: Database) -> str:
        return await signing_keys.rotate(db, vault, Algorithm(algorithm), now=now, compromised=compromised)

    typer.echo(on_record(work))


def _line(key: SigningKeyView) -> str:
    if key.signs:
        state = "signs"
    elif key.signs_until is None or key.signs_from > datetime.now(key.signs_from.tzinfo):
        state = f"signs from {key.signs_from:%Y-%m-%d %H:%M} UTC"
    else:
        state = f"verifies until {key.published_until:%Y-%m-%d %H:%M} UTC"
    return f"{key.kid}  {key.algorithm}  {state}"
