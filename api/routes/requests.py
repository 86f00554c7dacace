"""Requests: submit, decide, end, read, talk (specification, Requests)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api import lifecycle
from api.authentication import Caller, RequestsManager
from api.lifecycle import Step, readable
from api.orchestrator import Orchestrator
from api.problems import refusals
from api.reading import Instant, Paging, Reading
from api.resources import AppSettings, Db, Temporal
from db import requests, run_history
from db.database import Database
from db.paging import Page
from db.requests import MessageView, RequestView, TimelineView
from db.run_history import RunView
from domain.deciding import Person
from domain.proofs import LIFETIME
from domain.states import Action, Status
from domain.submission import Submission
from domain.text import STORABLE, VISIBLE, FilterText, LongText
from domain.transitions import Decision

router = APIRouter(prefix="/access-requests", tags=["Requests"])

IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=200), STORABLE] | None,
    Header(description="The same key is carried out once, however often it is sent."),
]
Prefer = Annotated[
    str | None,
    Header(max_length=200, description="`respond-async`: hand the decision over and answer 202 without its outcome."),
]
_DECISION_REFUSALS: Final = refusals("forbidden", "not_found", "request_not_pending", "orchestrator_unavailable")
_APPROVAL_REFUSALS: Final = refusals(
    "forbidden",
    "not_found",
    "request_not_pending",
    "decision_in_progress",
    "trigger_task_failed",
    "orchestrator_unavailable",
)
_REVOCATION_REFUSALS: Final = refusals("forbidden", "not_found", "request_not_active", "orchestrator_unavailable")
_ACCEPTED: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "model": RequestView,
        "description": "Handed over (`Prefer: respond-async`); the request as it is now.",
        "headers": {
            "Preference-Applied": {
                "description": "That the preference was honoured (RFC 7240).",
                "required": True,
                "schema": {"const": "respond-async", "type": "string"},
            }
        },
    }
}


class Comment(BaseModel):
    """What to say with a decision."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"comment": "Approved for the incident window."}]}
    )

    comment: LongText = Field(default="", description="Shown with the decision, and kept in the timeline.")


class NewMessage(BaseModel):
    """A line for the discussion thread."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"body": "Which tables do you need to look at?"}]}
    )

    body: Annotated[LongText, Field(min_length=1, pattern=r"\S"), VISIBLE] = Field(description="Plain text.")


class ProofRequest(BaseModel):
    """What the proof is to be for."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"action": "approve"}]})

    action: Literal[Action.APPROVE, Action.DENY, Action.REVOKE] = Field(description="What people may ask for.")


class SignalProof(BaseModel):
    """A proof of who signals, and the signal it is for."""

    proof: str = Field(description="Put into the signal's input; works once, for this request, action and actor.")
    action: Action = Field(description="Name of the signal.")
    actor: str = Field(description="Email address of whom it names: the caller.")
    expires_at: datetime
    workflow_id: str = Field(description="The workflow to signal.")
    input: Decision = Field(description="The signal's argument, ready to send; add a comment if you like.")


@dataclass(frozen=True)
class _Call:
    """One decision as it was sent."""

    db: Database
    temporal: Orchestrator
    caller: Person
    response: Response
    comment: str
    idempotency_key: str | None
    is_async: bool


async def _call(  # noqa: PLR0917 - the parts of the HTTP request, which FastAPI hands over
    db: Db,
    temporal: Temporal,
    caller: Caller,
    response: Response,
    sent: Annotated[Comment | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> _Call:
    return _Call(
        db=db,
        temporal=temporal,
        caller=caller,
        response=response,
        comment=sent.comment if sent else "",
        idempotency_key=idempotency_key,
        is_async="respond-async" in {token.strip().lower() for token in (prefer or "").split(",")},
    )


Call = Annotated[_Call, Depends(_call)]
"""A decision, from the parts of the HTTP request."""


@router.get("", summary="List my requests", responses=refusals())
async def list_my_requests(caller: Caller, connection: Reading, page: Paging) -> Page[RequestView]:
    """The caller's own requests in every state, newest first."""
    return await requests.list_mine(connection, caller, page)


@router.post("", summary="Submit a request", status_code=201, responses=refusals("forbidden", "pending_request_exists"))
async def submit_request(  # noqa: PLR0917 - what FastAPI hands over
    sent: Submission,
    caller: Caller,
    db: Db,
    temporal: Temporal,
    settings: AppSettings,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> RequestView:
    """Ask for access. The template's policy chooses whom to notify; the answer says who (`notified_approvers`).

    At most one request per person and template is pending at a time: another answers `pending_request_exists`. An
    auto-approved request is answered as pending and granted a moment later.
    """
    view = await lifecycle.submit(
        db, temporal, caller, sent, longest_mins=settings.max_duration_mins, idempotency_key=idempotency_key
    )
    response.headers["Location"] = request.app.url_path_for("get_request", request_id=view.id)
    return view


@router.get("/pending", summary="List requests awaiting my approval", responses=refusals())
async def list_requests_awaiting_me(caller: Caller, connection: Reading, page: Paging) -> Page[RequestView]:
    """The pending requests that the caller may decide at this moment, newest first."""
    return await requests.list_awaiting(connection, caller, page)


@router.get("/all", summary="List all requests", responses=refusals("forbidden"))
async def list_all_requests(  # noqa: PLR0917 - each is a filter
    _: RequestsManager,
    connection: Reading,
    page: Paging,
    status: Annotated[
        Status | None, Query(description="Only these. A grant whose time is up counts as expired at once.")
    ] = None,
    template_id: Annotated[UUID | None, Query(description="Only requests made from this template.")] = None,
    requester: Annotated[
        FilterText | None, Query(description="Part of the requester's email address, in upper or lower case.")
    ] = None,
    app_id: Annotated[UUID | None, Query(description="Only requests for this application.")] = None,
    since: Annotated[Instant | None, Query(description="Only requests submitted then or later.")] = None,
    until: Annotated[Instant | None, Query(description="Only requests submitted before.")] = None,
) -> Page[RequestView]:
    """Every request of everybody, newest first. Needs `access_requests.manage`."""
    return await requests.list_all(
        connection,
        page,
        status=status,
        template_id=template_id,
        requester=requester,
        app_id=app_id,
        since=since,
        until=until,
    )


@router.get("/{request_id}", summary="Get a request", responses=refusals("forbidden", "not_found"))
async def get_request(request_id: UUID, caller: Caller, connection: Reading) -> RequestView:
    """A request with everything needed to decide it. For its requester, those who may decide it, and admins."""
    view, _ = await readable(connection, request_id, caller)
    return view


@router.post("/{request_id}/approve", summary="Approve", responses={**_APPROVAL_REFUSALS, **_ACCEPTED})
async def approve_request(request_id: UUID, call: Call) -> RequestView:
    """Grant the access from now on, for the requested time.

    For current members of its approver groups; never for the requester. Of two decisions at the same moment one wins,
    the other gets `request_not_pending`. Where the template's task blocks approvals, it runs first, for 30 s at most:
    should it fail, the request stays pending (`trigger_task_failed`).
    """
    return await _decide(call, request_id, Action.APPROVE)


@router.post("/{request_id}/deny", summary="Deny", responses={**_DECISION_REFUSALS, **_ACCEPTED})
async def deny_request(request_id: UUID, call: Call) -> RequestView:
    """Refuse the access. For whoever could approve it."""
    return await _decide(call, request_id, Action.DENY)


@router.post("/{request_id}/revoke", summary="Cancel or revoke", responses={**_REVOCATION_REFUSALS, **_ACCEPTED})
async def revoke_request(request_id: UUID, call: Call) -> RequestView:
    """Cancel a pending request, or end a grant before its time.

    A pending request: its requester (`decided_by` stays null) or an admin. A grant: its requester, an admin or an
    approver.
    """
    return await _decide(call, request_id, Action.REVOKE)


@router.post(
    "/{request_id}/signal-proofs",
    summary="Make a proof for a signal",
    status_code=201,
    responses=refusals("forbidden", "not_found"),
)
async def create_signal_proof(
    request_id: UUID, sent: ProofRequest, caller: Caller, connection: Reading, temporal: Temporal
) -> SignalProof:
    """A short-lived proof that the caller wants this action, for scripts that signal the workflow themselves.

    Whoever may signal in the Temporal namespace could name anybody as actor; the proof is what counts. Whether the
    caller may decide is judged when the signal is carried out.
    """
    view, _ = await readable(connection, request_id, caller)
    now = datetime.now(UTC)
    proof = temporal.proofs.mint(view.id, sent.action, caller.id, jti=str(uuid4()), now=now)
    return SignalProof(
        proof=proof,
        action=sent.action,
        actor=caller.email,
        expires_at=now + LIFETIME,
        workflow_id=view.workflow_id,
        input=Decision(proof=proof),
    )


@router.get("/{request_id}/timeline", summary="List the timeline", responses=refusals("forbidden", "not_found"))
async def list_timeline(request_id: UUID, caller: Caller, connection: Reading, page: Paging) -> Page[TimelineView]:
    """What happened to a request, newest first: decisions, lifecycle events with their payload, refused attempts."""
    await readable(connection, request_id, caller)
    return await requests.list_timeline(connection, request_id, page)


@router.get("/{request_id}/runs", summary="List the runs of tasks", responses=refusals("forbidden", "not_found"))
async def list_request_runs(request_id: UUID, caller: Caller, connection: Reading, page: Paging) -> Page[RunView]:
    """The runs of tasks that the request's changes made, newest first. For whoever may read the request.

    What scripts print is not made for everybody: `output` is null for callers without `tasks.manage` or
    `access_requests.manage`.
    """
    await readable(connection, request_id, caller)
    with_output = lifecycle.may_see_output(caller)
    return await run_history.list_of_request(connection, request_id, page, with_output=with_output)


@router.get("/{request_id}/messages", summary="List the discussion", responses=refusals("forbidden", "not_found"))
async def list_messages(request_id: UUID, caller: Caller, connection: Reading, page: Paging) -> Page[MessageView]:
    """The discussion thread of a request, newest first."""
    await readable(connection, request_id, caller)
    return await requests.list_messages(connection, request_id, page)


@router.post(
    "/{request_id}/messages",
    summary="Add a message",
    status_code=201,
    responses=refusals("forbidden", "not_found"),
)
async def add_message(request_id: UUID, sent: NewMessage, caller: Caller, connection: Reading) -> MessageView:
    """Say something to everybody who may read the request."""
    await readable(connection, request_id, caller)
    return await requests.add_message(connection, request_id, caller, sent.body)


async def _decide(call: _Call, request_id: UUID, action: Action) -> RequestView:
    step = Step(request_id, action, call.caller, call.comment, call.idempotency_key, call.is_async)
    taken = await lifecycle.take(call.db, call.temporal, step)
    if not taken.is_done:
        call.response.status_code = 202
        call.response.headers["Preference-Applied"] = "respond-async"
    return taken.view
