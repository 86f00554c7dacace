"""Who may have had which claims when, and what was seen: judged without a tolerance.

Nobody outside of PostgreSQL knows the instant of a commit. What is known are bounds: a grant was not there before its
decision, and it was there when somebody had read it. So everything here has two times, and a sighting counts as wrong
only where no order of what is not known could make it right. All times are seconds since 1970, by the one clock that
this process and PostgreSQL share.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

Values: TypeAlias = frozenset[tuple[str, str]]
"""Claims with their values."""


@dataclass(frozen=True)
class Right:
    """Something that gives somebody values of claims for an application: a grant, or membership in a group."""

    user: str
    app: str
    values: Values
    opens: float
    """It gave nothing before."""
    open_by: float
    """From then on it was there, until `closes`."""
    closes: float
    closed_by: float
    """From then on it gave nothing."""
    limit: float = math.inf
    """Its end as it was agreed; no token that draws on it may outlast that."""
    source: str = ""
    asked: float | None = None
    """When a grant was asked for: an account that is deactivated after that does not have it again when it is active
    again. None: a membership, which comes back with who comes back."""

    def may_hold(self, since: float, until: float) -> bool:
        """Whether it may have been there at some instant from `since` to `until`."""
        return self.opens <= until and self.closed_by > since

    def surely_holds(self, since: float, until: float) -> bool:
        """Whether it was there all the time from `since` to `until`."""
        return self.open_by <= since and self.closes > until


@dataclass(frozen=True)
class Absence:
    """A time in which somebody's account was deactivated."""

    user: str
    begins: float
    begun_by: float
    ends: float
    ended_by: float

    def covers(self, since: float, until: float) -> bool:
        """Whether they were surely away all that time."""
        return self.begun_by <= since and self.ends >= until

    def touches(self, since: float, until: float) -> bool:
        """Whether they may have been away at some instant of it."""
        return self.begins <= until and self.ended_by >= since


@dataclass(frozen=True)
class Sighting:
    """The claims of somebody for an application, as an answer said them between two instants."""

    user: str
    app: str
    sent: float
    received: float
    values: Values | None
    """None: refused, because the account is deactivated."""
    expires_at: float | None = None
    """Of a token."""


@dataclass(frozen=True)
class Introspection:
    """What an application was told of a token between two instants."""

    token: Sighting
    sent: float
    received: float
    active: bool


class Rights:
    """Everything that gave claims in one run, to hold sightings against."""

    def __init__(self, rights: Iterable[Right], absences: Iterable[Absence]) -> None:
        self._absences: defaultdict[str, list[Absence]] = defaultdict(list)
        for absence in absences:
            self._absences[absence.user].append(absence)
        self._rights: defaultdict[tuple[str, str], list[Right]] = defaultdict(list)
        for right in rights:
            self._rights[right.user, right.app].append(self._ended(right))

    def judge(self, seen: Sighting) -> list[str]:
        """What is wrong with an answer: a claim without a grant, a grant without claims, a token that outlasts it."""
        away, maybe_away = self._away(seen.user, seen.sent, seen.received)
        if seen.values is None:
            return [] if maybe_away else [f"{_who(seen)} was refused, and their account is active"]
        if away and seen.values:
            return [f"{_who(seen)} had {_listed(seen.values)}, and their account is deactivated"]
        wrong = []
        for value in sorted(seen.values):
            sources = self._sources(seen, value)
            if not sources:
                wrong.append(f"{_who(seen)} had {_listed([value])} without a grant")
            elif seen.expires_at is not None and seen.expires_at > max(right.limit for right in sources):
                wrong.append(f"{_who(seen)} got a token for {_listed([value])} that outlasts its grant")
        if not maybe_away:
            for right in self._rights[seen.user, seen.app]:
                # A token says whole seconds: a grant gives none in its last, unfinished one.
                until = seen.received if seen.expires_at is None else seen.received + 1
                if right.surely_holds(seen.sent, until) and not right.values <= seen.values:
                    wrong.append(f"{_who(seen)} lacked {_listed(right.values - seen.values)} of {right.source}")
        return wrong

    def judge_introspection(self, told: Introspection) -> list[str]:
        """What is wrong with an answer: a token counts whose grant is over, or that has expired itself.

        That a token counts for nothing is never wrong: the record may forget one in a crash, and applications ask anew.
        """
        token = told.token
        if not told.active:
            return []
        away, _ = self._away(token.user, told.sent, told.received)
        wrong = [f"a token of {token.user} counts, and their account is deactivated"] if away else []
        if any(
            absence.begins > token.received and absence.begun_by < told.sent for absence in self._absences[token.user]
        ):
            wrong.append(f"a token of {token.user} counts that is from before a deactivation")
        if token.expires_at is not None and token.expires_at <= told.sent:
            wrong.append(f"a token of {token.user} counts that has expired")
        wrong += [
            f"a token of {token.user} for {_listed([value])} counts whose grant is over"
            for value in sorted(token.values or ())
            if not any(right.closed_by > told.sent for right in self._sources(token, value))
        ]
        return wrong

    def _ended(self, right: Right) -> Right:
        """A grant as the deactivations of its account leave it."""
        if right.asked is None:
            return right
        # A deactivation that got no answer may have been carried out until the account was surely active again.
        since = [absence for absence in self._absences[right.user] if absence.ended_by > right.asked]
        surely = [absence.begun_by for absence in since if absence.begins >= right.asked]
        return replace(
            right,
            closes=min([right.closes, *(absence.begins for absence in since)]),
            closed_by=min([right.closed_by, *surely]),
        )

    def _sources(self, seen: Sighting, value: tuple[str, str]) -> list[Right]:
        return [
            right
            for right in self._rights[seen.user, seen.app]
            if value in right.values and right.may_hold(seen.sent, seen.received)
        ]

    def _away(self, user: str, since: float, until: float) -> tuple[bool, bool]:
        absences = self._absences[user]
        return any(absence.covers(since, until) for absence in absences), any(
            absence.touches(since, until) for absence in absences
        )


def _who(seen: Sighting) -> str:
    return f"{seen.user} at {seen.app}"


def _listed(values: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{claim}={value}" for claim, value in sorted(values))
