"""Where script workers fetch what a script needs: not for people, and not part of the documented API.

The ticket is the credential. It is bound to one attempt of one run, works once and for minutes.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.resources import Db, Secrets
from db import requests, runs, secrets
from domain.tasks import REDEEM_PATH, ScriptApprover, ScriptJob

router = APIRouter(include_in_schema=False)


class Ticket(BaseModel):
    """What a script worker comes with."""

    model_config = ConfigDict(extra="forbid")

    ticket: Annotated[str, Field(max_length=200)]


@router.post(REDEEM_PATH, summary="Redeem a ticket")
async def redeem(sent: Ticket, database: Db, vault: Secrets) -> ScriptJob:
    """What the attempt with this ticket needs; the ticket is used up."""
    redeemed = await runs.redeem(database, sent.ticket)
    approvers: list[ScriptApprover] = []
    async with database.connection() as connection:
        if redeemed.request_id is not None:
            found = await requests.get(connection, redeemed.request_id)
            if found is not None:
                approvers = [
                    ScriptApprover(id=person.id, email=person.email, name=person.name)
                    for person in found[0].notified_approvers
                ]
        values = await secrets.reveal(connection, vault, redeemed.secret_names)
    return ScriptJob(
        run_id=redeemed.run_id,
        language=redeemed.language,
        script=redeemed.script,
        config=redeemed.config,
        approvers=approvers,
        secrets=values,
        timeout_seconds=redeemed.timeout_seconds,
        network=redeemed.network,
    )
