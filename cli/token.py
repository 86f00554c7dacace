"""`justiam token`: API tokens, made and ended by whoever runs the service."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from cli.explaining import fail
from cli.record import on_record

if TYPE_CHECKING:
    from db.database import Database
    from db.tokens import NewToken, TokenView

app = typer.Typer(help="Make, list and revoke API tokens.", no_args_is_help=True)


@app.command()
def create(
    user: Annotated[str, typer.Argument(help="Email address or id of the user.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "command line",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days for which it works.")] = 90,
    *,
    administrator: Annotated[
        bool,
        typer.Option(
            help="Make the user an administrator first, and make the user where there is none: for a new installation."
        ),
    ] = False,
) -> None:
    """Print a new token for a user, and nothing else, so that a script can take it as it is."""
    from pydantic import TypeAdapter, ValidationError

    from db import administrators, tokens
    from domain.directory import UserValues
    from domain.text import Name

    try:
        checked_name = TypeAdapter(Name).validate_python(name)
        values = UserValues(email=user, name=user.partition("@")[0]) if administrator else None
    except ValidationError as error:
        fail("; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors()))

    async def work(db: Database) -> NewToken:
        if values is not None:
            await administrators.make_administrator(db, values)
        return await tokens.create_token(db, user, checked_name, timedelta(days=days))

    typer.echo(on_record(work).token)


@app.command("list")
def list_(
    user: Annotated[
        str | None, typer.Option(help="Email address or id: only this user's and their service accounts'.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List tokens, newest first, those that are over included."""
    from db import people, tokens
    from db.paging import LARGEST_LIMIT, Position
    from domain.errors import NotFound

    async def work(db: Database) -> list[TokenView]:
        of = None
        if user is not None:
            async with db.connection() as connection:
                of = await people.find(connection, user)
            if of is None:
                raise NotFound(f"There is no user {user}.")
        found: list[TokenView] = []
        cursor = None
        while True:
            page = await tokens.list_tokens(db, Position.of(LARGEST_LIMIT, cursor), of=of)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found

    for token in on_record(work):
        typer.echo(token.model_dump_json() if as_json else _line(token))


@app.command()
def revoke(token_id: Annotated[UUID, typer.Argument(help="Id, as `justiam token list` shows it.")]) -> None:
    """End a token at once."""
    from db import tokens

    async def work(db: Database) -> None:
        await tokens.revoke_token(db, token_id)

    on_record(work)
    typer.echo(f"Revoked {token_id}")


def _line(token: TokenView) -> str:
    if token.revoked_at is not None:
        until = f"revoked {token.revoked_at:%Y-%m-%d}"
    elif token.expires_at is not None:
        until = f"until {token.expires_at:%Y-%m-%d %H:%M} UTC"
    else:
        until = "without end"
    return f"{token.id}  {token.hint}…  {token.user.email}  {until}  {token.name}"
