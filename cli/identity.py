"""`justiam identity`: who somebody is to an OpenID Connect issuer.

For whoever runs the service, and not over HTTP: who could name an account by a subject of their own could sign in as
its owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.record import on_record

if TYPE_CHECKING:
    from db.database import Database
    from db.identities import IdentityView

User = Annotated[str, typer.Argument(help="Email address or id of the account.")]
Issuer = Annotated[str, typer.Argument(help="The issuer, exactly as in the `iss` of its tokens.")]
Subject = Annotated[str, typer.Argument(help="The subject, exactly as in the `sub` of the issuer's tokens.")]

app = typer.Typer(help="Link accounts to subjects of OpenID Connect issuers.", no_args_is_help=True)


@app.command()
def link(user: User, issuer: Issuer, subject: Subject) -> None:
    """Let the issuer's tokens for a subject stand for an account."""
    from db import identities

    async def work(db: Database) -> None:
        await identities.link(db, user, issuer, subject)

    on_record(work)
    typer.echo(f"Linked {subject} of {issuer} to {user}")


@app.command()
def unlink(issuer: Issuer, subject: Subject) -> None:
    """Let the issuer's tokens for a subject stand for nobody any more."""
    from db import identities

    async def work(db: Database) -> None:
        await identities.unlink(db, issuer, subject)

    on_record(work)
    typer.echo(f"Unlinked {subject} of {issuer}")


@app.command("list")
def list_(
    user: User,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the subjects that stand for an account."""
    from db import identities

    async def work(db: Database) -> list[IdentityView]:
        return await identities.list_identities(db, user)

    for identity in on_record(work):
        line = f"{identity.issuer}  {identity.subject}  since {identity.created_at:%Y-%m-%d}"
        typer.echo(identity.model_dump_json() if as_json else line)
