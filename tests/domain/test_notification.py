"""Who is told of a new request (specification, Notification Policies), as properties over any groups."""

from __future__ import annotations

from collections import Counter
from itertools import count
from random import Random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from domain.notification import Approver, Notified, Served, choose
from domain.templates import NotificationPolicy

GROUPS = [UUID(int=number) for number in (11, 12, 13)]
PEOPLE = [UUID(int=number) for number in range(100, 108)]
PICKING = [NotificationPolicy.FIRST_N, NotificationPolicy.RANDOM_N, NotificationPolicy.ROUND_ROBIN]

memberships = st.lists(st.tuples(st.sampled_from(GROUPS), st.sampled_from(PEOPLE)), unique=True, max_size=20).map(
    lambda pairs: [Approver(person, group, joined) for joined, (group, person) in enumerate(pairs)]
)
sharers = st.sets(st.sampled_from(PEOPLE))


def told(
    policy: NotificationPolicy,
    approvers: list[Approver],
    count: int = 1,
    *,
    groups: list[UUID] | None = None,
    shared: set[UUID] | None = None,
    served: Served | None = None,
    seed: int = 0,
) -> Notified:
    known = [
        Approver(person.user_id, person.group_id, person.joined, person.user_id in (shared or set()))
        for person in approvers
    ]
    return choose(
        policy,
        count,
        GROUPS if groups is None else groups,
        known,
        prefer_shared=shared is not None,
        served=served,
        random=Random(seed),  # noqa: S311 - a test wants the same choice again
    )


class TestEveryPolicy:
    @given(memberships, st.sampled_from(NotificationPolicy), st.integers(1, 10), sharers, st.integers())
    def test_tells_approvers_only_each_once_and_somebody_if_there_is_anybody(
        self, approvers: list[Approver], policy: NotificationPolicy, count: int, shared: set[UUID], seed: int
    ) -> None:
        chosen = told(policy, approvers, count, shared=shared, seed=seed).user_ids
        people = {approver.user_id for approver in approvers}
        assert set(chosen) <= people
        assert len(set(chosen)) == len(chosen)
        assert bool(chosen) == bool(people)
        if policy is not NotificationPolicy.ALL:
            assert len(chosen) <= count

    @given(memberships, st.sampled_from(PICKING), st.integers(1, 10), sharers, st.integers())
    def test_takes_those_who_share_a_group_first(
        self, approvers: list[Approver], policy: NotificationPolicy, count: int, shared: set[UUID], seed: int
    ) -> None:
        chosen = told(policy, approvers, count, shared=shared, seed=seed).user_ids
        flags = [person in shared for person in chosen]
        assert flags == sorted(flags, reverse=True)

    @given(memberships, st.sampled_from(NotificationPolicy), st.integers(1, 10))
    def test_ignores_groups_that_the_template_does_not_name(
        self, approvers: list[Approver], policy: NotificationPolicy, count: int
    ) -> None:
        chosen = told(policy, approvers, count, groups=GROUPS[:1]).user_ids
        assert set(chosen) <= {approver.user_id for approver in approvers if approver.group_id == GROUPS[0]}


class TestAll:
    @given(memberships)
    def test_tells_everybody_in_the_order_of_groups_and_joining(self, approvers: list[Approver]) -> None:
        in_order = sorted(approvers, key=lambda one: (GROUPS.index(one.group_id), one.joined))
        assert list(told(NotificationPolicy.ALL, approvers).user_ids) == list(
            dict.fromkeys(approver.user_id for approver in in_order)
        )


class TestFirstN:
    @given(memberships, st.integers(1, 10))
    def test_tells_the_first_to_have_joined_the_first_group_with_anybody_in_it(
        self, approvers: list[Approver], count: int
    ) -> None:
        chosen = told(NotificationPolicy.FIRST_N, approvers, count).user_ids
        first = next((group for group in GROUPS if any(one.group_id == group for one in approvers)), None)
        members = sorted((one for one in approvers if one.group_id == first), key=lambda one: one.joined)
        assert list(chosen) == [one.user_id for one in members][:count]


class TestRandomN:
    @given(memberships, st.integers(1, 10), st.integers())
    def test_tells_as_many_as_it_is_told_to_where_there_are_enough(
        self, approvers: list[Approver], count: int, seed: int
    ) -> None:
        people = {approver.user_id for approver in approvers}
        assert len(told(NotificationPolicy.RANDOM_N, approvers, count, seed=seed).user_ids) == min(count, len(people))

    def test_reaches_everybody_in_the_long_run(self) -> None:
        approvers = [Approver(person, GROUPS[0], number) for number, person in enumerate(PEOPLE)]
        seen = {told(NotificationPolicy.RANDOM_N, approvers, seed=seed).user_ids[0] for seed in range(200)}
        assert seen == set(PEOPLE)


class TestRoundRobin:
    @given(memberships, st.integers(1, 3), st.integers(1, 5))
    def test_serves_everybody_equally_often(self, approvers: list[Approver], count: int, rounds: int) -> None:
        people = {approver.user_id for approver in approvers}
        tally: Counter[UUID] = Counter(dict.fromkeys(people, 0))
        served = None
        for _ in range(rounds * len(people)):
            notified = told(NotificationPolicy.ROUND_ROBIN, approvers, count, served=served)
            tally.update(notified.user_ids)
            served = notified.served
        assert max(tally.values(), default=0) - min(tally.values(), default=0) <= 1

    def test_goes_on_after_the_last_served_though_that_member_left(self) -> None:
        a, b, c = PEOPLE[:3]
        before = [Approver(person, GROUPS[0], number) for number, person in enumerate((a, b, c))]
        served = told(NotificationPolicy.ROUND_ROBIN, before, 2).served
        assert told(NotificationPolicy.ROUND_ROBIN, [before[0], before[2]], served=served).user_ids == (c,)

    def test_a_new_member_waits_their_turn(self) -> None:
        a, b, new = PEOPLE[:3]
        before = [Approver(a, GROUPS[0], 1), Approver(b, GROUPS[0], 2)]
        served = told(NotificationPolicy.ROUND_ROBIN, before).served
        grown = [*before, Approver(new, GROUPS[0], 3)]
        order: list[UUID] = []
        for _ in range(3):
            notified = told(NotificationPolicy.ROUND_ROBIN, grown, served=served)
            order += notified.user_ids
            served = notified.served
        assert order == [b, new, a]

    def test_starts_anew_where_the_group_of_the_last_served_is_gone(self) -> None:
        approvers = [Approver(PEOPLE[0], GROUPS[1], 1), Approver(PEOPLE[1], GROUPS[1], 2)]
        notified = told(NotificationPolicy.ROUND_ROBIN, approvers, groups=GROUPS[1:], served=Served(GROUPS[0], 9))
        assert notified.user_ids == (PEOPLE[0],)

    def test_moves_its_mark_only_when_somebody_was_told(self) -> None:
        served = Served(GROUPS[0], 3)
        assert told(NotificationPolicy.ROUND_ROBIN, [], served=served).served == served

    @given(st.data())
    def test_is_fair_to_who_stays_while_others_come_and_go(self, data: st.DataObject) -> None:
        """Whoever is there throughout is served as often as the others who are, within one."""
        joined = count()
        members = [Approver(person, data.draw(st.sampled_from(GROUPS)), next(joined)) for person in PEOPLE[:6]]
        staying = {person.user_id for person in members[:3]}
        tally = Counter(dict.fromkeys(staying, 0))
        served = None
        for step in data.draw(st.lists(st.sampled_from(["submit", "submit", "join", "leave"]), max_size=40)):
            others = [person for person in members if person.user_id not in staying]
            if step == "leave" and others:
                members.remove(data.draw(st.sampled_from(others)))
            elif step == "join":
                newcomers = [person for person in PEOPLE if person not in {one.user_id for one in members}]
                if newcomers:
                    members.append(Approver(newcomers[0], data.draw(st.sampled_from(GROUPS)), next(joined)))
            elif step == "submit":
                notified = told(NotificationPolicy.ROUND_ROBIN, members, served=served)
                (chosen,), served = notified.user_ids, notified.served
                assert served is not None
                assert chosen in {one.user_id for one in members}
                if chosen in staying:
                    tally[chosen] += 1
        assert max(tally.values()) - min(tally.values()) <= 1

    @given(st.integers(2, 6), st.data())
    def test_passes_over_the_requester_and_goes_on(self, size: int, data: st.DataObject) -> None:
        members = [Approver(person, GROUPS[0], rank) for rank, person in enumerate(PEOPLE[:size])]
        served, expected = None, 0
        for _ in range(data.draw(st.integers(1, 12))):
            requester = data.draw(st.integers(0, size))  # size: somebody else
            asked = [one for rank, one in enumerate(members) if rank != requester]
            notified = told(NotificationPolicy.ROUND_ROBIN, asked, served=served)
            if expected == requester:
                expected = (expected + 1) % size
            assert notified.user_ids == (members[expected].user_id,)
            served, expected = notified.served, (expected + 1) % size

    def test_goes_on_where_it_was_when_the_order_of_groups_changes(self) -> None:
        a, b, c = (Approver(person, group, 1) for person, group in zip(PEOPLE[:3], GROUPS, strict=True))
        served = told(NotificationPolicy.ROUND_ROBIN, [a, b, c], groups=GROUPS).served
        assert served == Served(GROUPS[0], 1)
        moved = told(NotificationPolicy.ROUND_ROBIN, [a, b, c], groups=[GROUPS[2], GROUPS[0], GROUPS[1]], served=served)
        assert moved.user_ids == (b.user_id,)

    def test_serves_somebody_in_two_groups_once_a_round(self) -> None:
        both, other = PEOPLE[:2]
        members = [Approver(both, GROUPS[0], 1), Approver(other, GROUPS[0], 2), Approver(both, GROUPS[1], 3)]
        order: list[UUID] = []
        served = None
        for _ in range(4):
            notified = told(NotificationPolicy.ROUND_ROBIN, members, served=served)
            order += notified.user_ids
            served = notified.served
        assert order == [both, other, both, other]

    def test_no_other_policy_moves_its_mark(self) -> None:
        served = Served(GROUPS[1], 2)
        members = [Approver(person, GROUPS[0], rank) for rank, person in enumerate(PEOPLE)]
        for policy in set(NotificationPolicy) - {NotificationPolicy.ROUND_ROBIN}:
            assert told(policy, members, served=served).served == served
