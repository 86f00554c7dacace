"""Letting in whom an issuer vouches for, and telling the operator what its word has changed here."""

from __future__ import annotations

import structlog

from db import acting, identities
from db.database import Database
from db.identities import Identity
from domain.deciding import Person

_log = structlog.get_logger(__name__)


async def admit(database: Database, identity: Identity) -> Person | None:
    """The active person with this identity; None where there is none (`identities.admit`)."""
    with acting.acting(f"issuer:{identity.issuer}"):
        admission = await identities.admit(database, identity)
    if admission is None:
        return None
    person, followed = admission.person, admission.groups
    log = _log.bind(issuer=identity.issuer, user_id=str(person.id))
    if admission.created:
        log.info("user_created_by_issuer")
    if followed is None:
        return person
    if followed.problem is not None:
        log.warning("groups_of_issuer_unknown", problem=followed.problem)
    if followed.joined or followed.left:
        log.info("groups_changed_by_issuer", joined=list(map(str, followed.joined)), left=list(map(str, followed.left)))
    if followed.refused:
        log.warning("groups_refused_to_issuer", groups=followed.refused)
    if followed.unknown:
        log.warning("groups_of_issuer_missing", groups=followed.unknown)
    return person
