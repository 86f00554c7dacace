"""Whose token goes where, and who can read it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.people import credentials
from cli.people.credentials import Credentials
from cli.people.errors import CommandError, Misused, NotSignedIn
from settings import unknown_variables

TOKEN = "justiam_hush-hush"
HERE = "http://127.0.0.1:8000"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("JUSTIAM_ENDPOINT", raising=False)
    monkeypatch.delenv("JUSTIAM_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dev(home: Path, url: str = HERE) -> Path:
    file = home / ".justiam" / "dev.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"api_url": url, "users": {"alice": {"token": TOKEN}, "bob": {"token": "justiam_b"}}}))
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("access.example.com", "https://access.example.com"),
        ("https://access.example.com/", "https://access.example.com"),
        ("https://Access.example.com:8443/iam/api/v1/", "https://access.example.com:8443/iam"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.2", "http://127.0.0.2"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://straße.example:8443/iam", "https://xn--strae-oqa.example:8443/iam"),
        ("\uff21\uff23\uff23\uff25\uff33\uff33。example.com", "https://access.example.com"),
    ],
)
def test_an_endpoint_is_kept_in_one_form(typed: str, kept: str) -> None:
    assert credentials.checked_endpoint(typed) == kept
    assert credentials.checked_endpoint(kept) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "https://",
        "ftp://access.example.com",
        "http://access.example.com",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://10.0.0.1",
        "https://user:password@access.example.com",
        "https://access.example.com?x=1",
        "https://access.example.com:port",
        "https://[::1",
        "https://a\u200db.example",
    ],
)
def test_a_token_is_sent_to_no_other(typed: str) -> None:
    with pytest.raises(Misused):
        credentials.checked_endpoint(typed)


@given(st.text())
def test_every_text_is_an_endpoint_or_misused(typed: str) -> None:
    try:
        kept = credentials.checked_endpoint(typed)
    except Misused:
        return
    assert kept.startswith(("https://", "http://localhost", "http://127.", "http://[::1]", "http://[")), kept


def test_what_is_stored_is_for_its_owner_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    path = credentials.store(Credentials(HERE, TOKEN, "a test"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    found = credentials.current(None)
    assert (found.endpoint, found.token, found.source) == (HERE, TOKEN, str(path))
    assert TOKEN not in repr(found)
    path.chmod(0o640)
    with pytest.raises(Misused, match="chmod 600"):
        credentials.current(None)
    path.chmod(0o600)
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(Misused, match="belongs to another user"):
        credentials.current(None)


def test_a_damaged_file_is_explained_and_can_be_removed() -> None:
    path = credentials.store(Credentials(HERE, TOKEN, "a test"))
    path.write_text("{")
    with pytest.raises(Misused, match="damaged"):
        credentials.current(None)
    assert credentials.forget()
    assert credentials.forget() is None
    with pytest.raises(NotSignedIn, match="justiam login"):
        credentials.current(None)


class TestEnvironment:
    def test_both_variables_win_over_what_is_stored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        credentials.store(Credentials("http://localhost:1", "justiam_stored", "a test"))
        monkeypatch.setenv("JUSTIAM_ENDPOINT", HERE)
        monkeypatch.setenv("JUSTIAM_TOKEN", TOKEN)
        found = credentials.current(None)
        assert (found.endpoint, found.token) == (HERE, TOKEN)

    def test_a_token_alone_is_for_the_stored_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUSTIAM_TOKEN", TOKEN)
        with pytest.raises(NotSignedIn, match="JUSTIAM_ENDPOINT"):
            credentials.current(None)
        credentials.store(Credentials(HERE, "justiam_stored", "a test"))
        assert credentials.current(None).token == TOKEN

    def test_a_stored_token_never_goes_to_another_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        credentials.store(Credentials(HERE, TOKEN, "a test"))
        monkeypatch.setenv("JUSTIAM_ENDPOINT", f"{HERE}/")
        assert credentials.current(None).token == TOKEN
        monkeypatch.setenv("JUSTIAM_ENDPOINT", "https://evil.example.com")
        with pytest.raises(NotSignedIn, match=r"not to https://evil\.example\.com"):
            credentials.current(None)

    def test_a_token_with_a_line_break_is_refused_and_not_repeated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUSTIAM_ENDPOINT", HERE)
        monkeypatch.setenv("JUSTIAM_TOKEN", "justiam_a\njustiam_b")
        with pytest.raises(Misused) as error:
            credentials.current(None)
        assert "justiam_a" not in str(error.value)

    def test_the_two_variables_are_known_to_the_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUSTIAM_ENDPOINT", HERE)
        monkeypatch.setenv("JUSTIAM_TOKEN", TOKEN)
        monkeypatch.setenv("JUSTIAM_TOKENS", "misspelt")
        assert "JUSTIAM_TOKENS" in unknown_variables()
        assert not {"JUSTIAM_TOKEN", "JUSTIAM_ENDPOINT"} & set(unknown_variables())


class TestDevelopment:
    def test_somebody_of_the_demo_acts_where_the_stack_runs(self, home: Path) -> None:
        dev(home)
        found = credentials.current("alice")
        assert (found.endpoint, found.token) == (HERE, TOKEN)
        assert credentials.dev_people() == ["alice", "bob"]
        with pytest.raises(Misused, match="knows no zoe; it knows alice, bob"):
            credentials.current("zoe")
        with pytest.raises(NotSignedIn, match="`justiam --as alice …`"):
            credentials.current(None)

    def test_elsewhere_it_says_where_it_works(self) -> None:
        assert credentials.dev_people() == []
        with pytest.raises(NotSignedIn, match="justiam login"):
            credentials.current("alice")

    def test_a_file_that_names_another_machine_is_not_trusted(self, home: Path) -> None:
        dev(home, "https://evil.example.com")
        with pytest.raises(Misused, match="another machine"):
            credentials.current("alice")

    def test_a_file_that_others_can_change_is_not_trusted(self, home: Path) -> None:
        dev(home).chmod(0o666)
        with pytest.raises(Misused, match="somebody else"):
            credentials.current("alice")

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"api_url": 1, "users": []}', '{"api_url": "x", "users": 1}'])
    def test_another_file_of_that_name_is_explained(self, home: Path, content: str) -> None:
        dev(home).write_text(content)
        with pytest.raises(CommandError, match=r"not what `justiam dev` writes|another machine"):
            credentials.current("alice")
