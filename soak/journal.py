"""What clients were told, and whether the record agrees."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from soak.record import ENDINGS, Entry, Record, Request


class Answer(StrEnum):
    """What a client knows of what it sent."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """No answer came, until the client gave up."""


@dataclass
class Submission:
    """A request for access, under its `Idempotency-Key`."""

    key: str
    requester: str
    answer: Answer = Answer.UNKNOWN
    request_ids: set[str] = field(default_factory=set)
    """What the answers named: one, however often it was sent."""


@dataclass
class Decision:
    """An approve, deny or revoke, under its `Idempotency-Key`."""

    request_id: str
    action: str
    actor: str
    answer: Answer = Answer.UNKNOWN


@dataclass
class Message:
    """A line in a discussion; sent once, since it has no key."""

    request_id: str
    body: str
    answer: Answer = Answer.UNKNOWN


@dataclass
class Signal:
    """A decision by signal, with its proof."""

    request_id: str
    jti: str
    blocks: bool = False
    """A task has to succeed first. Where it does not, the refusal is written down and the proof stays good."""
    answer: Answer = Answer.UNKNOWN
    """Of Temporal: whether it took the signal."""


@dataclass
class Journal:
    """Everything that clients sent which changes something, with what they were told."""

    submissions: list[Submission] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)


_KIND_OF: Final = {"approve": "approved", "deny": "denied", "revoke": "revoked"}
_STATUS_AFTER: Final = {
    "approve": {"approved", "revoked", "expired"},
    "deny": {"denied"},
    "revoke": {"revoked"},
}


def lost_or_doubled(journal: Journal, record: Record) -> list[str]:
    """Submissions: each that was acknowledged is one request, and each request is one that was sent."""
    wrong = []
    by_key: defaultdict[tuple[str, str | None], list[Request]] = defaultdict(list)
    for request in record.requests.values():
        by_key[request.requester, request.key].append(request)
    sent = {(submission.requester, submission.key): submission for submission in journal.submissions}
    for whose, submission in sent.items():
        made = [request.id for request in by_key.get(whose, [])]
        if len(made) > 1:
            wrong.append(f"one submission of {submission.requester} made {len(made)} requests: {', '.join(made)}")
        if submission.answer is Answer.DONE and submission.request_ids != set(made):
            told = ", ".join(sorted(submission.request_ids))
            wrong.append(f"{submission.requester} was told {told}; the record has {', '.join(made) or 'nothing'}")
        if submission.answer is Answer.REFUSED and made:
            wrong.append(f"{submission.requester} was refused, and the record has {', '.join(made)}")
    wrong += [
        f"{request.id} of {request.requester} was sent by nobody"
        for whose, requests in by_key.items()
        if whose not in sent
        for request in requests
    ]
    return wrong


def decisions_that_differ(journal: Journal, record: Record) -> list[str]:
    """Decisions: what was acknowledged is the record's, once; what was refused is not there."""
    wrong = []
    refused: Counter[tuple[str, str, str]] = Counter()
    attempts: Counter[tuple[str, str, str]] = Counter()
    for decision in journal.decisions:
        whose = (decision.request_id, decision.action, decision.actor)
        attempts[whose] += 1
        refused[whose] += decision.answer is Answer.REFUSED
        if decision.answer is not Answer.DONE:
            continue
        request = record.requests.get(decision.request_id)
        if request is None:
            wrong.append(f"{decision.request_id} is not in the record, and {decision.actor} was told it is decided")
            continue
        done = _carried_out(record.timelines[request.id], decision)
        if done != 1:
            wrong.append(f"{request.id}: {decision.action} of {decision.actor} is acknowledged, and {done} times there")
        if request.status not in _STATUS_AFTER[decision.action]:
            wrong.append(f"{request.id} is {request.status}: {decision.actor} was told that {decision.action} is done")
    for whose, count in attempts.items():
        if refused[whose] == count:
            request_id, action, actor = whose
            if _carried_out(record.timelines.get(request_id, []), Decision(request_id, action, actor)):
                wrong.append(f"{request_id}: {action} of {actor} was refused each time, and is in the timeline")
    return wrong


def _carried_out(timeline: Iterable[Entry], decision: Decision) -> int:
    return sum(entry.kind == _KIND_OF[decision.action] and entry.actor == decision.actor for entry in timeline)


def messages_that_differ(journal: Journal, record: Record) -> list[str]:
    """Messages: what was acknowledged is there once, what was not at most once."""
    wrong = []
    for message in journal.messages:
        found = record.messages[message.request_id, message.body]
        allowed = {Answer.DONE: {1}, Answer.REFUSED: {0}, Answer.UNKNOWN: {0, 1}}[message.answer]
        if found not in allowed:
            wrong.append(f"{message.request_id}: a message ({message.answer}) is there {found} times")
    return wrong


def signals_that_differ(journal: Journal, record: Record) -> list[str]:
    """Signals: one that Temporal took is in the timeline once, carried out or refused."""
    keys = Counter(entry.key for timeline in record.timelines.values() for entry in timeline)
    wrong = []
    for signal in journal.signals:
        found = keys[f"{signal.request_id}:{signal.jti}"]
        if signal.blocks and found == 0:
            found = any(entry.kind == "refused" for entry in record.timelines[signal.request_id])
        if found > 1 or (signal.answer is Answer.DONE and found != 1):
            wrong.append(f"{signal.request_id}: a signal that Temporal took is in the timeline {found} times")
    return wrong


def broken_lives(record: Record) -> list[str]:
    """Timelines: begun once, granted at most once, ended once where closed; a grant has its time, and no more."""
    wrong = []
    for request in record.requests.values():
        timeline = record.timelines.get(request.id, [])
        kinds = Counter(entry.kind for entry in timeline)
        endings = [entry.kind for entry in timeline if entry.kind in ENDINGS]
        if kinds["submitted"] != 1 or kinds["approved"] > 1 or endings != ([request.status] * request.is_closed):
            wrong.append(
                f"{request.id} is {request.status}, its timeline {', '.join(entry.kind for entry in timeline)}"
            )
        wrong += [f"{request.id} {problem}" for problem in _times(request, timeline)]
    return wrong


def _times(request: Request, timeline: Iterable[Entry]) -> Iterable[str]:
    if request.expires_at is None or request.decided_at is None:
        return
    if request.expires_at - request.decided_at != timedelta(minutes=request.minutes):
        yield f"was granted for {request.expires_at - request.decided_at}, asked for were {request.minutes} minutes"
    if request.ended_at is not None and request.ended_at > request.expires_at:
        yield "ended after its time"
    if request.status == "expired":
        if request.ended_at != request.expires_at:
            yield f"ended at {request.ended_at} instead of {request.expires_at}"
        if any(entry.kind == "expired" and entry.at < request.expires_at for entry in timeline):
            yield "expired before its time"


def events_not_told(
    due: Record, record: Record, received: Mapping[tuple[str, str], int], wanted: set[str]
) -> list[str]:
    """Events: a receiver got each that concerns it at least once, under one id for each, and none that did not happen.

    Args:
        due: what had happened when nothing was left to be told.
        record: what has happened since as well, and may have been told.
        received: how many different messages (by id) it got, by request and event.
        wanted: the templates that it is told of.
    """
    happened, told_by_now = _events(record, wanted), _events(due, wanted)
    wrong = [
        f"{request_id}: {event} happened {count} times, told {received.get((request_id, event), 0)}"
        for (request_id, event), count in told_by_now.items()
        if received.get((request_id, event), 0) < count
    ]
    wrong += [
        f"{request_id}: told of {event} under {count} ids, and it happened {happened[request_id, event]} times"
        for (request_id, event), count in received.items()
        if count > happened[request_id, event]
    ]
    return wrong


def _events(record: Record, templates: set[str]) -> Counter[tuple[str, str]]:
    return Counter(
        (entry.request_id, entry.event)
        for timeline in record.timelines.values()
        for entry in timeline
        if entry.event is not None and record.requests[entry.request_id].template in templates
    )
