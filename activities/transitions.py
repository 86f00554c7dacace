"""The local activities of a request's workflow: thin, the rules are in `db.transitions`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from psycopg import DataError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from db import transitions
from db.database import Database
from domain.errors import Forbidden, Invalid
from domain.proofs import ProofKey
from domain.tasks import Report, RunNext
from domain.transitions import AccessRequestInput, BlockBegun, Outcome, Refused, Transition
from workflows import names

_log = structlog.get_logger(__name__)


class TransitionActivities:
    """Carries out the steps of requests on the record."""

    def __init__(self, db: Database, proofs: ProofKey, *, trust_signal_actors: bool, remind_before: timedelta) -> None:
        self._db = db
        self._proofs = proofs
        self._trust_signal_actors = trust_signal_actors
        self._remind_before = remind_before

    @property
    def all(self) -> list[Callable[..., Any]]:
        """For the worker."""
        return [
            self.load_request,
            self.apply_transition,
            self.record_refusal,
            self.begin_block,
            self.end_block,
        ]

    @activity.defn(name=names.LOAD_REQUEST)
    async def load_request(self, request: AccessRequestInput) -> Outcome:
        """The request as the record has it."""
        refuse_remote()
        return Outcome(state=await transitions.load(self._db, request.request_id))

    @activity.defn(name=names.APPLY_TRANSITION)
    async def apply_transition(self, transition: Transition) -> Outcome:
        """Carry out a step, or say why not."""
        refuse_remote()
        try:
            return await transitions.apply(
                self._db,
                self._proofs,
                transition,
                trust_claimed_actors=self._trust_signal_actors,
                remind_before=self._remind_before,
            )
        except DataError as error:
            return await self._not_storable(transition, error)

    @activity.defn(name=names.BEGIN_BLOCK)
    async def begin_block(self, transition: Transition) -> BlockBegun:
        """Judge an approval, and begin the run that it waits for."""
        refuse_remote()
        try:
            return await transitions.begin_block(
                self._db, self._proofs, transition, trust_claimed_actors=self._trust_signal_actors
            )
        except DataError as error:
            return BlockBegun(outcome=await self._not_storable(transition, error))

    async def _not_storable(self, transition: Transition, error: DataError) -> Outcome:
        # What PostgreSQL will never take must not be tried for ever: every other step would wait behind it.
        _log.exception("transition_cannot_be_stored", request_id=str(transition.request_id))
        state = await transitions.load(self._db, transition.request_id)
        return Outcome(state=state, refusal=Invalid.code, detail=f"It cannot be stored: {error}")

    @activity.defn(name=names.END_BLOCK)
    async def end_block(self, report: Report, request_id: UUID) -> RunNext:
        """Write down how the run of an approval ended."""
        refuse_remote()
        return await transitions.end_block(self._db, report, request_id)

    @activity.defn(name=names.RECORD_REFUSAL)
    async def record_refusal(self, refused: Refused) -> None:
        """Write a signal nobody can read to the timeline."""
        refuse_remote()
        await transitions.record_refusal(self._db, refused)


def refuse_remote() -> None:
    """Hold a local activity to being one.

    Raises:
        ApplicationError: somebody schedules it as a remote one.
    """
    # Only our own workflow code runs these, as local activities. Whoever may start workflows in the namespace could
    # otherwise schedule them on our task queue and approve anything in the name of the service.
    if not activity.info().is_local:
        msg = "This activity serves the workflow of a request only."
        raise ApplicationError(msg, type=Forbidden.code, non_retryable=True)
