"""Who is told of a new request (specification, Notification Policies; design, section 2, notified approvers)."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from uuid import UUID

from domain.templates import NotificationPolicy


@dataclass(frozen=True)
class Approver:
    """A member of an approver group who may decide the request at hand: active, and not the requester."""

    user_id: UUID
    group_id: UUID
    joined: int
    """Rank in the joining order; grows with every membership and is never reused."""
    shares_group: bool = False
    """Has a non-temporary group in common with the requester."""


@dataclass(frozen=True)
class Served:
    """Whom a round robin served last: the place of a membership, which keeps its meaning when people come and go."""

    group_id: UUID
    joined: int


@dataclass(frozen=True)
class Notified:
    """The chosen approvers, in order, and how far the round robin has come."""

    user_ids: tuple[UUID, ...]
    served: Served | None = None


def choose(
    policy: NotificationPolicy,
    count: int,
    groups: list[UUID],
    approvers: list[Approver],
    *,
    prefer_shared: bool,
    served: Served | None,
    random: Random,
) -> Notified:
    """Apply a template's policy.

    Args:
        policy: which of the four.
        count: how many, for all policies but `all`.
        groups: the approver groups in the template's order.
        approvers: their members in any order, without the requester; one entry per membership.
        prefer_shared: those who share a group with the requester come first where a number is picked.
        served: where the round robin stands.
        random: source of chance for `random_n`.

    Returns:
        At least one approver wherever `approvers` is not empty; each person once.
    """
    candidates: list[Approver]
    place = {group_id: index for index, group_id in enumerate(groups)}
    in_order = sorted(
        (approver for approver in approvers if approver.group_id in place),
        key=lambda approver: (place[approver.group_id], approver.joined),
    )
    people = _each_once(in_order)
    match policy:
        case NotificationPolicy.ALL:
            return Notified(tuple(person.user_id for person in people), served)
        case NotificationPolicy.FIRST_N:
            # The first group somebody of which can be told: a request whose first group is empty must not go unheard.
            candidates = _each_once([person for person in in_order if person.group_id == in_order[0].group_id])
        case NotificationPolicy.RANDOM_N:
            candidates = random.sample(people, len(people))
        case NotificationPolicy.ROUND_ROBIN:
            candidates = _after(people, place, served)
    if prefer_shared:
        candidates = sorted(candidates, key=lambda person: not person.shares_group)
    chosen = candidates[:count]
    if policy is NotificationPolicy.ROUND_ROBIN and chosen:
        served = Served(chosen[-1].group_id, chosen[-1].joined)
    return Notified(tuple(person.user_id for person in chosen), served)


def _each_once(approvers: list[Approver]) -> list[Approver]:
    first: dict[UUID, Approver] = {}
    for approver in approvers:
        first.setdefault(approver.user_id, approver)
    return list(first.values())


def _after(people: list[Approver], place: dict[UUID, int], served: Served | None) -> list[Approver]:
    if served is None or served.group_id not in place:
        return people
    mark = (place[served.group_id], served.joined)
    start = sum((place[person.group_id], person.joined) <= mark for person in people)
    return people[start:] + people[:start]
