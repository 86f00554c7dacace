"""For administrators: applications and what they can grant, people, groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData
from starlette.responses import Response

from api.authentication import DirectoryManager, DirectoryReader
from api.reading import Paging
from api.resources import Db, Temporal
from db import applications, choices, groups, people, users
from db.choices import Source
from db.database import Database
from db.paging import Position
from domain.actors import Permission
from domain.audit_log import Kind
from domain.directory import ApplicationValues, GroupValues, MappingValues, UserReplacement, UserValues
from domain.errors import AccessError, ChangedMeanwhile, Invalid
from domain.text import LONGEST_FILTER, FilterText
from domain.versions import Expected
from web import reading
from web.authentication import Form
from web.conflicts import Conflict, conflict, version_shown
from web.rendering import by_field
from web.resources import Visit, Visitor

router = APIRouter(prefix="/admin")

Values = TypeVar("Values", bound=BaseModel)
Errors = dict[str, str]

_NOTHING: Final[Errors] = {}
_FIRST_PAGE: Final = Position()
_DESCRIBED: Final = {"name": "Name", "description": "Description"}
_GROUP_LABELS: Final = {**_DESCRIBED, "permissions": "What membership brings"}
_ACCOUNT_LABELS: Final = {"name": "Name", "email": "Email"}
"""What the forms call each value that they change."""

Sought = Annotated[FilterText, Query(alias="q")]


def _checked(model: type[Values], values: dict[str, Any]) -> Values:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise reading.invalid(error) from error


def _told(error: AccessError, field: str = "name") -> Errors:
    """What a refusal says, by field; what is refused as a whole is mostly about the name."""
    return by_field(error) if isinstance(error, Invalid) else {field: error.detail}


def _described(sent: FormData, before: ApplicationValues | GroupValues | None = None) -> dict[str, str]:
    """Return name and description as a form says them; `before` is what it was filled with."""
    return {
        "name": reading.content(sent, "name", before.name if before else ""),
        "description": reading.content(sent, "description", before.description if before else ""),
    }


def _account(sent: FormData) -> dict[str, str]:
    return {name: reading.text(sent, name) for name in ("email", "name")}


# Applications


@router.get("/applications")
async def application_list(visit: Visit, _: DirectoryReader, db: Db, position: Paging) -> Response:
    """All applications."""
    return await _applications(visit, db, position)


@router.post("/applications")
async def create_application(visit: Visit, _: DirectoryManager, db: Db, sent: Form) -> Response:
    """Make an application."""
    try:
        values = _checked(ApplicationValues, _described(sent))
        view = await applications.create_application(db, values)
    except AccessError as error:
        return await _applications(visit, db, Position(), _told(error), sent)
    return visit.back(f"/admin/applications/{view.id}", f"“{view.name}” is there. Say now what it can grant.")


async def _applications(
    visit: Visitor, db: Database, position: Position, errors: Errors = _NOTHING, given: FormData | None = None
) -> Response:
    listed = await applications.list_applications(db, position)
    return await visit.show(
        "admin_applications.html",
        status=422 if errors else 200,
        applications=listed,
        errors=errors,
        given=given or {},
    )


@router.get("/applications/{app_id}")
async def application(visit: Visit, _: DirectoryReader, db: Db, position: Paging, app_id: UUID) -> Response:
    """One application with its mappings."""
    return await _application(visit, db, app_id, position=position)


@router.post("/applications/{app_id}")
async def change_application(visit: Visit, _: DirectoryManager, db: Db, sent: Form, app_id: UUID) -> Response:
    """Set its values."""
    try:
        before = await applications.get_application(db, app_id)
        values = _checked(ApplicationValues, _described(sent, before))
        try:
            await applications.replace_application(db, app_id, values, reading.expected(sent))
        except ChangedMeanwhile:
            stored = (await applications.get_application(db, app_id)).model_dump(mode="json")
            found = await conflict(db, Kind.APPLICATIONS, app_id, values.model_dump(mode="json"), stored, _DESCRIBED)
            if found.differences:
                return await _application(visit, db, app_id, given=sent, changed=found)
    except AccessError as error:
        return await _application(visit, db, app_id, errors=_told(error), given=sent)
    return visit.back(f"/admin/applications/{app_id}", "Saved.")


@router.post("/applications/{app_id}/delete")
async def delete_application(visit: Visit, _: DirectoryManager, db: Db, sent: Form, app_id: UUID) -> Response:
    """Delete an application that nothing is for."""
    return await _done(
        visit,
        lambda: applications.delete_application(db, app_id, reading.expected(sent)),
        "The application is deleted.",
        "/admin/applications",
        f"/admin/applications/{app_id}",
    )


@router.post("/applications/{app_id}/client-secret")
async def new_client_secret(visit: Visit, _: DirectoryManager, db: Db, __: Form, app_id: UUID) -> Response:
    """Make another client secret, and show it this once."""
    made = await applications.rotate_client_secret(db, app_id)
    return await _application(visit, db, app_id, secret=made.client_secret)


@router.post("/applications/{app_id}/mappings")
async def create_mapping(visit: Visit, _: DirectoryManager, db: Db, sent: Form, app_id: UUID) -> Response:
    """Add something that the application can grant."""
    try:
        found = {name: reading.text(sent, f"mapping.{name}") for name in ("name", "claim", "value")}
        await applications.create_mapping(db, _checked(MappingValues, {"app_id": app_id, **found}))
    except AccessError as error:
        errors = {f"mapping.{field}": message for field, message in _told(error).items()}
        return await _application(visit, db, app_id, errors=errors, given=sent)
    return visit.back(f"/admin/applications/{app_id}", "Templates can grant it now.")


@router.post("/applications/{app_id}/mappings/{mapping_id}/{step}")
async def change_mapping(
    visit: Visit, _: DirectoryManager, db: Db, sent: Form, app_id: UUID, mapping_id: UUID, step: str
) -> Response:
    """Delete a mapping, give it to the group of a name, or take it from the group of an id."""
    back = f"/admin/applications/{app_id}"
    if step == "delete":
        return await _done(
            visit,
            lambda: applications.delete_mapping(db, mapping_id, reading.expected(sent), by=visit.person),
            "The mapping is deleted.",
            back,
        )
    if step == "detach":
        try:
            held_by = UUID(reading.text(sent, "group_id"))
        except ValueError:
            return visit.back(back, "There is no such group.", "problem")
        said = "Its members do not get the claim any more."
        return await _done(visit, lambda: applications.detach(db, mapping_id, held_by, by=visit.person), said, back)
    name = reading.text(sent, "group")[:LONGEST_FILTER]
    group_id = await choices.by_name(db, Source.GROUPS, name)
    if group_id is None:
        wrong = f"There is no group “{name}”: choose one whose name contains it, or type another part." if name else ""
        errors = {f"group.{mapping_id}": wrong or "Choose a group first."}
        return await _application(visit, db, app_id, errors=errors, given=sent)
    said = "Its members get the claim from now on."
    return await _done(visit, lambda: applications.attach(db, mapping_id, group_id, by=visit.person), said, back)


async def _application(
    visit: Visitor,
    db: Database,
    app_id: UUID,
    *,
    position: Position = _FIRST_PAGE,
    errors: Errors = _NOTHING,
    given: FormData | None = None,
    secret: str | None = None,
    changed: Conflict | None = None,
) -> Response:
    view = await applications.get_application(db, app_id)
    mappings = await applications.list_mappings(db, position, app_id=app_id)
    attached = {group_id for mapping in mappings.items for group_id in mapping.group_ids}
    sought = reading.text(given, "group")[:LONGEST_FILTER] if given is not None else ""
    return await visit.show(
        "admin_application.html",
        status=412 if changed else 422 if errors else 200,
        application=view,
        version=version_shown(view, given, changed),
        conflict=changed,
        mappings=mappings,
        group_names=await choices.names(db, Source.GROUPS, list(attached)),
        offered=(await choices.choices(db, Source.GROUPS, sought=sought)).others,
        errors=errors,
        given=given or {},
        secret=secret,
    )


# People


@router.get("/people")
async def person_list(visit: Visit, _: DirectoryReader, db: Db, position: Paging, sought: Sought = "") -> Response:
    """Everybody."""
    return await _people(visit, db, position, sought.strip())


@router.post("/people")
async def create_person(visit: Visit, _: DirectoryManager, db: Db, sent: Form) -> Response:
    """Make an account, of a person or for a program of somebody's."""
    try:
        owner = reading.text(sent, "owner")
        values = {**_account(sent), "owner_id": await _id_of(db, owner, "owner") if owner else None}
        view = await users.create(db, _checked(UserValues, values), by=visit.person)
    except AccessError as error:
        return await _people(visit, db, Position(), "", _told(error, "email"), sent)
    return visit.back(f"/admin/people/{view.id}", f"{view.name} has an account.")


async def _people(
    visit: Visitor,
    db: Database,
    position: Position,
    sought: str,
    errors: Errors = _NOTHING,
    given: FormData | None = None,
) -> Response:
    listed = await users.list_users(db, position, email=sought or None)
    return await visit.show(
        "admin_people.html",
        status=422 if errors else 200,
        people=listed,
        sought=sought,
        errors=errors,
        given=given or {},
    )


@router.get("/people/{user_id}")
async def one_person(visit: Visit, _: DirectoryReader, db: Db, user_id: UUID) -> Response:
    """One account with its groups."""
    return await _person(visit, db, user_id)


@router.post("/people/{user_id}")
async def change_person(
    visit: Visit, _: DirectoryManager, db: Db, temporal: Temporal, sent: Form, user_id: UUID
) -> Response:
    """Set its values; deactivate, or the other way round."""
    before = await users.get(db, user_id)
    # Only these buttons say whether the account is active: it may have been deactivated since the page was shown.
    active = {"deactivate": False, "activate": True}.get(reading.text(sent, "do"))
    expected = reading.expected(sent) if "email" in sent else Expected(frozenset({before.version}))
    try:
        if "email" in sent:
            values = _checked(UserReplacement, {**_account(sent), "active": active, "owner_id": before.owner_id})
        else:
            # Unchecked: what is stored may be older than a rule, which must not keep anybody from being deactivated.
            values = UserReplacement.model_construct(
                email=before.email, name=before.name, active=active, owner_id=before.owner_id
            )
        try:
            view, marked = await users.replace(db, visit.person, user_id, values, expected)
            await temporal.reconcile(marked)
        except ChangedMeanwhile as error:
            if active is not None:
                return await _person(visit, db, user_id, _told(error, ""))
            view = await users.get(db, user_id)
            typed, stored = values.model_dump(mode="json"), view.model_dump(mode="json")
            found = await conflict(db, Kind.USERS, user_id, typed, stored, _ACCOUNT_LABELS)
            if found.differences:
                return await _person(visit, db, user_id, given=sent, changed=found)
    except AccessError as error:
        return await _person(visit, db, user_id, _told(error, ""), sent)
    said = "Saved." if active is None else f"{view.name} is {'active again' if active else 'deactivated'}."
    return visit.back(f"/admin/people/{user_id}", said)


async def _person(
    visit: Visitor,
    db: Database,
    user_id: UUID,
    errors: Errors = _NOTHING,
    given: FormData | None = None,
    changed: Conflict | None = None,
) -> Response:
    view = await users.get(db, user_id)
    owner = await users.get(db, view.owner_id) if view.owner_id else None
    held = []
    # What somebody holds is shown to whoever the API shows it to.
    if visit.person.holds(Permission.DIRECTORY) or user_id == visit.person.id:
        async with db.connection() as connection:
            held = await users.held_groups(connection, user_id)
    return await visit.show(
        "admin_person.html",
        status=412 if changed else 422 if errors else 200,
        account=view,
        version=version_shown(view, given, changed),
        conflict=changed,
        owner=owner,
        held=held,
        errors=errors,
        given=given or {},
    )


# Groups


@router.get("/groups")
async def group_list(visit: Visit, _: DirectoryReader, db: Db, position: Paging, sought: Sought = "") -> Response:
    """All groups."""
    return await _groups(visit, db, position, sought.strip())


@router.post("/groups")
async def create_group(visit: Visit, _: DirectoryManager, db: Db, sent: Form) -> Response:
    """Make a group."""
    try:
        view = await groups.create(db, visit.person, _checked(GroupValues, _group_values(sent)))
    except AccessError as error:
        return await _groups(visit, db, Position(), "", _told(error), sent)
    return visit.back(f"/admin/groups/{view.id}", f"“{view.name}” is there. Add its members.")


async def _groups(
    visit: Visitor,
    db: Database,
    position: Position,
    sought: str,
    errors: Errors = _NOTHING,
    given: FormData | None = None,
) -> Response:
    listed = await groups.list_groups(db, position, name=sought or None)
    return await visit.show(
        "admin_groups.html",
        status=422 if errors else 200,
        groups=listed,
        sought=sought,
        permissions=list(Permission),
        errors=errors,
        given=given or {},
    )


@router.get("/groups/{group_id}")
async def one_group(visit: Visit, _: DirectoryReader, db: Db, position: Paging, group_id: UUID) -> Response:
    """One group with its members."""
    return await _group(visit, db, group_id, position)


@router.post("/groups/{group_id}")
async def change_group(visit: Visit, _: DirectoryManager, db: Db, sent: Form, group_id: UUID) -> Response:
    """Set its values."""
    try:
        values = _checked(GroupValues, _group_values(sent, await groups.get(db, group_id)))
        try:
            await groups.replace(db, visit.person, group_id, values, reading.expected(sent))
        except ChangedMeanwhile:
            stored = (await groups.get(db, group_id)).model_dump(mode="json")
            found = await conflict(db, Kind.GROUPS, group_id, values.model_dump(mode="json"), stored, _GROUP_LABELS)
            if found.differences:
                return await _group(visit, db, group_id, Position(), given=sent, changed=found)
    except AccessError as error:
        return await _group(visit, db, group_id, Position(), _told(error), given=sent)
    return visit.back(f"/admin/groups/{group_id}", "Saved.")


@router.post("/groups/{group_id}/delete")
async def delete_group(
    visit: Visit, _: DirectoryManager, db: Db, temporal: Temporal, sent: Form, group_id: UUID
) -> Response:
    """Delete a group that no template is only for."""

    async def gone() -> None:
        await temporal.reconcile(await groups.delete(db, visit.person, group_id, reading.expected(sent)))

    return await _done(visit, gone, "The group is deleted.", "/admin/groups", f"/admin/groups/{group_id}")


@router.post("/groups/{group_id}/members")
async def add_member(visit: Visit, _: DirectoryManager, db: Db, sent: Form, group_id: UUID) -> Response:
    """Add somebody, by email address."""
    try:
        user_id = await _id_of(db, reading.text(sent, "email"), "email")
        await groups.add_member(db, visit.person, group_id, user_id)
    except AccessError as error:
        return await _group(visit, db, group_id, Position(), _told(error, "email"), given=sent)
    return visit.back(f"/admin/groups/{group_id}", "Added, as the last in order.")


@router.post("/groups/{group_id}/members/{user_id}/remove")
async def remove_member(
    visit: Visit, _: DirectoryManager, db: Db, temporal: Temporal, __: Form, group_id: UUID, user_id: UUID
) -> Response:
    """Take somebody out, at once."""

    async def gone() -> None:
        await temporal.reconcile(await groups.remove_member(db, visit.person, group_id, user_id))

    return await _done(visit, gone, "Removed. What membership gave is gone.", f"/admin/groups/{group_id}")


async def _group(
    visit: Visitor,
    db: Database,
    group_id: UUID,
    position: Position,
    errors: Errors = _NOTHING,
    *,
    given: FormData | None = None,
    changed: Conflict | None = None,
) -> Response:
    view = await groups.get(db, group_id)
    return await visit.show(
        "admin_group.html",
        status=412 if changed else 422 if errors else 200,
        group=view,
        version=version_shown(view, given, changed),
        conflict=changed,
        members=await groups.list_members(db, group_id, position),
        permissions=list(Permission),
        errors=errors,
        given=given or {},
    )


def _group_values(sent: FormData, before: GroupValues | None = None) -> dict[str, Any]:
    return {**_described(sent, before), "permissions": reading.values(sent, "permissions")}


async def _id_of(db: Database, email: str, field: str) -> UUID:
    async with db.connection() as connection:
        found = await people.find(connection, email) if email else None
    if found is None:
        raise Invalid((field, "nobody has this email address"))
    return found.id


async def _done(
    visit: Visitor, act: Callable[[], Any], said: str, there: str, where_it_failed: str | None = None
) -> Response:
    """Carry out what a button asks for, and say what became of it."""
    try:
        await act()
    except AccessError as error:
        return visit.back(where_it_failed or there, error.detail, "problem")
    return visit.back(there, said)
