"""The audit of both stores: read only, usable in production at any time."""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from temporalio.client import Client

from activities import processes
from db import auditing
from db.database import Database
from domain.actors import workflow_id
from domain.auditing import AuditReport, Invariant, Violation

_SETTLED_SECS: Final = 30.0
"""Temporal's list lags behind; a younger request is not missed in it."""
_SECOND_LOOK_SECS: Final = 5.0
"""The stores are read one after the other; what differs is looked at again before it counts."""
_MOST_NAMED: Final = 100


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
    return AuditReport(
        requests=await auditing.count_requests(db),
        open_requests=len(open_ids),
        running_workflows=running,
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
        ],
    )


async def _differences(db: Database, client: Client) -> tuple[set[UUID], set[str], int]:
    """Open requests without a workflow, workflows without an open request, and how many workflows run."""
    running = set(await processes.running_workflows(client))
    open_ids, settled = await auditing.open_request_ids(db, settled_secs=_SETTLED_SECS)
    missing = {request_id for request_id in settled if workflow_id(request_id) not in running}
    return missing, running - {workflow_id(request_id) for request_id in open_ids}, len(running)


def _invariant(name: str, meaning: str, found: dict[str, str]) -> Invariant:
    violations = [Violation(request_id=key, what=what) for key, what in sorted(found.items())[:_MOST_NAMED]]
    return Invariant(name=name, meaning=meaning, violations=violations)
