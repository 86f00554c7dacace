"""The tables. Migrations are checked against these definitions; nothing else describes the schema.

Lists that belong to one template or request (groups, mappings, people notified) are arrays: they are read and frozen
together with their row, keep their order, and have GIN indexes for the questions asked the other way round.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Text,
    Uuid,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from domain.actors import Permission
from domain.integrations import DeliveryStatus, Target
from domain.states import Status
from domain.tasks import Language, RunCause, RunStatus, ScheduleType, TaskType
from domain.templates import NotificationPolicy, TriggerFailureMode

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _instant(*, now: bool = False, null: bool = False) -> Any:  # noqa: ANN401 - what SQLModel's Field returns
    default = {"server_default": func.now()} if now else {}
    return Field(default=None, sa_type=DateTime(timezone=True), nullable=null, sa_column_kwargs=default)


def _uuids() -> Any:  # noqa: ANN401 - what SQLModel's Field returns
    return Field(default_factory=list, sa_column=Column(ARRAY(Uuid()), nullable=False, server_default=text("'{}'")))


def _references(target: str, *, on_delete: str, null: bool = False, **column: Any) -> Any:  # noqa: ANN401
    return Field(
        default=None, sa_column=Column(Uuid(), ForeignKey(target, ondelete=on_delete), nullable=null, **column)
    )


class User(SQLModel, table=True):
    """A person or a service account. People are deactivated, never deleted: history names them."""

    __tablename__ = "users"
    __table_args__ = (
        Index("uq_users_email", text("folded_address(email)"), unique=True),
        Index(
            "ix_users_email_trgm",
            literal_column("folded_address(email)").label("folded"),
            postgresql_using="gin",
            postgresql_ops={"folded": "gin_trgm_ops"},
        ),
        Index("ix_users_created", text("created_at DESC"), text("id DESC")),
        Index("uq_users_user_name", text("folded_address(coalesce(user_name, email))"), unique=True),
        Index("uq_users_external_id", "external_id", unique=True),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    email: str = Field(sa_type=Text)
    name: str = Field(sa_type=Text)
    active: bool = Field(default=True, nullable=False, sa_column_kwargs={"server_default": text("true")})
    owner_id: UUID | None = _references("users.id", on_delete="RESTRICT", null=True, index=True)
    """The person a service account belongs to; to every rule the two are one and the same."""
    deactivated_at: datetime | None = _instant(null=True)
    """When it was last deactivated. What was asked for and granted before is over, also if it is activated again."""
    user_name: str | None = Field(default=None, sa_type=Text)
    """What SCIM clients call the person. None: the address."""
    external_id: str | None = Field(default=None, sa_type=Text)
    """By what a SCIM client knows the person."""
    profile: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB))
    """What a SCIM client said of name and address, to give it back (`domain.scim`). None: it said nothing."""
    left_at: datetime | None = _instant(null=True)
    """When a SCIM client deleted the person. Whoever is made with the same name is this account again."""
    created_at: datetime = _instant(now=True)


class Group(SQLModel, table=True):
    """People, in the order they joined, and what membership brings. A system group carries one grant.

    The id of a system group, and of no other, is a UUID of version 8: what refers to it shows what it refers to, also
    to the triggers of the audit log.
    """

    __tablename__ = "groups"
    __table_args__ = (
        CheckConstraint(
            "permissions <@ ARRAY[{}]::text[]".format(", ".join(f"'{permission}'" for permission in Permission)),
            name="permissions_known",
        ),
        CheckConstraint("system = (request_id IS NOT NULL)", name="system_has_request"),
        CheckConstraint("system = (expires_at IS NOT NULL)", name="system_expires"),
        CheckConstraint("NOT system OR permissions = '{}'", name="system_without_permissions"),
        CheckConstraint("system = (substr(id::text, 15, 1) = '8')", name="system_by_id"),
        Index("uq_groups_name", text("folded_name(name)"), unique=True),
        Index("uq_groups_external_id", "external_id", unique=True),
        Index("ix_groups_created", text("created_at DESC"), text("id DESC"), postgresql_where=text("NOT system")),
        Index("ix_groups_permissions", "permissions", postgresql_using="gin", postgresql_where=text("NOT system")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(sa_type=Text)
    description: str = Field(default="", sa_type=Text)
    permissions: list[str] = Field(
        default_factory=list, sa_column=Column(ARRAY(Text()), nullable=False, server_default=text("'{}'"))
    )
    system: bool = Field(default=False, nullable=False, sa_column_kwargs={"server_default": text("false")})
    request_id: UUID | None = Field(default=None, unique=True)
    """The request whose grant this group carries; no foreign key, which would make the tables a circle."""
    external_id: str | None = Field(default=None, sa_type=Text)
    """By what a SCIM client knows the group."""
    expires_at: datetime | None = _instant(null=True)
    created_at: datetime = _instant(now=True)


class GroupMember(SQLModel, table=True):
    """A membership. `joined` ranks the members of a group in their joining order and is never reused."""

    __tablename__ = "group_members"

    group_id: UUID = _references("groups.id", on_delete="CASCADE", primary_key=True)
    user_id: UUID = _references("users.id", on_delete="RESTRICT", primary_key=True, index=True)
    joined: int = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    issuer: str | None = Field(default=None, sa_type=Text)
    """The OpenID Connect issuer whose claims made it, and unmake it. None: it was made by hand, or carries a grant."""
    created_at: datetime = _instant(now=True)


class Application(SQLModel, table=True):
    """Something that access is granted to."""

    __tablename__ = "applications"
    __table_args__ = (
        Index("uq_applications_name", text("folded_name(name)"), unique=True),
        Index("ix_applications_created", text("created_at DESC"), text("id DESC")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(sa_type=Text)
    description: str = Field(default="", sa_type=Text)
    client_id: str = Field(
        # By the database: programs of an earlier version, which know of no such column, make applications as well.
        default=None,
        sa_column=Column(Text, nullable=False, unique=True, server_default=text("'app-' || gen_random_uuid()")),
    )
    """Its name in OAuth: the audience of the tokens that are issued for it."""
    client_secret_hash: bytes | None = Field(default=None, sa_type=LargeBinary)
    """SHA-256 of the secret that it authenticates with; null: it has none yet."""
    client_secret_created_at: datetime | None = _instant(null=True)
    created_at: datetime = _instant(now=True)


class AppMapping(SQLModel, table=True):
    """A claim name and value of one application, given to the members of the groups it is attached to."""

    __tablename__ = "app_mappings"
    __table_args__ = (
        Index("uq_app_mappings_name", "app_id", text("folded_name(name)"), unique=True),
        Index("ix_app_mappings_created", text("created_at DESC"), text("id DESC")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    app_id: UUID = _references("applications.id", on_delete="RESTRICT", index=True)
    name: str = Field(sa_type=Text)
    claim: str = Field(sa_type=Text)
    value: str = Field(sa_type=Text)
    created_at: datetime = _instant(now=True)


class AppMappingGroup(SQLModel, table=True):
    """A mapping attached to a group."""

    __tablename__ = "app_mapping_groups"

    mapping_id: UUID = _references("app_mappings.id", on_delete="CASCADE", primary_key=True)
    group_id: UUID = _references("groups.id", on_delete="CASCADE", primary_key=True, index=True)


class Template(SQLModel, table=True):
    """What may be asked for (specification, Templates)."""

    __tablename__ = "access_request_templates"
    __table_args__ = (
        _one_of("notification_policy", NotificationPolicy),
        _one_of("trigger_task_failure_mode", TriggerFailureMode),
        CheckConstraint("notification_count >= 1", name="notification_count_positive"),
        CheckConstraint("escalation_after_mins >= 1", name="escalation_after_mins_positive"),
        Index("ix_access_request_templates_created", text("created_at DESC"), text("id DESC")),
        Index("ix_access_request_templates_mapping_ids", "mapping_ids", postgresql_using="gin"),
        Index("ix_access_request_templates_approvers", "approver_group_ids", postgresql_using="gin"),
        Index("ix_access_request_templates_allowed", "allowed_group_ids", postgresql_using="gin"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(sa_type=Text)
    description: str = Field(default="", sa_type=Text)
    app_id: UUID = _references("applications.id", on_delete="RESTRICT", index=True)
    mapping_ids: list[UUID] = _uuids()
    allowed_durations: list[int] = Field(
        default_factory=list, sa_column=Column(ARRAY(BigInteger), nullable=False, server_default=text("'{}'"))
    )
    approver_group_ids: list[UUID] = _uuids()
    allowed_group_ids: list[UUID] = _uuids()
    prefer_requester_groups: bool = False
    require_justification: bool = True
    auto_approve: bool = False
    notification_policy: str = Field(default=NotificationPolicy.ALL, sa_type=Text)
    notification_count: int = 1
    escalation_after_mins: int | None = None
    escalation_group_id: UUID | None = _references("groups.id", on_delete="SET NULL", null=True, index=True)
    custom_fields: list[dict[str, Any]] = Field(
        default_factory=list, sa_column=Column(JSONB, nullable=False, server_default=text("'[]'"))
    )
    trigger_task_id: UUID | None = _references("scheduled_tasks.id", on_delete="RESTRICT", null=True, index=True)
    trigger_task_failure_mode: str = Field(default=TriggerFailureMode.IGNORE, sa_type=Text)
    served_group_id: UUID | None = None
    """Whom the round robin served last: that membership's group and rank."""
    served_joined: int | None = Field(default=None, sa_type=BigInteger)
    created_at: datetime = _instant(now=True)
    updated_at: datetime = _instant(now=True)


_OPEN = "status IN ('pending', 'approved')"
_PENDING = "status = 'pending'"
_NEWEST = (text("created_at DESC"), text("id DESC"))


class AccessRequest(SQLModel, table=True):
    """A submission against a template. Its status is written by one function only: `db.transitions.apply`."""

    __tablename__ = "access_requests"
    __table_args__ = (
        _one_of("status", Status),
        CheckConstraint("requested_duration_mins >= 1", name="duration_positive"),
        CheckConstraint(f"({_OPEN}) = (ended_at IS NULL)", name="ended_when_closed"),
        CheckConstraint(
            "status NOT IN ('approved', 'expired') OR num_nulls(decided_by, decided_at, expires_at) = 0",
            name="grant_complete",
        ),
        Index(
            "uq_access_requests_one_pending",
            "template_id",
            "requester_id",
            unique=True,
            postgresql_where=text(_PENDING),
        ),
        Index(
            "uq_access_requests_idempotency",
            "requester_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("ix_access_requests_newest", *_NEWEST),
        Index("ix_access_requests_status", "status", *_NEWEST),
        Index("ix_access_requests_template", "template_id", *_NEWEST),
        # By status as well: a template whose requests are never denied must not be read whole for the ones that were.
        Index("ix_access_requests_template_status", "template_id", "status", *_NEWEST),
        # With what lists filter by, so that of somebody's requests only those are fetched that are listed.
        Index(
            "ix_access_requests_requester",
            "requester_id",
            *_NEWEST,
            postgresql_include=["status", "template_id", "expires_at"],
        ),
        Index("ix_access_requests_app", "app_id", *_NEWEST),
        Index("ix_access_requests_open", "id", postgresql_where=text(_OPEN)),
        Index("ix_access_requests_active", "expires_at", postgresql_where=text("status = 'approved'")),
        Index("ix_access_requests_open_mappings", "mapping_ids", postgresql_using="gin", postgresql_where=text(_OPEN)),
        Index(
            "ix_access_requests_pending_approvers",
            "approver_group_ids",
            postgresql_using="gin",
            postgresql_where=text(_PENDING),
        ),
        Index(
            "ix_access_requests_pending_escalation",
            "escalation_group_id",
            postgresql_where=text(_PENDING),
        ),
        Index("ix_access_requests_pending_admins", *_NEWEST, postgresql_where=text(f"{_PENDING} AND admins_decide")),
        Index("ix_access_requests_attention", "attention_at", postgresql_where=text("attention_at IS NOT NULL")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    status: str = Field(default=Status.PENDING, sa_type=Text)
    template_id: UUID | None = _references("access_request_templates.id", on_delete="SET NULL", null=True)
    template_name: str = Field(sa_type=Text)
    app_id: UUID | None = _references("applications.id", on_delete="SET NULL", null=True)
    app_name: str = Field(sa_type=Text)
    requester_id: UUID = _references("users.id", on_delete="RESTRICT")
    requested_duration_mins: int
    justification: str = Field(default="", sa_type=Text)
    custom_answers: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'"))
    )
    snapshot: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    """The template at submission (`domain.templates.Snapshot`)."""
    mapping_ids: list[UUID] = _uuids()
    approver_group_ids: list[UUID] = _uuids()
    escalation_group_id: UUID | None = None
    admins_decide: bool = Field(default=False, nullable=False)
    """Holders of `access_requests.manage` decide: no group is named, or nobody in the groups asked could."""
    notified_ids: list[UUID] = _uuids()
    escalates_at: datetime | None = _instant(null=True)
    escalated_at: datetime | None = _instant(null=True)
    decided_by: str | None = Field(default=None, sa_type=Text)
    decided_at: datetime | None = _instant(null=True)
    decision_comment: str | None = Field(default=None, sa_type=Text)
    expires_at: datetime | None = _instant(null=True)
    ended_by: str | None = Field(default=None, sa_type=Text)
    ended_at: datetime | None = _instant(null=True)
    idempotency_key: str | None = Field(default=None, sa_type=Text)
    idempotency_digest: bytes | None = Field(default=None, sa_type=LargeBinary)
    attention_at: datetime | None = _instant(now=True, null=True)
    """When to start the workflow, or tell it to look again; null once it has looked."""
    created_at: datetime = _instant(now=True)


class TimelineEntry(SQLModel, table=True):
    """What happened to a request. Append-only, by a trigger in the database as well.

    An entry that is a lifecycle event carries its name and payload: what integrations are delivered from.
    """

    __tablename__ = "access_request_timeline"
    __table_args__ = (
        CheckConstraint("(event IS NULL) = (payload IS NULL)", name="event_has_payload"),
        Index("ix_access_request_timeline_request", "request_id", text("id DESC")),
    )

    id: int = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    request_id: UUID = _references("access_requests.id", on_delete="RESTRICT")
    at: datetime = _instant(now=True)
    kind: str = Field(sa_type=Text)
    actor: str = Field(sa_type=Text)
    verified: bool = True
    """False where the actor was named by a signal without proof."""
    detail: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'"))
    )
    event: str | None = Field(default=None, sa_type=Text)
    payload: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))
    transition_key: str | None = Field(default=None, sa_column=Column(Text, nullable=True, unique=True))


class Message(SQLModel, table=True):
    """A line in a request's discussion thread."""

    __tablename__ = "access_request_messages"
    __table_args__ = (Index("ix_access_request_messages_request", "request_id", *_NEWEST),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    request_id: UUID = _references("access_requests.id", on_delete="RESTRICT")
    author_id: UUID = _references("users.id", on_delete="RESTRICT")
    body: str = Field(sa_type=Text)
    created_at: datetime = _instant(now=True)


class ApiToken(SQLModel, table=True):
    """A bearer token of ours: random, stored hashed, named, expiring, revocable."""

    __tablename__ = "api_tokens"
    __table_args__ = (Index("ix_api_tokens_user", "user_id", *_NEWEST), Index("ix_api_tokens_created", *_NEWEST))

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    user_id: UUID = _references("users.id", on_delete="RESTRICT")
    name: str = Field(sa_type=Text)
    token_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    """SHA-256 of the token: 256 random bits need no slow hash."""
    hint: str = Field(sa_type=Text)
    """The token's first characters, to recognise it by."""
    expires_at: datetime | None = _instant(null=True)
    last_used_at: datetime | None = _instant(null=True)
    revoked_at: datetime | None = _instant(null=True)
    created_at: datetime = _instant(now=True)


class UserIdentity(SQLModel, table=True):
    """Who somebody is to an OpenID Connect issuer. Issuer and subject name a person; an email address does not.

    One subject of an issuer for each account: an address that is given to somebody else there does not bring the
    account along.
    """

    __tablename__ = "user_identities"
    __table_args__ = (Index("uq_user_identities_user", "user_id", "issuer", unique=True),)

    issuer: str = Field(sa_type=Text, primary_key=True)
    subject: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID = _references("users.id", on_delete="RESTRICT")
    created_user: bool = Field(default=False, nullable=False, sa_column_kwargs={"server_default": text("false")})
    """Whether the account was made because the issuer vouched for it; its address is that issuer's word alone."""
    groups_said_at: datetime | None = _instant(null=True)
    """When the issuer made the last token by which groups went. An older one has no say in them any more."""
    created_at: datetime = _instant(now=True)


class SigningKey(SQLModel, table=True):
    """A key that signs access tokens: from `signs_from` until the next one's; never changed, only added and deleted."""

    __tablename__ = "signing_keys"

    kid: str = Field(sa_type=Text, primary_key=True)
    algorithm: str = Field(sa_type=Text)
    public_jwk: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    private_key: bytes = Field(sa_type=LargeBinary)
    """Encrypted (`db.signing_keys`)."""
    signs_from: datetime = _instant()
    created_at: datetime = _instant(now=True)


class AccessToken(SQLModel, table=True):
    """A token that was issued for an application and has not expired; the token itself is not kept.

    Revoking a token deletes its row: what has none counts for nothing.
    """

    __tablename__ = "access_tokens"
    __table_args__ = (Index("ix_access_tokens_expires", "expires_at"),)

    jti: UUID = Field(primary_key=True)
    user_id: UUID = _references("users.id", on_delete="RESTRICT")
    app_id: UUID = _references("applications.id", on_delete="CASCADE", index=True)
    group_ids: list[UUID] = _uuids()
    """The groups that its claims came from: when one of them is left or ends, so does the token."""
    issued_at: datetime = _instant(now=True)
    """To the microsecond, unlike `iat` in the token. What happened to holder and groups since ends the token."""
    expires_at: datetime = _instant()


class WebSession(SQLModel, table=True):
    """Somebody who is signed in to the pages, in one browser. Signing out deletes the row."""

    __tablename__ = "web_sessions"
    __table_args__ = (Index("ix_web_sessions_expires", "expires_at"),)

    token_hash: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    """SHA-256 of the token in the browser's cookie."""
    user_id: UUID = _references("users.id", on_delete="RESTRICT", index=True)
    issuer: str | None = Field(default=None, sa_type=Text)
    """Who vouched for them; null: the sign-in of the development stack."""
    created_at: datetime = _instant(now=True)
    expires_at: datetime = _instant()


class Secret(SQLModel, table=True):
    """A value that scripts read by name. Write-only over the API; encrypted at rest (`db.secrets`)."""

    __tablename__ = "secrets"
    __table_args__ = (Index("ix_secrets_created", *_NEWEST),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    description: str = Field(default="", sa_type=Text)
    sealed: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = _instant(now=True)
    updated_at: datetime = _instant(now=True)


class ScheduledTask(SQLModel, table=True):
    """A script, and when it runs by itself (`domain.tasks`)."""

    __tablename__ = "scheduled_tasks"
    __table_args__ = (
        _one_of("task_type", TaskType),
        _one_of("language", Language),
        _one_of("schedule_type", ScheduleType),
        Index("ix_scheduled_tasks_created", *_NEWEST),
        Index("ix_scheduled_tasks_secret_names", "secret_names", postgresql_using="gin"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    description: str = Field(default="", sa_type=Text)
    task_type: str = Field(default=TaskType.SCRIPT, sa_type=Text)
    language: str = Field(sa_type=Text)
    language_given: bool = False
    """Whether the language was named, or inferred from the script."""
    script: str = Field(sa_type=Text)
    schedule_type: str = Field(default=ScheduleType.ONCE, sa_type=Text)
    interval_seconds: int | None = None
    cron: str | None = Field(default=None, sa_type=Text)
    time_zone: str = Field(default="UTC", sa_type=Text)
    max_retries: int = 3
    timeout_seconds: int = 60
    secret_names: list[str] = Field(
        default_factory=list, sa_column=Column(ARRAY(Text()), nullable=False, server_default=text("'{}'"))
    )
    network: bool = True
    paused: bool = False
    """Its Schedule is at rest; it still runs when triggered or on demand."""
    created_at: datetime = _instant(now=True)
    updated_at: datetime = _instant(now=True)


class Integration(SQLModel, table=True):
    """A binding from lifecycle events to somebody who is told of them."""

    __tablename__ = "integrations"
    __table_args__ = (
        _one_of("target", Target),
        CheckConstraint("(target = 'task') = (task_id IS NOT NULL)", name="task_where_target"),
        Index("ix_integrations_created", *_NEWEST),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    target: str = Field(sa_type=Text)
    enabled: bool = True
    events: list[str] = Field(sa_column=Column(ARRAY(Text()), nullable=False))
    template_id: UUID | None = _references("access_request_templates.id", on_delete="CASCADE", null=True, index=True)
    """Only requests made from this template; null: all."""
    app_id: UUID | None = _references("applications.id", on_delete="CASCADE", null=True, index=True)
    """Only requests for this application; null: all."""
    task_id: UUID | None = _references("scheduled_tasks.id", on_delete="RESTRICT", null=True, index=True)
    settings: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'"))
    )
    """What the target needs besides, and anybody may read who may read the integration."""
    sealed: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """What nobody may read: addresses that are secrets, signing secrets. Encrypted (`db.secrets`)."""
    created_at: datetime = _instant(now=True)
    updated_at: datetime = _instant(now=True)


class AuditLogEntry(SQLModel, table=True):
    """An administrative change, chained to the one before; written by triggers, never changed (`domain.audit_log`)."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_kind", "kind", "at", "id"),
        Index("ix_audit_log_actor", "actor", "kind", "at", "id"),
        Index("ix_audit_log_object", "object_id", "kind", "at", "id"),
        Index("ix_audit_log_actor_object", "actor", "object_id", "kind", "at", "id"),
        Index("ix_audit_log_at", "at"),
    )

    id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    at: datetime = _instant()
    actor: str = Field(sa_type=Text)
    action: str = Field(sa_type=Text)
    kind: str = Field(sa_type=Text)
    object_id: str = Field(sa_type=Text)
    entry: str = Field(sa_type=Text)
    """The whole of it as canonical JSON: what the hash is of."""
    hash: bytes = Field(sa_type=LargeBinary)


class TaskRun(SQLModel, table=True):
    """One run of a task: why, when, and what came of it."""

    __tablename__ = "task_runs"
    __table_args__ = (
        _one_of("cause", RunCause),
        _one_of("status", RunStatus),
        _one_of("failure_mode", TriggerFailureMode),
        Index("ix_task_runs_task", "task_id", *_NEWEST),
        Index("ix_task_runs_request", "request_id", *_NEWEST, postgresql_where=text("request_id IS NOT NULL")),
        Index("ix_task_runs_timeline", "timeline_id", postgresql_where=text("timeline_id IS NOT NULL")),
        Index("ix_task_runs_integration", "integration_id", postgresql_where=text("integration_id IS NOT NULL")),
        Index("ix_task_runs_dispatch", "dispatch_at", postgresql_where=text("dispatch_at IS NOT NULL")),
        Index("ix_task_runs_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("uq_task_runs_ticket", "ticket_hash", unique=True, postgresql_where=text("ticket_hash IS NOT NULL")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    task_id: UUID | None = _references("scheduled_tasks.id", on_delete="SET NULL", null=True)
    task_name: str = Field(sa_type=Text)
    cause: str = Field(sa_type=Text)
    event: str | None = Field(default=None, sa_type=Text)
    """What happened: a `trigger_event`, or the name of a lifecycle event for an integration."""
    request_id: UUID | None = _references("access_requests.id", on_delete="RESTRICT", null=True)
    timeline_id: int | None = Field(
        default=None,
        sa_column=Column(BigInteger, ForeignKey("access_request_timeline.id", ondelete="RESTRICT"), nullable=True),
    )
    integration_id: UUID | None = _references("integrations.id", on_delete="SET NULL", null=True)
    started_by: str | None = Field(default=None, sa_type=Text)
    """Who ran it on demand: an email address."""
    failure_mode: str = Field(default=TriggerFailureMode.RETRY, sa_type=Text)
    config: dict[str, str] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'"))
    )
    """What the script reads; all but `run_id`, which is the row's own."""
    status: str = Field(default=RunStatus.QUEUED, sa_type=Text)
    attempt: int = 0
    """Attempts begun so far."""
    holder: str | None = Field(default=None, sa_type=Text)
    """The attempt that the run is in the hands of, by a name that no other attempt has."""
    started_at: datetime | None = _instant(null=True)
    """When the last attempt began."""
    finished_at: datetime | None = _instant(null=True)
    exit_code: int | None = None
    duration_ms: int | None = None
    output: str = Field(default="", sa_type=Text)
    output_truncated: bool = False
    error: str | None = Field(default=None, sa_type=Text)
    isolation: str | None = Field(default=None, sa_type=Text)
    ticket_hash: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """SHA-256 of the ticket that lets a script worker fetch what the current attempt needs, once."""
    ticket_expires_at: datetime | None = _instant(null=True)
    dispatch_at: datetime | None = _instant(null=True)
    """When to start its workflow where none runs; null once it is over."""
    created_at: datetime = _instant(now=True)


class Delivery(SQLModel, table=True):
    """A lifecycle event on its way to one recipient of one integration."""

    __tablename__ = "deliveries"
    __table_args__ = (
        _one_of("target", Target),
        _one_of("status", DeliveryStatus),
        Index("ix_deliveries_integration", "integration_id", *_NEWEST),
        Index("ix_deliveries_request", "request_id", *_NEWEST),
        Index("ix_deliveries_timeline", "timeline_id", postgresql_where=text("timeline_id IS NOT NULL")),
        Index("ix_deliveries_dispatch", "dispatch_at", postgresql_where=text("dispatch_at IS NOT NULL")),
        Index("ix_deliveries_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    integration_id: UUID = _references("integrations.id", on_delete="CASCADE")
    target: str = Field(sa_type=Text)
    event: str = Field(sa_type=Text)
    payload: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    request_id: UUID = _references("access_requests.id", on_delete="RESTRICT")
    timeline_id: int | None = Field(
        default=None,
        sa_column=Column(BigInteger, ForeignKey("access_request_timeline.id", ondelete="RESTRICT"), nullable=True),
    )
    recipient: str | None = Field(default=None, sa_type=Text)
    """For email: the one address that this is for, so that one dead address holds up no other."""
    role: str | None = Field(default=None, sa_type=Text)
    """For email: why this person is told: `approver`, `requester`, `handled` or `reminder`."""
    status: str = Field(default=DeliveryStatus.PENDING, sa_type=Text)
    not_before: datetime = _instant(now=True)
    attempts: int = 0
    last_attempt_at: datetime | None = _instant(null=True)
    latency_ms: int | None = None
    response_status: int | None = None
    response_head: str | None = Field(default=None, sa_type=Text)
    error: str | None = Field(default=None, sa_type=Text)
    dispatch_at: datetime | None = _instant(now=True, null=True)
    """When to start its workflow where none runs; null once it is over."""
    created_at: datetime = _instant(now=True)
    finished_at: datetime | None = _instant(null=True)
