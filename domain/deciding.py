"""Who may decide, end and read a request (design, section 2). Facts in, answer out."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.actors import Permission
from domain.states import Action, Status


def deactivated_since(deactivated_at: datetime | None, moment: datetime) -> bool:
    """Return whether an account was deactivated at `moment` or later; the same instant counts as later.

    What was issued to the account at `moment` counts no more then, also if the account is active again.
    `db.people.not_deactivated_since` is the same rule in SQL.
    """
    return deactivated_at is not None and deactivated_at >= moment


@dataclass(frozen=True)
class Person:
    """Somebody with an account, and what current membership brings them.

    System groups are left out: what a grant gives never decides about grants.
    """

    id: UUID
    email: str
    name: str
    active: bool
    principal_id: UUID
    """The person behind the account: the owner of a service account, else the account itself."""
    group_ids: AbstractSet[UUID]
    permissions: AbstractSet[str]
    deactivated_at: datetime | None = None
    """When the account was last deactivated, also if it is active again."""

    def was_deactivated_since(self, moment: datetime) -> bool:
        """Return whether the account was deactivated at `moment` or later (`deactivated_since`)."""
        return deactivated_since(self.deactivated_at, moment)

    def own_key(self, key: str) -> str:
        """Return an `Idempotency-Key` as it is stored and compared.

        A key that was sent before a deactivation is another key afterwards: it is not answered with what it did then.
        """
        return key if self.deactivated_at is None else f"{key} since {self.deactivated_at.isoformat()}"

    @property
    def is_admin(self) -> bool:
        """Holds `access_requests.manage`."""
        return self.holds(Permission.REQUESTS)

    def holds(self, permission: Permission) -> bool:
        """Whether the account is active and one of its groups brings `permission`."""
        return self.active and permission in self.permissions


@dataclass(frozen=True)
class Asked:
    """Whose request it is and who has been asked to decide it."""

    requester_principal_id: UUID
    approver_group_ids: AbstractSet[UUID]
    escalation_group_id: UUID | None
    escalated: bool
    """The escalation group was asked."""
    admins_decide: bool
    """No approver group is named, or nobody in the groups asked so far could decide."""


@dataclass(frozen=True)
class Standing:
    """How a person stands to a request at this moment. Memberships through system groups never count."""

    active: bool
    """The person's account is active."""
    is_requester: bool
    """The requester, a service account of the requester, or the owner of the account that asked."""
    in_approver_group: bool
    in_escalation_group: bool
    is_admin: bool
    """Holds `access_requests.manage`."""
    escalated: bool
    admins_decide: bool

    @classmethod
    def of(cls, person: Person, asked: Asked) -> Standing:
        """How `person` stands to a request."""
        return cls(
            active=person.active,
            is_requester=person.principal_id == asked.requester_principal_id,
            in_approver_group=not person.group_ids.isdisjoint(asked.approver_group_ids),
            in_escalation_group=asked.escalation_group_id in person.group_ids,
            is_admin=person.is_admin,
            escalated=asked.escalated,
            admins_decide=asked.admins_decide,
        )


def may_ask(person: Person, allowed_group_ids: AbstractSet[UUID]) -> bool:
    """Submit a request: anybody with an account, or where groups are named only their current members."""
    return person.active and (not allowed_group_ids or not person.group_ids.isdisjoint(allowed_group_ids))


def may_decide(standing: Standing) -> bool:
    """Approve or deny: a current member of whoever was asked, never the requester."""
    asked = (
        standing.in_approver_group
        or (standing.escalated and standing.in_escalation_group)
        or (standing.admins_decide and standing.is_admin)
    )
    return standing.active and not standing.is_requester and asked


def may_revoke(standing: Standing, status: Status) -> bool:
    """Cancel a pending request: the requester or an admin. End a grant: an approver as well."""
    own_or_admin = standing.is_requester or standing.is_admin
    return standing.active and (own_or_admin or (status is not Status.PENDING and may_decide(standing)))


def may_do(action: Action, standing: Standing, status: Status) -> bool:
    """Whether the person may take this step."""
    if action is Action.REVOKE:
        return may_revoke(standing, status)
    return action in {Action.APPROVE, Action.DENY} and may_decide(standing)


def may_read(standing: Standing) -> bool:
    """The requester, those who may decide, admins: the request, its timeline and its thread."""
    return standing.active and (standing.is_requester or standing.is_admin or may_decide(standing))


def why_not(action: Action, standing: Standing) -> str:
    """What to tell somebody who may not; names the way that is open."""
    if not standing.active:
        return "This account is deactivated."
    if action is Action.REVOKE:
        return "Only the requester or an administrator can end this request; approvers can end it once it is granted."
    if standing.is_requester:
        return "Nobody decides their own request. Somebody else among its approvers has to."
    return "Only a current member of this request's approver groups can decide it."
