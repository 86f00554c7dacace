"""Addresses and host names: IDNA 2008, in one spelling."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliveries.addresses import Refused, place_of
from domain import scim
from domain.addresses import ascii_host, mailbox, normal_address, sought_address, with_ascii_host

# What is typed, and the host that it names. For some of them, Python's own codec names another.
HOSTS = [
    ("straße.example", "xn--strae-oqa.example"),
    ("σίσυφος.example", "xn--kxa6ajbbmh.example"),
    ("ΜΆΪΟΣ", "xn--hxa5akq7a"),
    ("STRASSE.example", "strasse.example"),
    ("\uff33\uff34\uff32\uff21\uff33\uff33\uff25。example", "strasse.example"),
    ("क्\u200dष.example", "xn--11b2ezcw70k.example"),
    ("xn--strae-oqa.example", "xn--strae-oqa.example"),
    ("Bücher.example.", "xn--bcher-kva.example."),
    ("under_score.example", "under_score.example"),
]
NO_HOSTS = ["a\u200db.example", "⒈com.example", "ß_.example", "ü..example", "a\u202e.example", "ü" * 64]


@pytest.mark.parametrize(("typed", "host"), HOSTS)
def test_a_host_is_the_one_that_was_typed(typed: str, host: str) -> None:
    assert ascii_host(typed) == host
    assert with_ascii_host(f"https://{typed}:8443/ß?ü") in {f"https://{host}:8443/ß?ü", f"https://{typed}:8443/ß?ü"}
    assert place_of(f"https://{typed}/", frozenset()).host == host


@pytest.mark.parametrize("typed", NO_HOSTS)
def test_what_idna_does_not_allow_is_no_host(typed: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        ascii_host(typed)
    with pytest.raises(Refused):
        place_of(f"https://{typed}/", frozenset())


@pytest.mark.parametrize("typed", ["\uff11\uff12\uff17.0.0.1", "127。0。0。1", "\uff11\uff10.0.0.7"])
def test_an_address_inside_is_seen_in_any_width(typed: str) -> None:
    with pytest.raises(Refused, match="not on the public internet"):
        place_of(f"https://{typed}/", frozenset())


@given(st.text(max_size=40))
def test_a_host_is_ascii_or_refused(typed: str) -> None:
    try:
        host = ascii_host(typed)
    except ValueError:
        return
    assert host.isascii()
    assert ascii_host(host) == host


@pytest.fixture(scope="module")
def provider() -> ModuleType:
    """The client of the Terraform provider, which shares no code with the service."""
    path = Path(__file__).parents[2] / "terraform" / "justiam_provider" / "service.py"
    spec = importlib.util.spec_from_file_location("justiam_provider_service", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("typed", "host"), HOSTS)
def test_the_terraform_provider_calls_the_same_host(provider: ModuleType, typed: str, host: str) -> None:
    assert provider.checked_endpoint(f"https://{typed}:8443/api/v1") == f"https://{host}:8443"


@pytest.mark.parametrize("typed", NO_HOSTS)
def test_the_terraform_provider_refuses_the_same_hosts(provider: ModuleType, typed: str) -> None:
    with pytest.raises(provider.Misconfigured):
        provider.checked_endpoint(f"https://{typed}")


class TestAddresses:
    @pytest.mark.parametrize(
        ("typed", "stored"),
        [
            ("erika@straße.example", "erika@straße.example"),
            ("erika@xn--strae-oqa.example", "erika@straße.example"),
            ("Erika@\uff33\uff34\uff32\uff21\uff33\uff33\uff25。Example", "Erika@strasse.example"),
            (" erika@example.com ", "erika@example.com"),
            ("ju\u0308rgen@example.com", "jürgen@example.com"),
        ],
    )
    def test_are_stored_in_one_spelling_and_sought_in_it(self, typed: str, stored: str) -> None:
        assert normal_address(typed) == sought_address(typed) == sought_address(stored) == stored

    @pytest.mark.parametrize(
        ("typed", "sought"),
        [
            ("erika", "erika"),
            ("@xn--strae-oqa.ex", "@straße.ex"),
            ("xn--strae-oqa", "straße"),
            ("a@\uff33\uff34\uff32\uff21\uff33\uff33\uff25", "a@strasse"),
            ("ju\u0308", "jü"),
            ("xn--\u0660", "xn--\u0660"),
            ("@", "@"),
            ("", ""),
        ],
    )
    def test_are_found_by_a_part(self, typed: str, sought: str) -> None:
        assert sought_address(typed) == sought

    @given(st.text(max_size=60))
    def test_are_sought_whatever_is_typed(self, typed: str) -> None:
        assert isinstance(sought_address(typed), str)

    def test_are_mailed_to_in_ascii(self) -> None:
        assert mailbox("erika@straße.example") == ("erika", "xn--strae-oqa.example")
        assert mailbox("jürgen@mailhost") == ("jürgen", "mailhost")
        with pytest.raises(ValueError, match="@-sign"):
            mailbox("erika")


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("erika@xn--strae-oqa.example", None),
        ("e@xn--strae-oqa.example", "e@straße.example"),
        ("Erika@Example.COM", "Erika@Example.COM"),
        ("erika", "erika"),
    ],
)
def test_a_scim_user_name_is_kept_in_the_spelling_that_finds_it(typed: str, kept: str | None) -> None:
    emails = [{"value": "erika@straße.example", "primary": True}]
    assert scim.account(scim.User.model_validate({"userName": typed, "emails": emails})).user_name == kept


def test_what_is_longer_than_every_address_is_not_brought_into_another_spelling() -> None:
    text = "a@b" + "\u0301\u0316" * 1100
    assert sought_address(text) == text
