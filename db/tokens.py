"""API tokens: random, stored hashed, named, expiring, revocable (design, section 4)."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from pydantic import BaseModel, Field
from sqlalchemy import func, or_
from sqlmodel import col, select

from db import people
from db.database import Database, driver_connection
from db.paging import Page, Position, newest_first
from db.people import PERSON_COLUMNS, person, still_counts
from db.requests import PersonView
from db.tables import ApiToken, User
from domain.actors import Permission
from domain.deciding import Person, deactivated_since
from domain.errors import Forbidden, Invalid, NotFound

PREFIX: Final = "justiam_"
"""What every token starts with, so that scanners for leaked secrets recognise it."""

_RANDOM_BYTES: Final = 32
_HINT_CHARS: Final = len(PREFIX) + 4


class TokenView(BaseModel):
    """A token without its secret. Times are UTC."""

    id: UUID
    name: str
    hint: str = Field(description="The first characters, to recognise it by.")
    user: PersonView = Field(description="Whom it stands for.")
    created_at: datetime
    expires_at: datetime | None = Field(description="Null: never.")
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None = Field(
        description="When it stopped working: it was revoked, or its holder was deactivated."
    )


class NewToken(TokenView):
    """A token as it is shown once, when it is made."""

    token: str = Field(description="Keep it like a password; it is not shown again.")


def digest(token: str) -> bytes:
    """What is stored of a token: 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


@dataclass(frozen=True)
class Bearer:
    """The person that a token stands for."""

    person: Person
    expires_at: datetime | None
    """When the token ends; None: never, or it does not say."""


async def authenticate(db: Database, token: str) -> Bearer | None:
    """Return the active person that a token stands for.

    None where the token is unknown, expired or revoked, or was issued before its holder was last deactivated. Notes
    that the token was used, at most once a minute: reading must not write each time.
    """
    async with db.connection() as connection:
        rows = await connection.execute(
            f"""
            SELECT {PERSON_COLUMNS}, t.id AS token_id, t.expires_at,
                   t.last_used_at IS NULL OR t.last_used_at < now() - interval '1 minute' AS unnoted
            FROM api_tokens t JOIN users u ON u.id = t.user_id
            WHERE t.token_hash = %s AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
              AND {still_counts("t.created_at")}
            """,
            [digest(token)],
        )
        row = await rows.fetchone()
        if row is None:
            return None
        if row["unnoted"]:
            await connection.execute(
                # Of many calls at once one writes it, and none waits for another.
                """
                UPDATE api_tokens SET last_used_at = now() WHERE id = (
                    SELECT id FROM api_tokens
                    WHERE id = %s AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
                    FOR UPDATE SKIP LOCKED
                )
                """,
                [row["token_id"]],
            )
    return Bearer(person(row), row["expires_at"])


async def create_token(db: Database, user: UUID | str, name: str, lifetime: timedelta | None) -> NewToken:
    """Make a token. Who may make one for whom is up to the caller of this function.

    Args:
        db: the record.
        user: whom it stands for: an id or an email address.
        name: what it is for.
        lifetime: how long it works from now; None: until it is revoked.

    Raises:
        NotFound: there is no such user.
        Invalid: the user is deactivated.
    """
    async with db.connection() as connection:
        holder = await people.find(connection, str(user))
    if holder is None:
        raise NotFound(f"There is no user {user}.")
    token = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    row = ApiToken(
        id=uuid4(),
        user_id=holder.id,
        name=name,
        token_hash=digest(token),
        hint=token[:_HINT_CHARS],
        expires_at=None if lifetime is None else datetime.now(UTC) + lifetime,
    )
    async with db.session() as session:
        # Locked, as `people.still_counts` requires.
        locked = select(User).where(User.id == holder.id).with_for_update(read=True)
        account = (await session.exec(locked)).one()
        if not account.active:
            raise Invalid(("user_id", "is deactivated"))
        session.add(row)
        await session.flush()
        await session.refresh(row)
        view = _view(row, account)
    return NewToken(**view.model_dump(), token=token)


async def create_for(db: Database, caller: Person, user_id: UUID, name: str, lifetime: timedelta) -> NewToken:
    """Make a token for the caller, or for a service account of theirs.

    Raises:
        Forbidden: it would be for somebody else.
        Invalid: the account is deactivated.
    """
    if user_id != caller.id:
        async with db.session() as session:
            user = await session.get(User, user_id)
        if user is None or user.owner_id != caller.id:
            raise Forbidden("A token can be made for oneself and for a service account that one owns.")
    return await create_token(db, user_id, name, lifetime)


async def list_tokens(db: Database, position: Position, *, of: Person | None = None) -> Page[TokenView]:
    """Tokens, newest first, revoked and expired ones included.

    Args:
        db: the record.
        position: which page.
        of: only this person's and those of the service accounts they own.
    """
    query = select(ApiToken, User).join(User, col(User.id) == col(ApiToken.user_id))
    if of is not None:
        query = query.where(or_(col(User.id) == of.id, col(User.owner_id) == of.id))
    async with db.session() as session:
        rows = await session.exec(newest_first(query, position, col(ApiToken.created_at), col(ApiToken.id)))
        views = [_view(token, user) for token, user in rows]
    return Page.dated(views, position, lambda view: (view.created_at, view.id))


async def revoke_token(db: Database, token_id: UUID, *, by: Person | None = None) -> None:
    """End a token, at once; one that was revoked before stays as it is.

    Args:
        db: the record.
        token_id: which.
        by: who revokes: only their own tokens, those of service accounts they own, or with `directory.manage` those of
            accounts that have nothing which they lack. None: the operator.

    Raises:
        Forbidden: the holder has permissions that `by` does not hold.
        NotFound: there is no such token, or none that `by` may revoke.
    """
    query = (
        select(ApiToken, User)
        .join(User, col(User.id) == col(ApiToken.user_id))
        .where(ApiToken.id == token_id)
        .with_for_update(of=ApiToken)
    )
    async with db.session() as session:
        row = (await session.exec(query)).one_or_none()
        token, user = row or (None, None)
        is_own = by is not None and user is not None and by.id in {user.id, user.owner_id}
        if token is None or user is None or not (is_own or by is None or by.holds(Permission.DIRECTORY)):
            raise NotFound("There is no token with this id.")
        if by is not None and not is_own:
            async with driver_connection(session) as connection:
                what = "The holder of the token, or a service account of theirs,"
                await people.refuse_touching(connection, by, user.id, what)
        if token.revoked_at is None:
            token.sqlmodel_update({"revoked_at": func.now()})


def _view(token: ApiToken, user: User) -> TokenView:
    values = token.model_dump(include=set(TokenView.model_fields) - {"user"})
    if token.revoked_at is None and deactivated_since(user.deactivated_at, token.created_at):
        values["revoked_at"] = user.deactivated_at
    return TokenView(**values, user=PersonView(id=user.id, email=user.email, name=user.name))
