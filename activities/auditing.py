"""The audit of both stores: read only, usable in production at any time."""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from temporalio.client import Client

from activities import processes, wedged
from db import auditing
from db.database import Database
from domain.actors import workflow_id
from domain.auditing import AuditReport, Invariant, Violation
from workflows import names

_SETTLED_SECS: Final = 30.0
"""Temporal's list lags behind; a younger request is not missed in it."""
_SECOND_LOOK_SECS: Final = 5.0
"""The stores are read one after the other; what differs is looked at again before it counts."""
_MOST_NAMED: Final = 100
_AT_ONCE: Final = 16
"""Calls to Temporal under way at a time."""


async def audit(db: Database, client: Client) -> AuditReport:
    """Prove on both stores what the design promises, or name the requests for which it does not hold.

    Raises:
        psycopg.Error: the record cannot be read.
        RPCError: Temporal's list cannot be read.
    """
    invariants = await auditing.record_invariants(db)
    missing, superfluous, running = await _differences(db, client)
    if missing or superfluous:
        await asyncio.sleep(_SECOND_LOOK_SECS)
        still_missing, still_superfluous, running = await _differences(db, client)
        missing, superfluous = missing & still_missing, superfluous & still_superfluous
    open_ids, _ = await auditing.open_request_ids(db, settled_secs=_SETTLED_SECS)
    stuck = await _wedged(db, client, open_ids, running)
    return AuditReport(
        requests=await auditing.count_requests(db),
        open_requests=len(open_ids),
        running_workflows=len(running),
        invariants=[
            *invariants,
            _invariant(
                "workflow_for_each_open_request",
                "Every pending or approved request has a running workflow.",
                {str(request_id): "has no running workflow" for request_id in missing},
            ),
            _invariant(
                "no_workflow_for_closed_requests",
                "A running workflow belongs to an open request.",
                dict.fromkeys(superfluous, "runs, and its request is closed or unknown"),
            ),
            _invariant(
                "workflow_goes_on",
                "A workflow that has to look at its request does so.",
                stuck,
            ),
        ],
    )


async def _differences(db: Database, client: Client) -> tuple[set[UUID], set[str], dict[str, str | None]]:
    """Open requests without a workflow, workflows without an open request, and all running ones with their status."""
    running = await processes.running_workflows(client)
    open_ids, settled = await auditing.open_request_ids(db, settled_secs=_SETTLED_SECS)
    missing = {request_id for request_id in settled if workflow_id(request_id) not in running}
    return missing, running.keys() - {workflow_id(request_id) for request_id in open_ids}, running


async def _wedged(db: Database, client: Client, open_ids: set[UUID], statuses: dict[str, str | None]) -> dict[str, str]:
    """Return why workflows of open requests do not go on. Asks about those alone that look suspicious."""
    suspects = await auditing.unanswered_request_ids(db, settled_secs=_SETTLED_SECS)
    suspects |= {request_id for request_id in open_ids if statuses.get(workflow_id(request_id), "") is None}
    slots = asyncio.Semaphore(_AT_ONCE)

    async def look(request_id: UUID) -> wedged.Wedged | None:
        async with slots:
            return await wedged.look(client, workflow_id(request_id), names.ACCESS_REQUEST_WORKFLOW)

    ordered = sorted(suspects)
    found = await asyncio.gather(*map(look, ordered))
    return {str(request_id): each.why for request_id, each in zip(ordered, found, strict=True) if each is not None}


def _invariant(name: str, meaning: str, found: dict[str, str]) -> Invariant:
    violations = [Violation(request_id=key, what=what) for key, what in sorted(found.items())[:_MOST_NAMED]]
    return Invariant(name=name, meaning=meaning, violations=violations)
