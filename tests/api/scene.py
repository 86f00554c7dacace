"""One caller of each kind, and things for them to call for."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from pydantic import SecretStr

from db import applications, integrations, runs, secrets, tokens
from domain import scim
from domain.actors import Permission
from domain.integrations import IntegrationValues
from domain.secrets import NewSecret
from domain.states import Action
from domain.tasks import RunCause
from tests.api.house import House, Somebody

_numbers = count(1)


def new(what: str) -> str:
    """A name that nothing has yet."""
    return f"{what} {next(_numbers)}"


def integration() -> dict[str, Any]:
    """An integration that nothing is told through: it is at rest, and leads nowhere."""
    return {
        "name": new("integration"),
        "target": "webhook",
        "enabled": False,
        "events": ["access_request.submitted"],
        "url": "https://nowhere.invalid/",
    }


def scim_user(**values: Any) -> dict[str, Any]:
    """A User as SCIM clients send one, whom there is not yet."""
    address = f"{new('new').replace(' ', '.')}@example.com"
    return {"schemas": [str(scim.User.__schema__)], "userName": address, "active": True, **values}


def scim_group(**values: Any) -> dict[str, Any]:
    """A Group as SCIM clients send one, which there is not yet."""
    return {"schemas": [str(scim.Group.__schema__)], "displayName": new("group"), **values}


def scim_patch(display_name: str) -> dict[str, Any]:
    """A PATCH of SCIM that names something anew."""
    operation = {"op": "replace", "path": "displayName", "value": display_name}
    return {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation]}


class Scene:
    """The callers, and what they call for.

    Each maker makes things that are used up by one call, and answers the ids of all that a path may name by them.
    """

    def __init__(self, house: House, callers: dict[str, Somebody], strangers: dict[str, str]) -> None:
        self.house = house
        self.callers = callers
        self.strangers = strangers
        self.asker, self.bot = callers["asker"], callers["bot"]

    @classmethod
    async def set(cls, house: House) -> Scene:
        asker = await house.person("asker")
        callers = {
            "asker": asker,
            "bot": await house.person("bot", owner=asker),
            "other": await house.person("other"),
            "appr": await house.person("appr"),
            "escal": await house.person("escal"),
            "reqs": await house.person("reqs", Permission.REQUESTS),
            "dir": await house.person("dir", Permission.DIRECTORY),
            "tasks": await house.person("tasks", Permission.TASKS),
            "root": house.admin,
        }
        return cls(house, callers, await _strangers(house))

    async def team(self, *members: Somebody) -> UUID:
        return (await self.house.group(new("team"), *members)).id

    async def template(self, **values: Any) -> dict[str, Any]:
        asked = {"approver_group_ids": [await self.team(self.callers["appr"])]}
        if "escalation_group_id" not in values:
            values["escalation_group_id"] = await self.team(self.callers["escal"])
        template = await self.house.template(**asked | values)
        return {"template_id": template.id, "app_id": template.app_id, "template": template}

    async def request(self, **values: Any) -> dict[str, Any]:
        made = await self.template(**values)
        return {**made, "request_id": await self.house.request(made["template"], self.asker)}

    async def escalated(self) -> dict[str, Any]:
        # Nobody in the group could decide when the request was made, so the escalation group was asked at once.
        late = await self.team(self.asker)
        made = await self.request(approver_group_ids=[late])
        await self._put(f"/groups/{late}/members/{self.callers['appr'].id}")
        return made

    async def without_approvers(self) -> dict[str, Any]:
        return await self.request(approver_group_ids=[], escalation_group_id=None)

    async def granted(self) -> dict[str, Any]:
        return await self._decided(Action.APPROVE)

    async def denied(self) -> dict[str, Any]:
        return await self._decided(Action.DENY)

    async def for_members_only(self) -> dict[str, Any]:
        return await self.template(allowed_group_ids=[await self.team(self.asker)])

    async def user(self) -> dict[str, Any]:
        return {"user_id": (await self.house.person(new("user").replace(" ", "."))).id}

    async def manager(self) -> dict[str, Any]:
        name = new("manager").replace(" ", ".")
        manager = await self.house.person(name, Permission.REQUESTS)
        return {"user_id": manager.id, "token_id": await self._token(manager)}

    async def about_the_asker(self) -> dict[str, Any]:
        return {**await self.application(), "user_id": self.asker.id, "token_id": await self._token(self.asker)}

    async def about_the_bot(self) -> dict[str, Any]:
        return {**await self.application(), "user_id": self.bot.id, "token_id": await self._token(self.bot)}

    async def group(self, *permissions: Permission) -> dict[str, Any]:
        member = await self.user()
        group = await self.house.group(new("group"), member["user_id"], permissions=list(permissions))
        return {**member, "group_id": group.id}

    async def powerful_group(self) -> dict[str, Any]:
        made = {**await self.application(), **await self.group(Permission.REQUESTS)}
        mapping = await self.house.mapping(made["app_id"])
        return {**made, "mapping_id": mapping.id, "permissions": [Permission.REQUESTS]}

    async def powerful_mapping(self) -> dict[str, Any]:
        made = await self.powerful_group()
        await applications.attach(self.house.db, made["mapping_id"], made["group_id"])
        return made

    async def of_scim(self) -> dict[str, Any]:
        return {"name": "User", "uri": str(scim.User.__schema__)}

    async def application(self) -> dict[str, Any]:
        return {"app_id": (await self.house.application(new("application"))).id}

    async def mapping(self) -> dict[str, Any]:
        made = {**await self.application(), **await self.group()}
        return {**made, "mapping_id": (await self.house.mapping(made["app_id"])).id}

    async def integration(self) -> dict[str, Any]:
        made = await self.request()
        values = IntegrationValues.model_validate(integration())
        view = await integrations.create(self.house.db, self.house.app.state.vault, values)
        delivery_id = uuid4()
        async with self.house.db.connection() as connection:
            await connection.execute(
                """
                INSERT INTO deliveries (id, integration_id, target, event, payload, request_id, status, attempts,
                                        dispatch_at)
                VALUES (%s, %s, 'webhook', 'access_request.submitted', '{}', %s, 'parked', 1, NULL)
                """,
                [delivery_id, view.id, made["request_id"]],
            )
        return {**made, "integration_id": view.id, "delivery_id": delivery_id}

    async def secret(self) -> dict[str, Any]:
        values = NewSecret(name=new("secret").upper().replace(" ", "_"), value=SecretStr("hush-hush"))
        return {"secret_id": (await secrets.create(self.house.db, self.house.app.state.vault, values)).id}

    async def secret_in_use(self) -> dict[str, Any]:
        made = await self.secret()
        view = await secrets.get(self.house.db, made["secret_id"])
        await self.house.task(name=new("task"), secret_names=[view.name])
        return made

    async def task(self) -> dict[str, Any]:
        task = await self.house.task(name=new("task"))
        async with self.house.db.transaction() as connection:
            run_id = await runs.make_on_its_own(connection, task.id, RunCause.MANUAL)
            # Over, so that nobody starts it.
            await connection.execute(
                "UPDATE task_runs SET status = 'succeeded', dispatch_at = NULL WHERE id = %s", [run_id]
            )
        return {"task_id": task.id, "run_id": run_id}

    async def task_in_use(self) -> dict[str, Any]:
        made = await self.task()
        await self.template(trigger_task_id=made["task_id"])
        return made

    async def _decided(self, action: Action) -> dict[str, Any]:
        made = await self.request()
        path = f"/access-requests/{made['request_id']}/{action}"
        answer = await self.house.call("POST", path, self.callers["appr"])
        assert answer.status_code == 200, answer.text
        return made

    async def _token(self, owner: Somebody) -> UUID:
        return (await tokens.create_token(self.house.db, owner.id, "laptop", timedelta(days=1))).id

    async def _put(self, path: str) -> None:
        answer = await self.house.call("PUT", path, self.house.admin)
        assert answer.status_code == 204, answer.text


async def _strangers(house: House) -> dict[str, str]:
    """Tokens that stand for nobody, or not any more."""
    gone = await house.person("gone")
    old = await house.person("old")
    expired = await tokens.create_token(house.db, old.id, "expired", timedelta(seconds=-1))
    revoked = await tokens.create_token(house.db, old.id, "revoked", timedelta(days=1))
    await tokens.revoke_token(house.db, revoked.id)
    answer = await house.call(
        "PUT", f"/users/{gone.id}", house.admin, json={"email": gone.email, "name": "Gone", "active": False}
    )
    assert answer.status_code == 200, answer.text
    return {
        "anonymous": "",
        "made up": f"Bearer {tokens.PREFIX}{'A' * 43}",
        "expired": f"Bearer {expired.token}",
        "revoked": f"Bearer {revoked.token}",
        "deactivated": f"Bearer {gone.token}",
    }
