"""A worker with its two stores, and short ways to do what people, scripts and operators do to requests."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

import worker
from activities import processes
from activities.processes import Head
from db import submission, transitions
from db.database import Database
from db.submission import Submitted
from db.templates import TemplateView
from domain.actors import workflow_id
from domain.errors import AccessError, NotFound, refusal
from domain.states import OPEN, Action, Status
from domain.submission import Submission
from domain.transitions import Channel, Decision, RequestState, Transition
from settings import Settings
from tests.record import LONGEST_MINS, PROOFS, SECRET, Account, Cast, Record
from worker import Stores
from workflows import names

ANSWER_SECS: Final = 30.0
"""Until an update that was not answered is sent again."""
PATIENCE_SECS: Final = 90.0
"""Far more than anything takes that is waited for; a busy machine is slow."""

T = TypeVar("T")
Run = WorkflowHandle[Any, Any]


async def eventually(look: Callable[[], Awaitable[T | None]], *, within_secs: float = PATIENCE_SECS) -> T:
    """What `look` finds, once it is true."""
    deadline = asyncio.get_running_loop().time() + within_secs
    while not (found := await look()):
        assert asyncio.get_running_loop().time() < deadline, f"still {found!r}:\n{inspect.getsource(look)}"
        await asyncio.sleep(0.02)
    return found


@dataclass
class World:
    """The record and the process, with the product's worker between them unless a test stops it."""

    db: Database
    client: Client
    settings: Settings
    environment: WorkflowEnvironment | None
    """Where time can be skipped."""

    def __post_init__(self) -> None:
        self.record = Record(self.db)
        self._worker: Worker | None = None

    async def start_worker(self) -> None:
        """The worker as `justiam worker` makes it, without its chores."""
        assert self._worker is None
        self._worker = worker.worker(Stores(self.db, self.client, PROOFS), self.settings)
        await self._worker.__aenter__()

    async def stop_worker(self) -> None:
        """In order, as on SIGTERM."""
        if self._worker is not None:
            await self._worker.__aexit__(None, None, None)
            self._worker = None

    @asynccontextmanager
    async def without_worker(self) -> AsyncIterator[None]:
        """As long as the block lasts, nobody works."""
        await self.stop_worker()
        try:
            yield
        finally:
            await self.start_worker()

    async def now(self) -> datetime:
        """The time that workflows see."""
        return await self.environment.get_current_time() if self.environment else datetime.now(UTC)

    async def skip(self, **duration: float) -> None:
        """Let time pass at once."""
        assert self.environment is not None
        await self.environment.sleep(timedelta(**duration))

    async def request(
        self, cast: Cast, *, by: Account | None = None, template: TemplateView | None = None, minutes: int = 60
    ) -> UUID:
        """A request whose workflow waits for a decision, or has already gone on from there."""
        request_id = await self.submit(cast, by=by, template=template, minutes=minutes)
        await self.start(request_id)
        await self.has_looked(request_id)
        return request_id

    async def submit(
        self,
        cast: Cast,
        *,
        by: Account | None = None,
        template: TemplateView | None = None,
        minutes: int = 60,
        at: datetime | None = None,
    ) -> UUID:
        """A request that no workflow knows of yet."""
        # The clock of the test server may be days ahead by now; the row is given the time that its workflow sees.
        if self.environment and at is None:
            at = await self.now()
        return await self.record.submit(template or cast.template, by or cast.requester, minutes=minutes, at=at)

    async def start(self, request_id: UUID, *, signal: str | None = None) -> None:
        """Start the workflow where none runs."""
        await processes.start(self.client, await self.head(request_id), signal=signal)

    async def submitted(self, cast: Cast) -> Submitted:
        """Submit a request as the API does, with the state for its workflow; start nothing."""
        sent = Submission(template_id=cast.template.id, requested_duration_mins=60, justification="an incident")
        person = await self.record.person(cast.requester)
        return await submission.submit(self.db, person, sent, longest_mins=LONGEST_MINS)

    async def start_with(self, submitted: Submitted, state: RequestState | None) -> UUID:
        """Start a workflow that begins with `state`; return the request's id once it has begun."""
        await processes.start(self.client, await self.head(submitted.request_id), state=state)
        await self.has_looked(submitted.request_id)
        return submitted.request_id

    async def head(self, request_id: UUID) -> Head:
        """What the workflow is started with."""
        (row,) = await self.record.query(
            """
            SELECT r.*, u.email AS requester_email
            FROM access_requests r JOIN users u ON u.id = r.requester_id WHERE r.id = %s
            """,
            request_id,
        )
        return Head.of(row)

    def handle(self, request_id: UUID) -> Run:
        return self.client.get_workflow_handle(workflow_id(request_id))

    async def has_looked(self, request_id: UUID) -> None:
        """Wait until the workflow has taken over the record."""

        async def looked() -> bool:
            return await self.state(request_id) is not None

        await eventually(looked)

    async def state(self, request_id: UUID) -> RequestState | None:
        """What the workflow answers to `state`."""
        state: RequestState | None = await self.handle(request_id).query(names.STATE_QUERY, result_type=RequestState)
        return state

    async def decide(
        self,
        request_id: UUID,
        action: Action,
        by: Account,
        *,
        comment: str = "",
        id: str | None = None,  # noqa: A002
    ) -> RequestState:
        """An update as the API sends it.

        Raises:
            AccessError: it was refused.
        """
        key = id or str(uuid4())
        proof = self.record.proof(request_id, action, by, jti=key, now=await self.now())
        return await self.update(request_id, action, Decision(comment=comment, proof=proof), id=key)

    async def update(self, request_id: UUID, action: Action, decision: Any, *, id: str | None = None) -> RequestState:  # noqa: A002
        """An update with any content.

        Raises:
            AccessError: it was refused.
        """
        key = id or str(uuid4())
        try:
            while True:
                # An update that is under way when its workflow task is lost is forgotten by the server, or refused with
                # the task. A client repeats what was not answered, with its id.
                try:
                    async with asyncio.timeout(ANSWER_SECS):
                        state: RequestState = await self.handle(request_id).execute_update(
                            action.value, decision, id=key, result_type=RequestState
                        )
                        return state
                except TimeoutError:
                    continue
                except RPCError as error:
                    if error.status is RPCStatusCode.NOT_FOUND and isinstance(decision, Decision):
                        # Forgotten, or its workflow ended at this moment. Then a new run of it answers by the record.
                        if not await self.is_running(request_id):
                            return await self._told_by_the_record(request_id, action, decision, key)
                    elif error.status is not RPCStatusCode.FAILED_PRECONDITION:
                        raise
        except WorkflowUpdateFailedError as error:
            raise _typed(error) from error

    async def _told_by_the_record(self, request_id: UUID, action: Action, decision: Decision, key: str) -> RequestState:
        """Return what a new run of the workflow would answer, as the API has it started."""
        transition = Transition(
            request_id=request_id,
            action=action,
            channel=Channel.UPDATE,
            at=await self.now(),
            key=key,
            **decision.model_dump(),
        )
        outcome = await transitions.apply(self.db, PROOFS, transition, trust_claimed_actors=False)
        if outcome.refusal is not None or outcome.state is None:
            raise refusal(outcome.refusal or NotFound.code, outcome.detail)
        return outcome.state

    async def signal(
        self, request_id: UUID, action: Action, by: Account, *, comment: str = "", jti: str | None = None
    ) -> None:
        """A signal with a proof, as a script sends it."""
        proof = self.record.proof(request_id, action, by, jti=jti, now=await self.now())
        await self.handle(request_id).signal(action.value, Decision(comment=comment, proof=proof))

    async def reconcile(self, request_id: UUID) -> None:
        """Tell the workflow to look at the record again."""
        await processes.reconcile(self.client, request_id)

    async def status_is(self, request_id: UUID, status: Status) -> dict[str, Any]:
        """Wait until the record says so; the row."""

        async def said() -> dict[str, Any] | None:
            row = await self.record.row(request_id)
            return row if row["status"] == status else None

        return await eventually(said)

    async def ends(self, request_id: UUID, status: WorkflowExecutionStatus = WorkflowExecutionStatus.COMPLETED) -> None:
        """Wait until the workflow has ended, in this way."""

        async def over() -> WorkflowExecutionStatus | None:
            found = (await self.handle(request_id).describe()).status
            return None if found is WorkflowExecutionStatus.RUNNING else found

        assert await eventually(over) is status

    async def is_running(self, request_id: UUID) -> bool:
        return (await self.handle(request_id).describe()).status is WorkflowExecutionStatus.RUNNING

    async def events(self, request_id: UUID, run_id: str | None = None) -> list[str]:
        """The history of a run, by default the last one, as the names of its events."""
        handle = self.client.get_workflow_handle(workflow_id(request_id), run_id=run_id)
        history = await handle.fetch_history()
        return [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events]

    async def end_all(self) -> None:
        """Leave nothing running that later tests on the same server would meet."""
        rows = await self.record.query("SELECT id FROM access_requests WHERE status = ANY(%s)", [str(s) for s in OPEN])

        async def end(request_id: UUID) -> None:
            # It never ran, or has ended.
            with contextlib.suppress(RPCError):
                await self.handle(request_id).terminate("the test is over")

        await asyncio.gather(*(end(row["id"]) for row in rows))


def _typed(error: WorkflowUpdateFailedError) -> AccessError:
    cause = error.cause
    assert isinstance(cause, ApplicationError), cause
    assert cause.type is not None
    return refusal(cause.type, cause.message)


@asynccontextmanager
async def open_world(
    database_url: str, client: Client, environment: WorkflowEnvironment | None = None, **settings: Any
) -> AsyncIterator[World]:
    """A world with a running worker."""
    chosen = Settings.model_validate({"database_url": database_url, "secret_key": SECRET, **settings})
    async with Database(database_url) as db:
        world = World(db, client, chosen, environment)
        await world.start_worker()
        try:
            yield world
        finally:
            await world.end_all()
            await world.stop_worker()
