"""For administrators: tasks with their runs, integrations with their deliveries, secrets.

What a button does is what the route of the API does, which is called with who is signed in.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.datastructures import FormData
from starlette.responses import Response

from api.authentication import TasksManager, TasksReader
from api.reading import Paging, Reading
from api.resources import AppSettings, Db, Secrets, Temporal
from api.routes import integrations as integration_routes
from api.routes import scheduled_tasks as task_routes
from api.routes import secrets as secret_routes
from db import deliveries, integrations, run_history, secrets, tasks
from db.choices import Source
from db.database import Connection, Database
from db.integrations import IntegrationView
from db.paging import Position
from db.tasks import TaskView
from domain.audit_log import Kind
from domain.clocks import NextRuns, next_runs
from domain.errors import AccessError, ChangedMeanwhile, Invalid, OrchestratorUnavailable
from domain.events import Event
from domain.integrations import IntegrationValues, Role, Target
from domain.secrets import NewSecret, SecretChange
from domain.tasks import RUN_OVER, Language, ScheduleType, TaskValues
from domain.versions import ANY_VERSION
from web import reading
from web.authentication import Form
from web.choosing import Picker, picker
from web.conflicts import Conflict, conflict, version_shown
from web.rendering import by_field
from web.resources import Visit, Visitor

router = APIRouter(prefix="/admin")

Errors = dict[str, str]

_NOTHING: Final[Errors] = {}
_SHOWN_TIMES: Final = 5
"""How many of the next times of a task its page shows."""
_TASK_LABELS: Final = {
    "name": "Name",
    "description": "Description",
    "language": "Language",
    "script": "Script",
    "schedule_type": "By itself",
    "interval_seconds": "Interval, in seconds",
    "cron": "Cron expression",
    "time_zone": "Time zone",
    "max_retries": "Retries",
    "timeout_seconds": "Seconds it may take",
    "secret_names": "Secrets it may read",
    "network": "The network",
}
"""What the editor calls each value of a task."""
_INTEGRATION_LABELS: Final = {
    "name": "Name",
    "events": "Of which events",
    "template_id": "Only of this template",
    "app_id": "Only of this application",
    "url": "URL of the webhook",
    "task_id": "Task to run",
    "roles": "By mail: whom",
    "enabled": "Active",
}
"""What the form calls each value of an integration that may be read; the target cannot be changed."""
_NUMBERS: Final = ("interval_seconds", "max_retries", "timeout_seconds")


def _told(error: AccessError) -> Errors:
    return by_field(error) if isinstance(error, Invalid) else {"name": error.detail}


# Tasks


@router.get("/tasks")
async def task_list(visit: Visit, _: TasksReader, db: Db, position: Paging) -> Response:
    """All tasks."""
    return await visit.show("admin_tasks.html", tasks=await tasks.list_tasks(db, position))


@router.get("/tasks/new")
async def new_task(visit: Visit, _: TasksManager, db: Db) -> Response:
    """An empty editor."""
    return await _editor(visit, db, None)


@router.post("/tasks/new")
async def create_task(visit: Visit, _: TasksManager, db: Db, temporal: Temporal, sent: Form) -> Response:
    """Make a task; or, with a picker's button, change the form."""
    if reading.pressed(sent) != "save":
        return await _editor(visit, db, None, sent=sent)
    try:
        view = await task_routes.create_task(db, temporal, visit.person, _task_values(sent), Response())
    except AccessError as error:
        return await _editor(visit, db, None, _told(error), sent)
    return visit.back(f"/admin/tasks/{view.id}", f"“{view.name}” is there. Run it once to see that it works.")


@router.get("/tasks/{task_id}")
async def task(
    visit: Visit,
    _: TasksReader,
    db: Db,
    connection: Reading,
    temporal: Temporal,
    position: Paging,
    task_id: UUID,
) -> Response:
    """One task with its next times and its runs."""
    view = await tasks.get(db, task_id)
    runs = await run_history.list_of_task(connection, task_id, position)
    upcoming, away = NextRuns(items=[]), False
    if view.schedule_type is not ScheduleType.ONCE and not view.paused:
        try:
            times = await temporal.next_runs(task_id)
            upcoming = next_runs(view.cron, view.time_zone, times[:_SHOWN_TIMES], datetime.now(UTC))
        except OrchestratorUnavailable:
            away = True
    return await visit.show(
        "admin_task.html",
        task=view,
        runs=runs,
        upcoming=upcoming,
        away=away,
        goes_on=any(run.status not in RUN_OVER for run in runs.items),
    )


@router.get("/tasks/{task_id}/edit")
async def edit_task(visit: Visit, _: TasksManager, db: Db, task_id: UUID) -> Response:
    """The editor of one task."""
    return await _editor(visit, db, await tasks.get(db, task_id))


@router.post("/tasks/{task_id}/edit")
async def change_task(visit: Visit, _: TasksManager, db: Db, temporal: Temporal, sent: Form, task_id: UUID) -> Response:
    """Set every value of a task; or, with a picker's button, change the form."""
    view = await tasks.get(db, task_id)
    if reading.pressed(sent) != "save":
        return await _editor(visit, db, view, sent=sent)
    try:
        values = _task_values(sent, view)
        try:
            await task_routes.update_task(
                db, temporal, visit.person, task_id, values, reading.expected(sent), Response()
            )
        except ChangedMeanwhile:
            view = await tasks.get(db, task_id)
            stored = view.model_dump(mode="json") | ({"language": None} if view.language_inferred else {})
            found = await conflict(db, Kind.TASKS, task_id, values.model_dump(mode="json"), stored, _TASK_LABELS)
            if found.differences:
                return await _editor(visit, db, view, sent=sent, changed=found)
    except AccessError as error:
        return await _editor(visit, db, view, _told(error), sent)
    return visit.back(f"/admin/tasks/{task_id}", "Saved. What starts from now on runs the new script.")


@router.post("/tasks/{task_id}/{step}")
async def do_with_task(  # noqa: PLR0917 - what its routes of the API need
    visit: Visit,
    _: TasksManager,
    db: Db,
    temporal: Temporal,
    connection: Reading,
    sent: Form,
    task_id: UUID,
    step: str,
) -> Response:
    """Run it now, pause it, resume it or delete it."""
    back, said = f"/admin/tasks/{task_id}", ""
    try:
        match step:
            case "run":
                await task_routes.run_task(temporal, visit.person, connection, task_id, Response())
                said = "It runs now: see below what comes of it."
            case "pause":
                await task_routes.pause_task(db, temporal, visit.person, task_id)
                said = "Paused: its times are passed over. It still runs when triggered or on demand."
            case "resume":
                await task_routes.resume_task(db, temporal, visit.person, task_id)
                said = "It runs at its times again."
            case "delete":
                await task_routes.delete_task(db, temporal, visit.person, task_id, reading.expected(sent))
                back, said = "/admin/tasks", "The task is deleted. Its runs stay with the requests that made them."
            case _:
                raise Invalid(("", "there is no such button"))
    except AccessError as error:
        return visit.back(back, error.detail, "problem")
    return visit.back(back, said)


@router.get("/tasks/{task_id}/runs/{run_id}")
async def run(visit: Visit, _: TasksReader, connection: Reading, task_id: UUID, run_id: UUID) -> Response:
    """One run with its whole output."""
    return await visit.show("admin_run.html", run=await run_history.get(connection, task_id, run_id))


def _task_values(sent: FormData, before: TaskView | None = None) -> TaskValues:
    found: dict[str, Any] = {
        "name": reading.content(sent, "name", before.name if before else ""),
        "description": reading.content(sent, "description", before.description if before else ""),
        "language": reading.text(sent, "language") or None,
        "script": reading.content(sent, "script", before.script if before else ""),
        "schedule_type": reading.text(sent, "schedule_type"),
        "cron": reading.text(sent, "cron") or None,
        "time_zone": reading.text(sent, "time_zone") or "UTC",
        "secret_names": reading.values(sent, "secret_names"),
        "network": "network" in sent,
    }
    # Only the setting that belongs to the chosen kind of schedule: the others are shown all the same.
    if found["schedule_type"] != ScheduleType.CRON:
        found["cron"] = None
    for name in _NUMBERS:
        text = reading.text(sent, name)
        if name == "interval_seconds" and found["schedule_type"] != ScheduleType.INTERVAL:
            continue
        if not (text.isascii() and text.isdecimal() and len(text) < 10):  # noqa: PLR2004 - what could ever be meant
            raise Invalid((name, "must be a whole number"))
        found[name] = int(text)
    try:
        return TaskValues.model_validate(found)
    except ValidationError as error:
        raise reading.invalid(error) from error


async def _editor(
    visit: Visitor,
    db: Database,
    view: TaskView | None,
    errors: Errors = _NOTHING,
    sent: FormData | None = None,
    changed: Conflict | None = None,
) -> Response:
    given: dict[str, Any] = {
        "schedule_type": ScheduleType.ONCE,
        "time_zone": "UTC",
        "max_retries": 3,
        "timeout_seconds": 60,
        "network": True,
        "secret_names": [],
    }
    if view is not None:
        given = view.model_dump()
        given["language"] = "" if view.language_inferred else view.language
    if sent is not None:
        given = {
            **{name: value for name, value in sent.items() if isinstance(value, str)},
            "network": "network" in sent,
        }
        given["secret_names"] = reading.values(sent, "secret_names")
    sought = reading.sought(sent, "secret_names")
    return await visit.show(
        "admin_task_editor.html",
        status=412 if changed else 422 if errors else 200,
        task=view,
        version=version_shown(view, sent, changed),
        conflict=changed,
        given=given,
        errors=errors,
        languages=list(Language),
        schedules=list(ScheduleType),
        secrets=await picker(db, Source.SECRETS, "secret_names", given["secret_names"], sought),
    )


# Integrations


@router.get("/integrations")
async def integration_list(visit: Visit, _: TasksManager, db: Db, position: Paging) -> Response:
    """All integrations."""
    return await visit.show("admin_integrations.html", integrations=await integrations.list_integrations(db, position))


@router.get("/integrations/new")
async def new_integration(visit: Visit, _: TasksManager, db: Db) -> Response:
    """An empty form."""
    return await _integration_form(visit, db, None)


@router.post("/integrations/new")
async def create_integration(
    visit: Visit, _: TasksManager, db: Db, vault: Secrets, settings: AppSettings, sent: Form
) -> Response:
    """Make an integration, whose signing secret is shown this once; or, with a picker's button, change the form."""
    if reading.pressed(sent) != "save":
        return await _integration_form(visit, db, None, sent=sent)
    try:
        made = await integration_routes.create_integration(
            db, vault, settings, visit.person, _integration_values(sent), Response()
        )
    except AccessError as error:
        return await _integration_form(visit, db, None, _told(error), sent)
    if made.signing_secret is None:
        return visit.back(f"/admin/integrations/{made.id}", f"“{made.name}” is told from now on.")
    async with db.connection() as connection:
        return await _integration(visit, db, connection, made.id, Position(), secret=made.signing_secret)


@router.get("/integrations/{integration_id}")
async def integration(
    visit: Visit, _: TasksManager, db: Db, connection: Reading, position: Paging, integration_id: UUID
) -> Response:
    """One integration with its deliveries."""
    return await _integration(visit, db, connection, integration_id, position)


@router.get("/integrations/{integration_id}/edit")
async def edit_integration(visit: Visit, _: TasksManager, db: Db, integration_id: UUID) -> Response:
    """The form of one integration."""
    return await _integration_form(visit, db, await integrations.get(db, integration_id))


@router.post("/integrations/{integration_id}/edit")
async def change_integration(
    visit: Visit, _: TasksManager, db: Db, vault: Secrets, settings: AppSettings, sent: Form, integration_id: UUID
) -> Response:
    """Set every value but for secrets that are not given; or, with a picker's button, change the form."""
    if reading.pressed(sent) != "save":
        return await _integration_form(visit, db, await integrations.get(db, integration_id), sent=sent)
    try:
        values = _integration_values(sent)
        try:
            await integration_routes.update_integration(
                db, vault, settings, visit.person, integration_id, values, reading.expected(sent), Response()
            )
        except ChangedMeanwhile:
            view = await integrations.get(db, integration_id)
            # Without roles, mails go to all roles.
            to_all = values.target is Target.EMAIL and values.roles is None
            typed = values.model_dump(mode="json") | ({"roles": [role.value for role in Role]} if to_all else {})
            stored = view.model_dump(mode="json")
            found = await conflict(db, Kind.INTEGRATIONS, integration_id, typed, stored, _INTEGRATION_LABELS)
            # A URL of Slack that was typed counts as different: the stored one is shown to nobody.
            if found.differences or values.slack_url is not None:
                return await _integration_form(visit, db, view, sent=sent, changed=found)
    except AccessError as error:
        return await _integration_form(visit, db, await integrations.get(db, integration_id), _told(error), sent)
    return visit.back(f"/admin/integrations/{integration_id}", "Saved.")


@router.post("/integrations/{integration_id}/{step}")
async def do_with_integration(  # noqa: PLR0917 - what its routes of the API need
    visit: Visit,
    _: TasksManager,
    db: Db,
    vault: Secrets,
    settings: AppSettings,
    connection: Reading,
    sent: Form,
    integration_id: UUID,
    step: str,
) -> Response:
    """Try it, exchange its secret, or delete it."""
    back = f"/admin/integrations/{integration_id}"
    try:
        match step:
            case "test":
                tried = await integration_routes.test_integration(db, vault, settings, visit.person, integration_id)
                if tried.error is None:
                    return visit.back(back, f"A sample arrived, in {tried.latency_ms} ms.")
                return visit.back(back, f"The sample did not arrive: {tried.error}", "problem")
            case "rotate-secret":
                made = await integration_routes.rotate_integration_secret(db, vault, visit.person, integration_id)
                return await _integration(visit, db, connection, integration_id, Position(), secret=made.signing_secret)
            case "delete":
                await integration_routes.delete_integration(db, visit.person, integration_id, reading.expected(sent))
                return visit.back("/admin/integrations", "The integration is deleted, with its deliveries.")
            case _:
                raise Invalid(("", "there is no such button"))
    except AccessError as error:
        return visit.back(back, error.detail, "problem")


@router.post("/integrations/{integration_id}/deliveries/{delivery_id}/redeliver")
async def redeliver(
    visit: Visit, _: TasksManager, connection: Reading, __: Form, integration_id: UUID, delivery_id: UUID
) -> Response:
    """Deliver once more."""
    await integration_routes.redeliver(visit.person, connection, integration_id, delivery_id)
    return visit.back(f"/admin/integrations/{integration_id}", "It is sent again within seconds.")


async def _integration(
    visit: Visitor,
    db: Database,
    connection: Connection,
    integration_id: UUID,
    position: Position,
    *,
    secret: str | None = None,
) -> Response:
    view = await integrations.get(db, integration_id)
    listed = await deliveries.list_deliveries(connection, integration_id, position)
    return await visit.show("admin_integration.html", integration=view, deliveries=listed, secret=secret)


async def _integration_form(
    visit: Visitor,
    db: Database,
    view: IntegrationView | None,
    errors: Errors = _NOTHING,
    sent: FormData | None = None,
    changed: Conflict | None = None,
) -> Response:
    given: dict[str, Any] = {"target": Target.WEBHOOK, "enabled": True, "events": [], "roles": list(Role)}
    if view is not None:
        given = view.model_dump()
    if sent is not None:
        given = {
            **{name: value for name, value in sent.items() if isinstance(value, str)},
            "enabled": "enabled" in sent,
        }
        given |= {name: reading.values(sent, name) for name in ("events", "roles")}

    async def pick(source: Source, name: str) -> Picker:
        chosen = given.get(name)
        return await picker(db, source, name, [str(chosen)] if chosen else [], reading.sought(sent, name))

    return await visit.show(
        "admin_integration_form.html",
        status=412 if changed else 422 if errors else 200,
        integration=view,
        version=version_shown(view, sent, changed),
        conflict=changed,
        given=given,
        errors=errors,
        targets=list(Target),
        events=list(Event),
        roles=list(Role),
        templates=await pick(Source.TEMPLATES, "template_id"),
        applications=await pick(Source.APPLICATIONS, "app_id"),
        tasks=await pick(Source.TASKS, "task_id"),
    )


def _integration_values(sent: FormData) -> IntegrationValues:
    target = reading.text(sent, "target")
    found: dict[str, Any] = {
        "name": reading.text(sent, "name"),
        "target": target,
        "enabled": "enabled" in sent,
        "events": reading.values(sent, "events"),
        "template_id": reading.text(sent, "template_id") or None,
        "app_id": reading.text(sent, "app_id") or None,
    }
    # Of what belongs to one target each, only what belongs to this one.
    match target:
        case Target.TASK:
            found["task_id"] = reading.text(sent, "task_id") or None
        case Target.WEBHOOK:
            found["url"] = reading.text(sent, "url") or None
        case Target.SLACK:
            found["slack_url"] = reading.text(sent, "slack_url") or None
        case Target.EMAIL:
            found["roles"] = reading.values(sent, "roles") or None
    try:
        return IntegrationValues.model_validate(found)
    except ValidationError as error:
        raise reading.invalid(error) from error


# Secrets


@router.get("/secrets")
async def secret_list(visit: Visit, _: TasksManager, db: Db, position: Paging) -> Response:
    """All secrets, without their values."""
    return await _secrets(visit, db, position)


@router.post("/secrets")
async def create_secret(visit: Visit, _: TasksManager, db: Db, vault: Secrets, sent: Form) -> Response:
    """Make a secret."""
    try:
        found = {"name": reading.text(sent, "name"), "description": reading.content(sent, "description")}
        values = NewSecret.model_validate({**found, "value": reading.content(sent, "value")})
        await secret_routes.create_secret(db, vault, visit.person, values, Response())
    except ValidationError as error:
        return await _secrets(visit, db, Position(), by_field(reading.invalid(error)), sent)
    except AccessError as error:
        return await _secrets(visit, db, Position(), _told(error), sent)
    return visit.back("/admin/secrets", f"{values.name} is kept. Tasks that name it can read it.")


@router.post("/secrets/{secret_id}/{step}")
async def do_with_secret(
    visit: Visit, _: TasksManager, db: Db, vault: Secrets, sent: Form, secret_id: UUID, step: str
) -> Response:
    """Give it another value, or delete it."""
    back = "/admin/secrets"
    try:
        if step == "delete":
            await secret_routes.delete_secret(db, visit.person, secret_id, reading.expected(sent))
            return visit.back(back, "The secret is deleted.")
        change = SecretChange.model_validate({"value": reading.content(sent, "value")})
        view = await secret_routes.update_secret(db, vault, visit.person, secret_id, change, ANY_VERSION, Response())
    except ValidationError:
        return visit.back(back, "A secret has 1 to 32,768 characters; nothing was changed.", "problem")
    except AccessError as error:
        return visit.back(back, error.detail, "problem")
    return visit.back(back, f"{view.name} has another value. Runs that start from now on read it.")


async def _secrets(
    visit: Visitor, db: Database, position: Position, errors: Errors = _NOTHING, sent: FormData | None = None
) -> Response:
    return await visit.show(
        "admin_secrets.html",
        status=422 if errors else 200,
        secrets=await secrets.list_secrets(db, position),
        errors=errors,
        given=sent or {},
    )
