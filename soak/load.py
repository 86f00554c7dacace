"""Mixed load by chance: people ask, decide, talk, look, come and go; applications exchange and check tokens."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from soak.calling import GaveUp, Line, Reply
from soak.journal import Answer, Decision, Journal, Message, Signal, Submission
from soak.rights import Absence, Introspection, Right, Sighting, Values
from soak.scene import COMING_AND_GOING, STAFF_APP, STAFF_VALUE, Kind, Scene, Somebody, renew

_GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
_MOST_TOKENS: Final = 300
_MOST_PATIENT: Final = 6
_OWN_CLAIMS: Final = frozenset({"iss", "sub", "aud", "client_id", "iat", "exp", "jti", "scope"})
_OVER: Final = frozenset({"request_not_pending", "request_not_active"})
_AWAY: Final = frozenset({"unauthenticated", "forbidden"})
"""What somebody is answered whose account is deactivated, or who decides about such a person."""
_RPC: Final = timedelta(seconds=5)
WAYS: Final = {
    "approve": 30,
    "approve for long, revoke": 12,
    "approve, revoke at once": 8,
    "deny": 12,
    "cancel": 12,
    "race": 12,
    "signal": 9,
    "admin ends it": 5,
}
"""How requests go, and how often of a hundred."""


@dataclass
class Load:
    """Everything that clients do, and what they have seen."""

    scene: Scene
    line: Line
    chance: Random
    temporal: Client
    database_url: str
    journal: Journal = field(default_factory=Journal)
    sightings: list[Sighting] = field(default_factory=list)
    introspections: list[Introspection] = field(default_factory=list)
    memberships: list[Right] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Answers that contradict themselves, or what was answered before."""
    reads: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: set[tuple[str, str]] = field(default_factory=set)
    _tokens: list[tuple[str, Sighting]] = field(default_factory=list)
    _recent: list[tuple[str, Somebody]] = field(default_factory=list)
    _patient: set[asyncio.Task[None]] = field(default_factory=set)
    _certain_from: dict[str, float] = field(default_factory=dict)

    async def run(self, clients: int) -> None:
        """Go on until `stop` is set; returns when what is in hand is finished."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._repeat(self._request, 0.1, 0.8))
            group.create_task(self._repeat(self._look, 0.1, 0.5))
            group.create_task(self._repeat(self._check_claims, 0.1, 0.4))
            group.create_task(self._repeat(self._check_token, 0.2, 0.8))
            group.create_task(self._repeat(self._move, 1.0, 4.0))
            group.create_task(self._repeat(self._come_and_go, 4.0, 12.0))
        for task in list(self._patient):
            task.cancel()
        await asyncio.gather(*self._patient, return_exceptions=True)

    async def _repeat(self, work: Callable[[], Awaitable[None]], shortest: float, longest: float) -> None:
        while not self.stop.is_set():
            try:
                await work()
            except GaveUp:
                self.line.repeated["gave up"] += 1
            try:
                await asyncio.wait_for(self.stop.wait(), self.chance.uniform(shortest, longest))
            except TimeoutError:
                continue

    # Requests

    async def _request(self) -> None:
        """One request, from its submission as far as its way goes."""
        free = [
            (person, kind)
            for person in self.scene.requesters
            for kind in self.scene.templates
            if (person.id, kind.id) not in self._busy
        ]
        if not free:
            return
        person, kind = self.chance.choice(free)
        pair = (person.id, kind.id)
        self._busy.add(pair)
        handed_over = False
        try:
            way = self.chance.choices(list(WAYS), list(WAYS.values()))[0]
            minutes = 60 if "long" in way or self.chance.random() < 0.1 else 1
            request_id = await self._submit(person, kind, minutes)
            if request_id is None:
                return
            self._recent = [*self._recent[-60:], (request_id, person)]
            if self.chance.random() < 0.3:
                await self._talk(request_id, person)
            if kind.by_itself:
                await self._after_grant(request_id, person, kind, way)
            elif kind.escalates and len(self._patient) < _MOST_PATIENT and self.chance.random() < 0.5:
                task = asyncio.create_task(self._wait_for_manager(request_id, person, kind))
                self._patient.add(task)
                task.add_done_callback(self._patient.discard)
                handed_over = True
            else:
                await self._go(request_id, person, kind, way)
        finally:
            if not handed_over:
                self._busy.discard(pair)

    async def _submit(self, person: Somebody, kind: Kind, minutes: int) -> str | None:
        key = UUID(int=self.chance.getrandbits(128)).hex
        submission = Submission(key, person.email)
        self.journal.submissions.append(submission)
        sent = {"template_id": kind.id, "requested_duration_mins": minutes, "justification": f"soak {key}"}
        # Who did not hear an answer sends it again; so do some who heard it.
        for _ in range(2 if self.chance.random() < 0.15 else 1):
            reply = await self.line.call(
                person.token,
                "POST",
                "/api/v1/access-requests",
                sent,
                key=key,
                allowed=frozenset({"pending_request_exists"}) | (_AWAY if self._may_go(person) else frozenset()),
            )
            if not reply.is_success:
                # A refusal because the account is deactivated says nothing of an attempt before that got no answer.
                if submission.answer is Answer.UNKNOWN and reply.code == "pending_request_exists":
                    submission.answer = Answer.REFUSED if reply.is_first else Answer.UNKNOWN
                    await self._clear(person, kind)
                break
            submission.answer = Answer.DONE
            submission.request_ids.add(reply.body["id"])
        return next(iter(submission.request_ids), None)

    async def _clear(self, person: Somebody, kind: Kind) -> None:
        """End what is left of an earlier request: one whose task failed, or whose client gave up."""
        path = f"/access-requests/all?status=pending&template_id={kind.id}&requester={person.email}"
        for left in (await self._read(self.scene.admin, path)).body["items"]:
            await self._decide(left["id"], "revoke", self.scene.admin, person, kind)

    async def _go(self, request_id: str, person: Somebody, kind: Kind, way: str) -> None:
        await self._think()
        first, second, _ = self.chance.sample(self.scene.approvers, 3)
        match way:
            case "deny":
                await self._decide(request_id, "deny", first, person, kind)
            case "cancel":
                await self._decide(request_id, "revoke", person, person, kind)
            case "admin ends it":
                await self._decide(request_id, "revoke", self.scene.admin, person, kind)
            case "race":
                outcomes = await asyncio.gather(
                    self._decide(request_id, "approve", first, person, kind),
                    self._decide(request_id, "deny", second, person, kind),
                    return_exceptions=True,
                )
                if outcomes[0] is True and outcomes[1] is True:
                    self.wrong.append(f"{request_id}: an approval and a denial were both acknowledged")
                if kind.blocks and True not in outcomes:
                    await self._decide(request_id, "deny", first, person, kind)
            case "signal":
                await self._signal(request_id, first, person, kind)
                await self._after_grant(request_id, person, kind, way)
            case _:
                if not await self._decide(request_id, "approve", first, person, kind):
                    # A task that has to succeed first, and did not.
                    await self._decide(request_id, "deny", second, person, kind)
                else:
                    await self._after_grant(request_id, person, kind, way)

    async def _after_grant(self, request_id: str, person: Somebody, kind: Kind, way: str) -> None:
        await self._think()
        if "revoke" in way or way == "admin ends it":
            if "long" in way:
                await self._pause(self.chance.uniform(2.0, 10.0))
            who = self.scene.admin if way == "admin ends it" or self._may_go(person) else person
            await self._decide(request_id, "revoke", who, person, kind)

    async def _wait_for_manager(self, request_id: str, person: Somebody, kind: Kind) -> None:
        """A request that nobody decides until it is escalated; then who was asked next does."""
        try:
            for _ in range(20):
                await asyncio.sleep(self.chance.uniform(4.0, 7.0))
                reply = await self._get(request_id, self.scene.admin)
                if reply.body["escalated_at"] is not None or reply.body["status"] != "pending":
                    break
            await self._decide(request_id, "approve", self.scene.manager, person, kind)
        except GaveUp:
            self.line.repeated["gave up"] += 1
        finally:
            self._busy.discard((person.id, kind.id))

    async def _decide(self, request_id: str, action: str, actor: Somebody, person: Somebody, kind: Kind) -> bool:
        """Approve, deny or revoke; whether it was done."""
        key = UUID(int=self.chance.getrandbits(128)).hex
        decision = Decision(request_id, action, actor.email)
        self.journal.decisions.append(decision)
        # Of somebody deactivated the request is cancelled, and the approval refused.
        allowed = (
            _OVER
            | (_AWAY if self._may_go(person) else frozenset())
            | (frozenset({"trigger_task_failed"}) if kind.blocks else frozenset())
        )
        reply = None
        for _ in range(2 if self.chance.random() < 0.1 else 1):
            reply = await self.line.call(
                actor.token,
                "POST",
                f"/api/v1/access-requests/{request_id}/{action}",
                {"comment": "soak"},
                key=key,
                allowed=allowed,
                blocks=kind.blocks,
            )
            if not reply.is_success:
                if decision.answer is Answer.DONE and reply.code not in _AWAY:
                    self.wrong.append(
                        f"{request_id}: {action} was done, and refused when it was repeated: {reply.code}"
                    )
                elif decision.answer is Answer.UNKNOWN and reply.is_first:
                    decision.answer = Answer.REFUSED
                break
            decision.answer = Answer.DONE
            self._judge_read(reply, [reply.body])
        return decision.answer is Answer.DONE

    async def _signal(self, request_id: str, actor: Somebody, person: Somebody, kind: Kind) -> None:
        reply = await self.line.call(
            actor.token,
            "POST",
            f"/api/v1/access-requests/{request_id}/signal-proofs",
            {"action": "approve"},
            allowed=_AWAY,
        )
        if not reply.is_success:
            return
        payload = reply.body["proof"].split(".")[1]
        jti = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"]
        signal = Signal(request_id, jti, kind.blocks)
        self.journal.signals.append(signal)
        handle = self.temporal.get_workflow_handle(reply.body["workflow_id"])
        try:
            await handle.signal("approve", reply.body["input"], rpc_timeout=_RPC)
            signal.answer = Answer.DONE
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                signal.answer = Answer.REFUSED
            # Temporal is away: people take the other way then.
            await self._decide(request_id, "approve", actor, person, kind)

    async def _talk(self, request_id: str, person: Somebody) -> None:
        body = f"soak {self.chance.getrandbits(64):x}"
        message = Message(request_id, body)
        self.journal.messages.append(message)
        try:
            reply = await self.line.call(
                person.token,
                "POST",
                f"/api/v1/access-requests/{request_id}/messages",
                {"body": body},
                allowed=_AWAY,
                once=True,
            )
        except GaveUp:
            return
        message.answer = Answer.DONE if reply.is_success else Answer.REFUSED

    # Looking

    async def _look(self) -> None:
        """One of the reads that people and pages make."""
        who = self.chance.choice([self.scene.admin, *self.scene.steady, *self.scene.approvers])
        admin = self.scene.admin
        match self.chance.randrange(6):
            case 0:
                reply = await self._read(who, "/access-requests?limit=20")
            case 1:
                reply = await self._read(self.chance.choice(self.scene.approvers), "/access-requests/pending?limit=20")
                if any(item["status"] != "pending" for item in reply.body["items"]):
                    self.wrong.append("the list of what awaits somebody has a request that is not pending")
            case 2:
                status = self.chance.choice(["approved", "expired", "pending", "revoked"])
                reply = await self._read(admin, f"/access-requests/all?limit=50&status={status}")
                if any(item["status"] != status for item in reply.body["items"]):
                    self.wrong.append(f"the list of {status} requests has another")
            case 3:
                reply = await self._read(who, "/access-request-templates?limit=20")
                return
            case _ if self._recent:
                request_id, _ = self.chance.choice(self._recent)
                if self.chance.random() < 0.5:
                    self._judge_timeline(
                        request_id, (await self._read(admin, f"/access-requests/{request_id}/timeline")).body["items"]
                    )
                    return
                reply = await self._get(request_id, admin)
                self._judge_read(reply, [reply.body])
                return
            case _:
                return
        self._judge_read(reply, reply.body["items"])

    async def _get(self, request_id: str, who: Somebody) -> Reply:
        return await self._read(who, f"/access-requests/{request_id}")

    async def _read(self, who: Somebody, path: str) -> Reply:
        self.reads += 1
        reply = await self.line.call(who.token, "GET", f"/api/v1{path}")
        if not reply.is_success:
            # Noted as unexpected; nothing to look at.
            raise GaveUp
        return reply

    def _judge_read(self, reply: Reply, items: Iterable[dict[str, Any]]) -> None:
        """A grant is shown as one until its end, by PostgreSQL's clock, and not a moment longer."""
        for item in items:
            if item["expires_at"] is None or item["status"] not in {"approved", "expired"}:
                continue
            end = datetime.fromisoformat(item["expires_at"]).timestamp()
            if item["status"] == "approved" and end <= reply.sent:
                self.wrong.append(f"{item['id']} was shown as granted {reply.sent - end:.3f} s after its end")
            if item["status"] == "expired" and end > reply.received:
                self.wrong.append(f"{item['id']} was shown as expired {end - reply.received:.3f} s before its end")

    def _judge_timeline(self, request_id: str, entries: list[dict[str, Any]]) -> None:
        kinds = [entry["kind"] for entry in reversed(entries)]
        endings = [kind for kind in kinds if kind in {"denied", "revoked", "expired"}]
        if len(endings) > 1 or kinds.count("approved") > 1 or kinds[0] != "submitted":
            self.wrong.append(f"{request_id} was shown with the timeline {', '.join(kinds)}")

    # Claims and tokens

    async def _check_claims(self) -> None:
        """What somebody holds, by the API or in a token."""
        person = self.chance.choice(self.scene.requesters)
        name = self.chance.choice(list(self.scene.apps))
        app = self.scene.apps[name]
        if self.chance.random() < 0.5:
            path = f"/api/v1/users/{person.id}/mapping-values?app_id={app['id']}"
            reply = await self.line.call(self.scene.admin.token, "GET", path)
            if reply.is_success:
                values = _values(reply.body)
                self.sightings.append(Sighting(person.email, name, reply.sent, reply.received, values))
            return
        form = {
            "grant_type": _GRANT_TYPE,
            "subject_token": person.token,
            "subject_token_type": _TOKEN_TYPE,
            "audience": app["client_id"],
        }
        allowed = frozenset({"invalid_request"}) if self._may_go(person) else frozenset()
        reply = await self.line.call("", "POST", "/oauth2/token", form=form, allowed=allowed)
        if not reply.is_success:
            if self._may_go(person):
                self.sightings.append(Sighting(person.email, name, reply.sent, reply.received, None))
            return
        claims = _claims(reply.body["access_token"])
        carried = _values({claim: values for claim, values in claims.items() if claim not in _OWN_CLAIMS})
        seen = Sighting(person.email, name, reply.sent, reply.received, carried, float(claims["exp"]))
        self.sightings.append(seen)
        if carried:
            self._tokens = [*self._tokens[-_MOST_TOKENS:], (reply.body["access_token"], seen)]

    async def _check_token(self) -> None:
        """An application asks whether a token still counts."""
        if not self._tokens:
            return
        token, seen = self.chance.choice(self._tokens)
        app = self.scene.apps[seen.app]
        form = {"token": token, "client_id": app["client_id"], "client_secret": app["client_secret"]}
        reply = await self.line.call("", "POST", "/oauth2/introspect", form=form)
        if reply.is_success:
            self.introspections.append(Introspection(seen, reply.sent, reply.received, bool(reply.body["active"])))

    # The directory

    async def _move(self) -> None:
        """Somebody joins a group that brings a claim, and leaves it again."""
        certain = [person for person in self.scene.steady if self._is_certain(person)]
        if not certain:
            return
        person = self.chance.choice(certain)
        path = f"/api/v1/groups/{self.scene.staff}/members/{person.id}"
        opens, open_by = time.time(), math.inf
        closes = closed_by = math.inf
        self._certain_from[person.id] = math.inf
        try:
            joined = await self.line.call(self.scene.admin.token, "PUT", path)
            open_by = joined.received
            await self._pause(self.chance.uniform(0.5, 5.0))
            closes = time.time()
            left = await self.line.call(self.scene.admin.token, "DELETE", path)
            if joined.late_until > left.received:
                # An attempt to join that got no answer may be carried out after this.
                await self._pause(joined.late_until - time.time())
                left = await self.line.call(self.scene.admin.token, "DELETE", path)
            if joined.late_until <= left.received:
                closed_by = left.received
                self._certain_from[person.id] = left.late_until
        finally:
            self.memberships.append(
                Right(
                    person.email,
                    STAFF_APP,
                    frozenset({STAFF_VALUE}),
                    opens,
                    open_by,
                    min(closes, time.time()),
                    closed_by,
                    source="the group staff",
                )
            )

    async def _come_and_go(self) -> None:
        """An account is deactivated, which ends all that it holds, and activated again."""
        going = [person for person in self.scene.requesters[:COMING_AND_GOING] if self._is_certain(person)]
        if not going:
            return
        person = self.chance.choice(going)
        begins, begun_by, ends, ended_by = time.time(), math.inf, time.time(), math.inf
        self._certain_from[person.id] = math.inf
        try:
            gone = await self._activate(person, active=False)
            begun_by = gone.received
            await self._pause(self.chance.uniform(1.0, 6.0))
            ends = time.time()
            back = await self._activate(person, active=True)
            if gone.late_until > back.received:
                # An attempt to deactivate that got no answer may be carried out after this.
                await self._pause(gone.late_until - time.time())
                back = await self._activate(person, active=True)
            if gone.late_until <= back.received:
                # Until it is renewed, their token is from before the deactivation, and refused.
                await renew(self.database_url, person)
                ended_by = time.time()
                self._certain_from[person.id] = back.late_until
        finally:
            self.absences.append(Absence(person.email, begins, begun_by, ends, ended_by))

    def _is_certain(self, person: Somebody) -> bool:
        """Whether no change of theirs that got no answer may still be carried out."""
        return self._certain_from.get(person.id, 0.0) <= time.time()

    async def _activate(self, person: Somebody, *, active: bool) -> Reply:
        values = {"email": person.email, "name": person.email.partition("@")[0], "active": active}
        return await self.line.call(self.scene.admin.token, "PUT", f"/api/v1/users/{person.id}", values)

    async def settle(self) -> None:
        """Have everybody back, whatever answer was missed."""
        for person in self.scene.requesters[:COMING_AND_GOING]:
            await self._activate(person, active=True)
            await renew(self.database_url, person)

    def _may_go(self, person: Somebody) -> bool:
        return person in self.scene.requesters[:COMING_AND_GOING]

    async def _think(self) -> None:
        await self._pause(self.chance.uniform(0.0, 0.6))

    async def _pause(self, secs: float) -> None:
        """For that long, but not beyond the end of the load."""
        try:
            await asyncio.wait_for(self.stop.wait(), secs)
        except TimeoutError:
            return


def _values(claims: dict[str, list[str]]) -> Values:
    return frozenset((claim, value) for claim, values in claims.items() for value in values)


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims
