"""Which template somebody means."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.people import naming
from cli.people.naming import Named, NotOne

READ_ONLY = Named("1f0c2b7e-0000", "Database read-only access")
READ = Named("1f0c9999-0000", "Database Read Access")
SHELL = Named("abcd0000-0000", "Prod shell")
ALL = [READ_ONLY, READ, SHELL]


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("Database read-only access", READ_ONLY),
        ("DATABASE READ-ONLY ACCESS ", READ_ONLY),
        ("database-read-only-access", READ_ONLY),
        ("database read access", READ),
        ("database-read-o", READ_ONLY),
        ("prod", SHELL),
        ("abcd0000-0000", SHELL),
        ("ABCD", SHELL),
        ("1f0c2", READ_ONLY),
    ],
)
def test_one_is_meant(wanted: str, meant: Named) -> None:
    assert naming.choose(wanted, ALL) == meant


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("data", [READ_ONLY, READ]),
        ("1f0c", [READ_ONLY, READ]),
        ("abc", []),
        ("shell", []),
        ("", []),
        ("-", []),
    ],
)
def test_none_or_several_could_be(wanted: str, meant: list[Named]) -> None:
    with pytest.raises(NotOne) as error:
        naming.choose(wanted, ALL)
    assert error.value.meant == meant


def test_a_whole_name_is_not_the_beginning_of_another() -> None:
    short, long = Named("1", "Prod"), Named("2", "Prod shell")
    assert naming.choose("prod", [long, short]) == short


def test_names_that_differ_in_nothing_are_told_apart_by_id() -> None:
    with pytest.raises(NotOne) as error:
        naming.choose("twin", [Named("id-1", "Twin"), Named("id-2", "twin")])
    assert len(error.value.meant) == 2


named = st.builds(Named, st.uuids().map(str), st.text(min_size=1))


@given(st.lists(named, unique_by=lambda each: each.id), st.data())
def test_an_id_always_means_what_it_names(among: list[Named], data: st.DataObject) -> None:
    if among:
        one = data.draw(st.sampled_from(among))
        assert naming.choose(one.id, among) == one


@given(st.text(), st.lists(named))
def test_what_is_chosen_is_among_what_there_is(wanted: str, among: list[Named]) -> None:
    try:
        meant = [naming.choose(wanted, among)]
    except NotOne as error:
        meant = error.meant
        assert len(meant) != 1
    assert all(each in among for each in meant)


@given(st.text())
def test_a_slug_needs_no_quotes_and_is_its_own_slug(name: str) -> None:
    slug = naming.slug(name)
    assert not set(slug) & set(" \t\n'\"\\$`!*?;&|<>(){}[]#~")
    assert naming.slug(slug) == slug


@pytest.mark.parametrize("name", ["ΟΜΑΔΑ ΠΕΛΑΤΕΣ x", "Straße", "ΐ", "ﬁnance"])
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_a_name_is_meant_in_any_case(name: str, case: Callable[[str], str]) -> None:
    assert naming.choose(case(name), [Named("1", name), Named("2", "x" + name)]).id == "1"


def test_a_name_is_found_however_its_letters_are_composed() -> None:
    kept = Named("1" * 36, "Zo\u00eb")
    assert naming.choose("zoe\u0308", [kept]) == kept
    assert naming.choose("zo\u00eb", [Named("2" * 36, "Zoe\u0308")]).name == "Zoe\u0308"
