"""For administrators: what may be asked for, with an editor for every value of a template."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from api.authentication import Caller, RequestsManager
from api.reading import Paging
from api.resources import AppSettings, Db
from db import choices, templates
from db.choices import Source
from db.database import Database
from db.templates import TemplateView
from domain import durations
from domain.actors import Permission
from domain.audit_log import Kind
from domain.custom_fields import CustomField, FieldType
from domain.errors import ChangedMeanwhile, Forbidden, InUse, Invalid, TemplateInUse
from domain.templates import NotificationPolicy, TemplateValues, TriggerFailureMode
from web import reading
from web.authentication import Form
from web.choosing import Picker, picker
from web.conflicts import Conflict, conflict
from web.rendering import by_field
from web.resources import Visit

router = APIRouter(prefix="/admin")

_MOST_FIELDS: Final = 50
_LABELS: Final = {
    "name": "Name",
    "description": "Description",
    "mapping_ids": "Grants",
    "allowed_durations": "Durations to choose from, in minutes",
    "allowed_group_ids": "Who may ask",
    "approver_group_ids": "Who decides",
    "auto_approve": "Grant at once",
    "require_justification": "Ask for a justification",
    "notification_policy": "Who is told",
    "notification_count": "How many",
    "prefer_requester_groups": "Those first who share a group with the requester",
    "escalation_after_mins": "Escalate after, in minutes",
    "escalation_group_id": "Escalate to",
    "custom_fields": "Questions",
    "trigger_task_id": "Task",
    "trigger_task_failure_mode": "Should the task fail",
}
"""What the editor calls each value; the application cannot be changed."""
_FIRST_PAGE_OF: Final = (
    (Permission.REQUESTS, "/admin/templates"),
    (Permission.DIRECTORY, "/admin/applications"),
    (Permission.TASKS, "/admin/tasks"),
)


@dataclass(frozen=True)
class Question:
    """A custom field as it is being edited."""

    id: str = ""
    label: str = ""
    type: str = FieldType.TEXT
    required: bool = False
    placeholder: str = ""
    options: str = ""
    """One a line."""

    @property
    def values(self) -> dict[str, Any]:
        """As the model takes it."""
        return {
            "id": self.id or None,
            "label": self.label,
            "type": self.type,
            "required": self.required,
            "placeholder": self.placeholder,
            "options": [line.strip() for line in self.options.split("\n") if line.strip()],
        }

    @classmethod
    def sent(cls, form: FormData, name: str, stored: Question) -> Question:
        """Return what the fields of a question say, whose names start with `name`."""
        return cls(
            id=reading.text(form, f"{name}.id"),
            label=reading.content(form, f"{name}.label", stored.label),
            type=reading.text(form, f"{name}.type"),
            required=f"{name}.required" in form,
            placeholder=reading.content(form, f"{name}.placeholder", stored.placeholder),
            options=reading.content(form, f"{name}.options", stored.options),
        )

    @property
    def preview(self) -> CustomField | None:
        """What it will look like; None where it is not whole yet."""
        try:
            return CustomField.model_validate(self.values)
        except ValidationError:
            return None


@dataclass(frozen=True)
class Draft:
    """A template as it is being edited: text as it was typed."""

    name: str = ""
    description: str = ""
    app_id: str = ""
    mapping_ids: list[str] = field(default_factory=list)
    allowed_durations: str = ""
    approver_group_ids: list[str] = field(default_factory=list)
    allowed_group_ids: list[str] = field(default_factory=list)
    prefer_requester_groups: bool = False
    require_justification: bool = True
    auto_approve: bool = False
    notification_policy: str = NotificationPolicy.ALL
    notification_count: str = "1"
    escalation_after_mins: str = ""
    escalation_group_id: str = ""
    trigger_task_id: str = ""
    trigger_task_failure_mode: str = TriggerFailureMode.IGNORE
    questions: list[Question] = field(default_factory=list)

    @classmethod
    def of(cls, view: TemplateView) -> Draft:
        """A template that is there."""
        return cls(
            name=view.name,
            description=view.description,
            app_id=str(view.app_id),
            mapping_ids=[str(each) for each in view.mapping_ids],
            allowed_durations=", ".join(durations.spell(each) for each in view.allowed_durations),
            approver_group_ids=[str(each) for each in view.approver_group_ids],
            allowed_group_ids=[str(each) for each in view.allowed_group_ids],
            prefer_requester_groups=view.prefer_requester_groups,
            require_justification=view.require_justification,
            auto_approve=view.auto_approve,
            notification_policy=view.notification_policy,
            notification_count=str(view.notification_count),
            escalation_after_mins=durations.spell(view.escalation_after_mins) if view.escalation_after_mins else "",
            escalation_group_id=str(view.escalation_group_id or ""),
            trigger_task_id=str(view.trigger_task_id or ""),
            trigger_task_failure_mode=view.trigger_task_failure_mode,
            questions=[
                Question(each.key, each.label, each.type, each.required, each.placeholder, "\n".join(each.options))
                for each in view.custom_fields
            ],
        )

    @classmethod
    def sent(cls, form: FormData, before: Draft | None = None) -> Draft:
        """Return what the editor's form says.

        Args:
            form: the form.
            before: the template as it is stored, whose texts stay as they are where the form does not change them.
        """
        stored = before or cls()
        questions = {question.id: question for question in stored.questions}
        count = min(_position(reading.text(form, "questions")) or 0, _MOST_FIELDS)
        return cls(
            name=reading.content(form, "name", stored.name),
            description=reading.content(form, "description", stored.description),
            app_id=reading.text(form, "app_id"),
            mapping_ids=reading.values(form, "mapping_ids"),
            allowed_durations=reading.text(form, "allowed_durations"),
            approver_group_ids=reading.values(form, "approver_group_ids"),
            allowed_group_ids=reading.values(form, "allowed_group_ids"),
            prefer_requester_groups="prefer_requester_groups" in form,
            require_justification="require_justification" in form,
            auto_approve="auto_approve" in form,
            notification_policy=reading.text(form, "notification_policy"),
            notification_count=reading.text(form, "notification_count"),
            escalation_after_mins=reading.text(form, "escalation_after_mins"),
            escalation_group_id=reading.text(form, "escalation_group_id"),
            trigger_task_id=reading.text(form, "trigger_task_id"),
            trigger_task_failure_mode=reading.text(form, "trigger_task_failure_mode"),
            questions=[
                Question.sent(form, f"q{number}", questions.get(reading.text(form, f"q{number}.id")) or Question())
                for number in range(count)
            ],
        )

    def changed(self, step: str) -> Draft:
        """Return the draft after one of the editor's buttons; one that moves nothing changes nothing.

        Args:
            step: `add`, `remove-2`, `up-2` and `down-2` for questions, a step of `reading.moved` for pickers.
        """
        draft = replace(
            self,
            mapping_ids=reading.moved(self.mapping_ids, step, "mapping_ids"),
            approver_group_ids=reading.moved(self.approver_group_ids, step, "approver_group_ids"),
        )
        return replace(draft, questions=self._questions_after(step))

    def _questions_after(self, step: str) -> list[Question]:
        questions = list(self.questions)
        if step == "add" and len(questions) < _MOST_FIELDS:
            return [*questions, Question()]
        verb, _, number = step.partition("-")
        at = _position(number)
        if at is None or at >= len(questions):
            return questions
        moved = questions.pop(at)
        if verb in {"up", "down"}:
            questions.insert(max(at - 1, 0) if verb == "up" else at + 1, moved)
        elif verb != "remove":
            return self.questions
        return questions

    def values(self) -> TemplateValues:
        """As the API takes it.

        Raises:
            Invalid: something is not what it should be, by its field.
        """
        errors: list[tuple[str, str]] = []
        values: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "app_id": self.app_id,
            "mapping_ids": self.mapping_ids,
            "allowed_durations": [
                _minutes(each.strip(), "allowed_durations", errors)
                for each in self.allowed_durations.split(",")
                if each.strip()
            ],
            "approver_group_ids": self.approver_group_ids,
            "allowed_group_ids": self.allowed_group_ids,
            "prefer_requester_groups": self.prefer_requester_groups,
            "require_justification": self.require_justification,
            "auto_approve": self.auto_approve,
            "notification_policy": self.notification_policy,
            "notification_count": _number(self.notification_count, "notification_count", errors),
            "escalation_after_mins": (
                _minutes(self.escalation_after_mins, "escalation_after_mins", errors)
                if self.escalation_after_mins
                else None
            ),
            "escalation_group_id": self.escalation_group_id or None,
            "trigger_task_id": self.trigger_task_id or None,
            "trigger_task_failure_mode": self.trigger_task_failure_mode,
            "custom_fields": [question.values for question in self.questions],
        }
        if not self.app_id:
            errors.append(("app_id", "choose what access is granted to"))
            # Only so that the other fields are looked at as well.
            values["app_id"] = UUID(int=0)
        try:
            checked = TemplateValues.model_validate(values)
        except ValidationError as error:
            raise Invalid(*errors, *reading.invalid(error).errors) from error
        if errors:
            raise Invalid(*errors)
        return checked


def _position(text: str) -> int | None:
    """Return the number that a hidden field or a button of the editor says; None where it says none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None  # noqa: PLR2004 - as below


def _minutes(text: str, name: str, errors: list[tuple[str, str]]) -> int:
    try:
        return durations.parse(text)
    except ValueError as error:
        errors.append((name, str(error)))
        return 1


def _number(text: str, name: str, errors: list[tuple[str, str]]) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 10:  # noqa: PLR2004 - what a count could ever be
        return int(text)
    errors.append((name, "must be a whole number"))
    return 1


@router.get("")
async def first(caller: Caller) -> Response:
    """The first page of the administration that this person may see."""
    for permission, path in _FIRST_PAGE_OF:
        if caller.holds(permission):
            return RedirectResponse(path, status_code=303)
    raise Forbidden("The administration is for those who manage requests, the directory or tasks.")


@router.get("/templates")
async def index(visit: Visit, _: RequestsManager, db: Db, position: Paging) -> Response:
    """All templates."""
    listed = await templates.list_templates(db, position)
    named = {group for each in listed.items for group in (*each.approver_group_ids, *each.allowed_group_ids)}
    names = await choices.names(db, Source.GROUPS, list(named))
    return await visit.show("admin_templates.html", templates=listed, group_names=names)


@router.get("/templates/new")
async def new(visit: Visit, _: RequestsManager, db: Db) -> Response:
    """An empty editor."""
    return await _editor(visit, db, Draft(), None)


@router.get("/templates/{template_id}")
async def edit(visit: Visit, _: RequestsManager, db: Db, template_id: UUID) -> Response:
    """The editor of one template."""
    view = await templates.get(db, template_id)
    return await _editor(visit, db, Draft.of(view), template_id, version=view.version)


@router.post("/templates/new")
async def create(visit: Visit, _: RequestsManager, db: Db, settings: AppSettings, sent: Form) -> Response:
    """Make a template; or, with one of the editor's buttons, change the form."""
    draft = Draft.sent(sent)
    if (step := reading.pressed(sent)) != "save":
        return await _editor(visit, db, draft.changed(step), None, sent)
    try:
        view = await templates.create(db, draft.values(), longest_mins=settings.max_duration_mins)
    except (Invalid, InUse) as error:
        return await _editor(visit, db, draft, None, sent, error)
    return visit.back("/admin/templates", f"“{view.name}” can be asked for now.")


@router.post("/templates/{template_id}")
async def save(
    visit: Visit, _: RequestsManager, db: Db, settings: AppSettings, sent: Form, template_id: UUID
) -> Response:
    """Set every value of a template; or, with one of the editor's buttons, change the form."""
    draft = Draft.sent(sent, Draft.of(await templates.get(db, template_id)))
    version = reading.text(sent, "version")
    if (step := reading.pressed(sent)) != "save":
        return await _editor(visit, db, draft.changed(step), template_id, sent, version=version)
    try:
        values = draft.values()
        try:
            view = await templates.replace(
                db,
                template_id,
                values,
                longest_mins=settings.max_duration_mins,
                expected=reading.expected(sent),
            )
        except ChangedMeanwhile:
            view = await templates.get(db, template_id)
            found = await conflict(db, Kind.TEMPLATES, template_id, _comparable(values), _comparable(view), _LABELS)
            if found.differences:
                return await _editor(visit, db, draft, template_id, sent, version=view.version, changed=found)
    except (Invalid, InUse) as error:
        return await _editor(visit, db, draft, template_id, sent, error, version=version)
    return visit.back(
        "/admin/templates", f"“{view.name}” is saved. Requests made before keep what they were made with."
    )


@router.post("/templates/{template_id}/delete")
async def delete(visit: Visit, _: RequestsManager, db: Db, sent: Form, template_id: UUID) -> Response:
    """Delete a template that no open request was made from."""
    try:
        await templates.delete(db, template_id, reading.expected(sent))
    except (TemplateInUse, ChangedMeanwhile) as error:
        return visit.back(f"/admin/templates/{template_id}", error.detail, "problem")
    return visit.back("/admin/templates", "The template is deleted. Its requests stay in the history.")


async def _editor(
    visit: Visit,
    db: Database,
    draft: Draft,
    template_id: UUID | None,
    sent: FormData | None = None,
    error: Invalid | InUse | None = None,
    *,
    version: str = "",
    changed: Conflict | None = None,
) -> Response:
    async def pick(source: Source, name: str, chosen: list[str], within: UUID | None = None) -> Picker:
        values = [each for each in chosen if each]
        return await picker(db, source, name, values, reading.sought(sent, name), within=within)

    errors = by_field(error) if isinstance(error, Invalid) else {"": error.detail} if error else {}
    app_id = _application(draft)
    return await visit.show(
        "admin_template.html",
        status=412 if changed else 422 if error else 200,
        draft=draft,
        template_id=template_id,
        version=version,
        conflict=changed,
        errors=errors,
        applications=await pick(Source.APPLICATIONS, "app_id", [draft.app_id]),
        mappings=await pick(Source.MAPPINGS, "mapping_ids", draft.mapping_ids, app_id) if app_id else None,
        allowed=await pick(Source.GROUPS, "allowed_group_ids", draft.allowed_group_ids),
        approvers=await pick(Source.GROUPS, "approver_group_ids", draft.approver_group_ids),
        escalation=await pick(Source.GROUPS, "escalation_group_id", [draft.escalation_group_id]),
        tasks=await pick(Source.TASKS, "trigger_task_id", [draft.trigger_task_id]),
        policies=list(NotificationPolicy),
        modes=list(TriggerFailureMode),
        types=list(FieldType),
        previews=[each for question in draft.questions if (each := question.preview) is not None],
    )


def _comparable(values: TemplateValues) -> dict[str, Any]:
    """Return the values as JSON, with each question in one line."""
    questions = [
        f"{each.label} ({each.type}{', must be answered' if each.required else ''})"
        + "".join(f"; {text}" for text in (each.placeholder, ", ".join(each.options)) if text)
        for each in values.custom_fields
    ]
    return {**values.model_dump(mode="json"), "custom_fields": questions}


def _application(draft: Draft) -> UUID | None:
    try:
        return UUID(draft.app_id)
    except ValueError:
        return None
