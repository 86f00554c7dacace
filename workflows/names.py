"""How workflows, activities and search attributes are called, for everybody who has to address them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from temporalio.common import SearchAttributeKey, SearchAttributePair, SearchAttributeUpdate, TypedSearchAttributes

from domain.states import Status

TASK_QUEUE: Final = "access-requests"
SCRIPT_TASK_QUEUE: Final = "script-tasks"
"""Apart, so that a worker without the database and the master key can serve it."""
ACCESS_REQUEST_WORKFLOW: Final = "AccessRequestWorkflow"
EXPIRY_SWEEP_WORKFLOW: Final = "AccessRequestExpirySweep"
TASK_RUN_WORKFLOW: Final = "TaskRun"
DELIVERY_WORKFLOW: Final = "Delivery"
SCHEDULED_TASK_WORKFLOW: Final = "ScheduledTask"
PREPARE_GO_WORKFLOW: Final = "PrepareGo"
PREPARE_GO_ID: Final = "prepare-go"
EXPIRY_SCHEDULE: Final = "access-request-expiry"
RECONCILE_SIGNAL: Final = "reconcile"
AGAIN_SIGNAL: Final = "again"
"""Tells a delivery that it is due, should it wait for a later attempt."""
STATE_QUERY: Final = "state"

LOAD_REQUEST: Final = "load_request"
APPLY_TRANSITION: Final = "apply_transition"
RECORD_REFUSAL: Final = "record_refusal"
BEGIN_BLOCK: Final = "begin_block"
END_BLOCK: Final = "end_block"
SWEEP: Final = "sweep"
BEGIN_RUN: Final = "begin_run"
FINISH_RUN: Final = "finish_run"
MAKE_SCHEDULED_RUN: Final = "make_scheduled_run"
RUN_SCRIPT: Final = "run_script"
PREPARE_GO: Final = "prepare_go"
DELIVER: Final = "deliver"

STATUS: Final = SearchAttributeKey.for_keyword("AccessRequestStatus")
TEMPLATE: Final = SearchAttributeKey.for_keyword("AccessRequestTemplate")
APP: Final = SearchAttributeKey.for_keyword("AccessRequestApp")
REQUESTER: Final = SearchAttributeKey.for_keyword("AccessRequestRequester")
EXPIRES_AT: Final = SearchAttributeKey.for_datetime("AccessRequestExpiresAt")
SEARCH_ATTRIBUTES: Final = (STATUS, TEMPLATE, APP, REQUESTER, EXPIRES_AT)

_LONGEST_KEYWORD: Final = 255
"""Temporal's limit for a keyword in its SQL stores, in characters.

Counted in UTF-16 units, of which JSON takes six bytes each at most, it keeps the limit of 2 KiB for a value as well.
"""


def delivery_id(row_id: UUID) -> str:
    """The id of the workflow of a run or a delivery."""
    return f"delivery-{row_id}"


SCHEDULE_PREFIX: Final = "scheduled-task-"


def schedule_id(task_id: UUID) -> str:
    """The id of a task's Schedule."""
    return f"{SCHEDULE_PREFIX}{task_id}"


def search_attributes(
    *, status: Status, template_name: str, app_name: str, requester_email: str, expires_at: datetime | None
) -> TypedSearchAttributes:
    """What operators filter the workflows of requests by."""
    pairs = [
        SearchAttributePair(STATUS, status.value),
        SearchAttributePair(TEMPLATE, _keyword(template_name)),
        SearchAttributePair(APP, _keyword(app_name)),
        SearchAttributePair(REQUESTER, _keyword(requester_email)),
    ]
    if expires_at is not None:
        pairs.append(SearchAttributePair(EXPIRES_AT, expires_at))  # type: ignore[arg-type]
    return TypedSearchAttributes(pairs)


def _keyword(value: str) -> str:
    return value.encode("utf-16-le")[: 2 * _LONGEST_KEYWORD].decode("utf-16-le", errors="ignore")


def attribute_changes(
    current: TypedSearchAttributes, wanted: TypedSearchAttributes
) -> list[SearchAttributeUpdate[Any]]:
    """The updates that lead from `current` to `wanted`; none where they agree."""
    held = {pair.key.name: pair.value for pair in current}
    return [pair.key.value_set(pair.value) for pair in wanted if held.get(pair.key.name) != pair.value]


def summary(*, requester_email: str, template_name: str, duration_mins: int) -> str:
    """One line for the list of workflows: who wants what, for how long."""
    return f"{requester_email} → {template_name}, {readable_minutes(duration_mins)}"


def readable_minutes(minutes: int) -> str:
    """Minutes as people say them: `8 h`, `1 d 30 min`."""
    days, rest = divmod(minutes, 1440)
    hours, mins = divmod(rest, 60)
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (mins, "min")) if count]
    return " ".join(parts) or "0 min"
