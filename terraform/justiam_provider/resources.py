"""The resources: what each is called, what can be said of it, and where it differs from the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from tf import iface
from tf.types import Bool, List, Number, Set, String, Unknown

from justiam_provider import arguments
from justiam_provider.arguments import (
    ID,
    Argument,
    Problem,
    State,
    choice,
    description,
    display_name,
    flag,
    matching,
    number,
    reference,
    references,
    text,
    whole,
)
from justiam_provider.entity import Entity
from justiam_provider.service import Failure

_EVENTS: Final = tuple(
    f"access_request.{event}" for event in ("submitted", "approved", "denied", "revoked", "expired", "escalated")
)
_ROLES: Final = ("approver", "requester", "handled", "reminder")
_PERMISSIONS: Final = ("access_requests.manage", "directory.manage", "tasks.manage")
_LONGEST_MINS: Final = 2**31 - 1
_MEMBERSHIP_PARTS: Final = 2


def _version(secret: str) -> Argument:
    return Argument(
        name=f"{secret}_version",
        type=Number(),
        description=f"Any whole number. Change it to have `{secret}` sent again: no plan can see that it changed.",
        local=True,
        check=whole(0, 2**53),
    )


def _known(value: Any) -> bool:  # noqa: ANN401 - any argument's
    return value is not None and value is not Unknown


def _compact(fields: list[dict[str, Any]]) -> str:
    """Custom fields as `jsonencode` writes them, without what counts anyway."""
    kept = [{key: value for key, value in each.items() if value not in (None, "", [], False)} for each in fields]
    return json.dumps(kept, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


class Template(Entity):
    """justiam_access_request_template."""

    NAME = "access_request_template"
    THING = "template"
    PATH = "/access-request-templates"
    UNIQUE = ""
    DESCRIPTION = (
        "What may be asked for, by whom, who decides and for how long. Requests made before a change keep the values "
        "of their submission. A template with pending requests, or with grants that last, is not deleted."
    )
    ARGUMENTS = (
        ID,
        display_name("Display name."),
        description("Shown to requesters."),
        reference("app_id", "Target application. Another one is another template.", required=True, replace=True),
        references("mapping_ids", "App mappings to grant, all of this application."),
        Argument(
            name="allowed_durations",
            type=List(Number()),
            description="Allowed durations in minutes. Empty: any whole minute up to the server's maximum.",
            default=[],
            check=whole(1, _LONGEST_MINS),
        ),
        references(
            "approver_group_ids",
            "Groups whose current members decide. Empty: holders of `access_requests.manage` decide.",
        ),
        references("allowed_group_ids", "Groups allowed to submit requests. Empty: anyone."),
        flag("prefer_requester_groups", "Prefer approvers who share a group with the requester.", default=False),
        flag("require_justification", "Refuse a submission without a justification.", default=True),
        flag("auto_approve", "Approve at once.", default=False),
        choice(
            "notification_policy",
            "Which approvers are notified: `all`, `first_n`, `random_n` or `round_robin`.",
            ("all", "first_n", "random_n", "round_robin"),
            default="all",
        ),
        number("notification_count", "How many, for `first_n`, `random_n` and `round_robin`.", (1, 1000), default=1),
        number(
            "escalation_after_mins",
            "Minutes after which a pending request is escalated. Omit to disable.",
            (1, 525_600),
        ),
        reference("escalation_group_id", "Group that may decide too once a request is escalated."),
        Argument(
            name="custom_fields",
            type=String(),
            description="JSON array of custom field definitions, best made with `jsonencode`: objects with `label`, "
            "`type` (`text`, `textarea`, `select`, `multi_select` or `checkbox`), `required`, `placeholder` and, for "
            "the two kinds of `select`, `options`.",
            default="[]",
            check=arguments.custom_fields,
            same=arguments.same_fields,
            to_service=arguments.parsed,
            from_service=_compact,
        ),
        reference("trigger_task_id", "Script task to fire on every status change."),
        choice(
            "trigger_task_failure_mode",
            "What a failure of that task means: `ignore`, `retry` or `block`.",
            ("ignore", "retry", "block"),
            default="ignore",
        ),
    )

    def contradictions(self, config: State) -> Iterator[Problem]:
        """Escalation goes to another group."""
        group_id = config.get("escalation_group_id")
        approvers = config.get("approver_group_ids")
        if _known(group_id) and _known(approvers) and group_id in (approvers or ()):
            yield ["escalation_group_id"], "must not be one of approver_group_ids: escalating would change nothing"


class ScheduledTask(Entity):
    """justiam_scheduled_task."""

    NAME = "scheduled_task"
    THING = "scheduled task"
    PATH = "/scheduled-tasks"
    DESCRIPTION = (
        "A script that runs when a request changes, when an integration tells of an event, at its own times or on "
        "demand. Whether it is paused is not configured here: people pause it when they have to."
    )
    ARGUMENTS = (
        ID,
        display_name("Display name; no two tasks share one."),
        description("What it is for."),
        choice("task_type", "`script` is the only one.", ("script",), default="script"),
        replace(
            choice("language", "`python` or `go`. Inferred from the script unless given.", ("python", "go")),
            computed=True,
        ),
        Argument(
            name="language_inferred",
            type=Bool(),
            description="Whether the language follows from the script.",
            computed=True,
            optional=False,
        ),
        Argument(
            name="script",
            type=String(),
            description="Python that defines `run()`, or a Go file `package task` with `func Run() (string, error)`.",
            required=True,
            check=text(1, 100_000),
        ),
        choice(
            "schedule_type",
            "`once` runs only when triggered or on demand, `interval` and `cron` by itself as well.",
            ("once", "interval", "cron"),
            default="once",
        ),
        number("interval_seconds", "For `interval`: seconds between two runs.", (10, 31_536_000)),
        Argument(
            name="cron",
            type=String(),
            description="For `cron`: minute, hour, day of month, month, day of week, all of which have to fit.",
            check=matching(r"\s*(\S+\s+){4}\S+\s*", "five fields, as in 0 6 * * 1-5"),
            same=arguments.same_words,
        ),
        Argument(name="time_zone", type=String(), description="The time zone that `cron` is read in.", default="UTC"),
        number("max_retries", "Further attempts after a failure, with growing pauses.", (0, 20), default=3),
        number("timeout_seconds", "An attempt that takes longer is killed.", (1, 3600), default=60),
        Argument(
            name="secret_names",
            type=Set(String()),
            description="Names of the secrets that the script may read.",
            default=[],
            check=matching("[A-Z][A-Z0-9_]{0,99}", "a name of capitals, digits and _"),
            same=arguments.same_set,
        ),
        flag("network", "Whether the script reaches the network, where that can be taken away.", default=True),
    )

    def contradictions(self, config: State) -> Iterator[Problem]:
        """Each kind of schedule has its own argument."""
        kind = config.get("schedule_type") or "once"
        if kind is Unknown:
            return
        for name, its_kind in (("interval_seconds", "interval"), ("cron", "cron")):
            if config.get(name) is not Unknown and (config.get(name) is not None) != (kind == its_kind):
                yield [name], f"{name} goes with schedule_type {its_kind}, and only with that"

    def settle(self, plan: State, config: State, prior: State | None) -> None:
        """The service infers the language from the script where none is given."""
        if config.get("language") is not None:
            plan["language_inferred"] = False if config["language"] is not Unknown else Unknown
        elif prior is None or not prior["language_inferred"] or plan["script"] != prior["script"]:
            plan["language"] = Unknown
            plan["language_inferred"] = True


class Application(Entity):
    """justiam_application."""

    NAME = "application"
    THING = "application"
    PATH = "/applications"
    DESCRIPTION = "Something that access is granted to."
    ARGUMENTS = (
        ID,
        display_name("Unique, in any case."),
        description("What it is."),
        Argument(
            name="client_id",
            type=String(),
            description="Its name in OAuth: the `audience` of a token exchange. Assigned by the server.",
            computed=True,
            optional=False,
        ),
    )


class AppMapping(Entity):
    """justiam_app_mapping."""

    NAME = "app_mapping"
    THING = "app mapping"
    PATH = "/app-mappings"
    DESCRIPTION = (
        "A claim and its value for one application, given to the members of the attached groups. While an open "
        "request uses the mapping, its claim and value cannot be changed."
    )
    ARGUMENTS = (
        ID,
        reference("app_id", "The application. Another one is another mapping.", required=True, replace=True),
        display_name("Unique within the application, in any case."),
        Argument(
            name="claim",
            type=String(),
            description="Name of the claim; registered and protocol names are refused.",
            required=True,
            check=matching("[A-Za-z][A-Za-z0-9_.:/-]{0,127}", "letters, digits and _.:/-, beginning with a letter"),
        ),
        Argument(
            name="value",
            type=String(),
            description="Value of the claim.",
            required=True,
            check=text(1, 1000),
            same=arguments.same_value,
        ),
        references(
            "group_ids",
            "Groups whose members have the claim for good. Temporary groups of requests are apart.",
            ordered=False,
        ),
    )

    def body(self, values: State) -> dict[str, Any]:
        """Groups are attached by calls of their own."""
        return {name: value for name, value in super().body(values).items() if name != "group_ids"}

    def also(self, answer: Any, planned: State) -> Any:  # noqa: ANN401 - JSON
        """Attach and detach groups."""
        path, attached = self._path(answer["id"]), set(answer["group_ids"])
        wanted = {group_id.lower() for group_id in planned["group_ids"]}
        try:
            for group_id in sorted(wanted - attached):
                self._service.put(f"{path}/groups/{group_id}")
                attached.add(group_id)
            for group_id in sorted(attached - wanted):
                self._service.delete(f"{path}/groups/{group_id}")
                attached.discard(group_id)
        except Failure as failure:
            raise Failure(failure.detail, failure.code, (("group_ids", failure.detail.rstrip(".")),)) from failure
        finally:
            # Also where a call failed: the state then says what was attached until then. The version that goes with it
            # is known once the mapping is read again.
            if attached != set(answer["group_ids"]):
                answer.tag = ""
            answer["group_ids"] = sorted(attached)
        return answer


class Group(Entity):
    """justiam_group."""

    NAME = "group"
    THING = "group"
    PATH = "/groups"
    DESCRIPTION = (
        "A group of people. It is not deleted while a template is for its members only; templates that name it as "
        "approvers or for escalation go on without it."
    )
    ARGUMENTS = (
        ID,
        display_name("Unique, in any case; `__access_req_…` is for requests."),
        description("What the group is for."),
        Argument(
            name="permissions",
            type=Set(String()),
            description="What membership brings: `access_requests.manage`, `directory.manage`, `tasks.manage`. "
            "Only what the token's owner holds can be given.",
            default=[],
            choices=_PERMISSIONS,
            same=arguments.same_set,
        ),
    )


class User(Entity):
    """justiam_user."""

    NAME = "user"
    THING = "user"
    PATH = "/users"
    UNIQUE = "email"
    DESCRIPTION = (
        "A person or a service account. People are never deleted, since history names them: to destroy one "
        "deactivates them, which ends their tokens, grants and pending requests at once."
    )
    ARGUMENTS = (
        ID,
        Argument(
            name="email",
            type=String(),
            description="Unique, in any case.",
            required=True,
            check=matching(r"[^@\s]+@[^@\s]+", "an email address"),
            same=arguments.same_address,
        ),
        display_name("As others see it."),
        replace(
            flag(
                "active",
                "False: no access, no claims, no vote; history keeps the name. Unless given, a new account is active "
                "and one that is there stays as it is: only `true` undoes a deactivation.",
            ),
            computed=True,
        ),
        reference(
            "owner_id",
            "The person that a service account belongs to. Another one is another account.",
            replace=True,
        ),
    )

    def body(self, values: State) -> dict[str, Any]:
        """Whether a new account is active is up to the service, unless somebody says so."""
        return {name: value for name, value in super().body(values).items() if (name, value) != ("active", None)}

    def delete(self, ctx: iface.DeleteContext, current: State) -> State | None:
        """Deactivate: history names people."""
        try:
            self.replaced(current, {**current, "active": False}, self.body(current) | {"active": False})
        except Failure as failure:
            if failure.code == "not_found":
                return None
            self._explain(ctx.diagnostics, "deactivate", failure)
            return current
        ctx.diagnostics.add_warning(
            f"{current['email']} was deactivated",
            "People are not deleted, since history names them. To have the account again, import it by its id "
            f"{current['id']}, with active = true.",
        )
        return None


class GroupMembership(Entity):
    """justiam_group_membership."""

    NAME = "group_membership"
    THING = "membership"
    PATH = "/groups"
    DESCRIPTION = "One person in one group. Members keep the order in which they joined."
    IMPORT_ID = "`<group_id>/<user_id>`"
    UNIQUE = ""
    ARGUMENTS = (
        replace(ID, description="`<group_id>/<user_id>`."),
        reference("group_id", "The group.", required=True, replace=True),
        reference("user_id", "Who is in it.", required=True, replace=True),
    )

    def create(self, ctx: iface.CreateContext, planned: State) -> State | None:
        """Add the member."""
        group_id, user_id = planned["group_id"], planned["user_id"]
        try:
            self._service.put(f"/groups/{group_id}/members/{user_id}")
        except Failure as failure:
            self._explain(ctx.diagnostics, "create", failure)
            return None
        return {**planned, "id": f"{group_id}/{user_id}"}

    def read(self, ctx: iface.ReadContext, current: State) -> State | None:
        """Look among the members, those without access included."""
        try:
            return current if self._is_member(current["group_id"], current["user_id"]) else None
        except Failure as failure:
            self._explain(ctx.diagnostics, "read", failure)
            return current

    def delete(self, ctx: iface.DeleteContext, current: State) -> State | None:
        """Remove the member."""
        try:
            self._service.delete(f"/groups/{current['group_id']}/members/{current['user_id']}")
        except Failure as failure:
            self._explain(ctx.diagnostics, "delete", failure)
            return current
        return None

    def import_(self, ctx: iface.ImportContext, id: str) -> State | None:  # noqa: A002 - the framework's name
        """Take over a membership that exists."""
        parts = id.split("/")
        if len(parts) != _MEMBERSHIP_PARTS or any(message for part in parts for message in arguments.identifier(part)):
            ctx.diagnostics.add_error("Cannot import the membership", "The id must be <group_id>/<user_id>.")
            return None
        try:
            if self._is_member(*parts):
                return {"id": id, "group_id": parts[0], "user_id": parts[1]}
        except Failure as failure:
            self._explain(ctx.diagnostics, "import", failure)
            return None
        ctx.diagnostics.add_error("Cannot import the membership", "The user is not in the group.")
        return None

    def _is_member(self, group_id: str, user_id: str) -> bool:
        try:
            return any(
                arguments.same_id(member["id"], user_id)
                for member in self._service.every(f"/groups/{group_id}/members")
            )
        except Failure as failure:
            if failure.code == "not_found":
                return False
            raise


class Integration(Entity):
    """justiam_integration."""

    NAME = "integration"
    THING = "integration"
    PATH = "/integrations"
    DESCRIPTION = "Who is told of lifecycle events, and how. Its deliveries go with it; disable it to keep them."
    ARGUMENTS = (
        ID,
        display_name("Display name; no two integrations share one."),
        replace(
            choice(
                "target",
                "`task`, `webhook`, `slack` or `email`. Another one is another integration.",
                ("task", "webhook", "slack", "email"),
            ),
            required=True,
            replace=True,
        ),
        flag("enabled", "False: nothing is made for it, and what waits to be sent is dropped.", default=True),
        Argument(
            name="events",
            type=Set(String()),
            description="The lifecycle events that it is told of: " + ", ".join(f"`{each}`" for each in _EVENTS) + ".",
            required=True,
            choices=_EVENTS,
            same=arguments.same_set,
        ),
        reference("template_id", "Only requests made from this template."),
        reference("app_id", "Only requests for this application."),
        reference("task_id", "For `task`: the scheduled task to run."),
        Argument(
            name="url",
            type=String(),
            description="For `webhook`: where to send; https, on the public internet or an allowed host.",
            check=matching(r"https?://\S+", "the URL of a receiver"),
        ),
        replace(
            Argument(
                name="roles",
                type=Set(String()),
                description="For `email`: who is written to, of " + ", ".join(f"`{each}`" for each in _ROLES) + ". "
                "All unless given.",
                choices=_ROLES,
                same=arguments.same_set,
            ),
            computed=True,
        ),
        Argument(
            name="slack_url",
            type=String(),
            description="For `slack`: the URL of an incoming webhook.",
            write_only=True,
            check=matching(r"https?://\S+", "the URL of an incoming webhook"),
        ),
        _version("slack_url"),
        Argument(
            name="signing_secret",
            type=String(),
            description="For `webhook`: what to verify signatures with, as it was made. The service shows it once; "
            "it stays unknown after an import, and goes out of date when it is rotated.",
            computed=True,
            optional=False,
            sensitive=True,
            local=True,
        ),
    )

    def contradictions(self, config: State) -> Iterator[Problem]:
        """Each target has its own arguments."""
        target = config.get("target")
        if not _known(target):
            return
        for name, its_target in (("task_id", "task"), ("url", "webhook"), ("slack_url", "slack")):
            given = config.get(name)
            if given is not Unknown and (given is not None) != (target == its_target):
                yield [name], f"{name} goes with target {its_target}, and only with that"
        if config.get("roles") is not None and target != "email":
            yield ["roles"], "roles goes with target email only"

    def settle(self, plan: State, config: State, prior: State | None) -> None:
        """Mails go to all roles unless some are named; only a webhook has a secret."""
        target = plan["target"]
        if config.get("roles") is None and target is not Unknown:
            plan["roles"] = sorted(_ROLES) if target == "email" else None
        if prior is None and _known(target) and target != "webhook":
            plan["signing_secret"] = None


class Secret(Entity):
    """justiam_secret."""

    NAME = "secret"
    THING = "secret"
    PATH = "/secrets"
    DESCRIPTION = (
        "A value that scripts read by name. It goes one way: the service never shows it, and neither plan nor state "
        "has it. It is not deleted while a scheduled task names it."
    )
    ARGUMENTS = (
        ID,
        Argument(
            name="name",
            type=String(),
            description="What scripts read it by: capitals, digits and `_`. Another one is another secret.",
            required=True,
            replace=True,
            check=matching("[A-Z][A-Z0-9_]{0,99}", "capitals, digits and _, beginning with a capital"),
        ),
        Argument(
            name="value",
            type=String(),
            description="The value, 1 to 32,768 characters. Needed to make the secret.",
            write_only=True,
            check=lambda value: iter(() if 1 <= len(value) <= 32_768 else ("must have 1 to 32768 characters",)),  # noqa: PLR2004
        ),
        _version("value"),
        description("What it is for. Anybody who manages tasks can read it."),
    )

    def changed_body(self, values: State) -> dict[str, Any]:
        """A secret keeps its name."""
        return {name: value for name, value in self.body(values).items() if name != "name"}


ALL: Final[tuple[type[Entity], ...]] = (
    Template,
    ScheduledTask,
    Application,
    AppMapping,
    Group,
    User,
    GroupMembership,
    Integration,
    Secret,
)
