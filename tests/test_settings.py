"""Settings: read from the environment, checked together, never shown with their secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from cli.main import app
from settings import (
    ScriptWorkerSettings,
    Settings,
    SettingsError,
    describe_settings,
    load_script_worker_settings,
    load_settings,
)

_DATABASE_URL = "postgresql://justiam:hush-hush@db.example.com:5433/access"
_SECRET_KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("JUSTIAM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("JUSTIAM_DATABASE_URL", _DATABASE_URL)
    monkeypatch.setenv("JUSTIAM_SECRET_KEY", _SECRET_KEY)


def test_defaults_are_those_of_a_careful_production() -> None:
    settings = load_settings()
    assert settings.database_url.get_secret_value() == _DATABASE_URL
    assert settings.trust_signal_actors is False
    assert settings.sweep_interval_secs == 300
    assert settings.max_duration_mins == 43_200
    assert settings.log_format == "json"
    assert settings.public_url is None


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTIAM_API_PORT", "")
    assert load_settings().api_port == 8000


def test_a_public_url_loses_its_trailing_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTIAM_PUBLIC_URL", "https://access.example.com/")
    assert load_settings().public_url == "https://access.example.com"


class TestMail:
    def test_is_not_sent_unless_set(self) -> None:
        assert load_settings().outbound.smtp is None

    def test_is_sent_as_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {
            "HOST": "mail.example.com",
            "FROM": "JustIAM <access@example.com>",
            "USERNAME": "justiam",
            "PASSWORD": "hush-hush",
        }.items():
            monkeypatch.setenv(f"JUSTIAM_SMTP_{name}", value)
        smtp = load_settings().outbound.smtp
        assert smtp is not None
        assert smtp.password is not None
        assert smtp.password.get_secret_value() == "hush-hush"
        assert (smtp.host, smtp.port, smtp.tls, smtp.username) == ("mail.example.com", 587, "starttls", "justiam")
        [password] = [each for each in describe_settings() if each.variable == "JUSTIAM_SMTP_PASSWORD"]
        assert password.value == "********"

    @pytest.mark.parametrize(
        ("variables", "problem"),
        [
            ({"HOST": "mail.example.com"}, "JUSTIAM_SMTP_HOST and JUSTIAM_SMTP_FROM are set together"),
            ({"USERNAME": "justiam"}, "JUSTIAM_SMTP_USERNAME and JUSTIAM_SMTP_PASSWORD are set together"),
            ({"USERNAME": "a", "PASSWORD": "b", "TLS": "none"}, "JUSTIAM_SMTP_TLS must be starttls or tls"),
            ({"HOST": "mail.example.com", "FROM": "nobody"}, "JUSTIAM_SMTP_FROM must be an address"),
            ({"HOST": "mail.example.com", "FROM": "a@example.com\nBcc: b@example.com"}, "JUSTIAM_SMTP_FROM must be"),
        ],
        ids=["no sender", "no password", "no protection", "no address", "two headers"],
    )
    def test_is_set_as_a_whole(self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problem: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"JUSTIAM_SMTP_{name}", value)
        with pytest.raises(SettingsError, match=problem):
            load_settings()


def test_hosts_are_named_in_ascii_by_idna_2008(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTIAM_SMTP_HOST", "mail.straße.example")
    monkeypatch.setenv("JUSTIAM_SMTP_FROM", "access@example.com")
    monkeypatch.setenv("JUSTIAM_TEMPORAL_ADDRESS", "straße.example:7233")
    monkeypatch.setenv("JUSTIAM_PUBLIC_URL", "https://straße.example")
    settings = load_settings()
    assert settings.outbound.smtp is not None
    assert settings.outbound.smtp.host == "mail.xn--strae-oqa.example"
    assert settings.temporal_address == "xn--strae-oqa.example:7233"
    assert settings.public_url == "https://xn--strae-oqa.example"


@pytest.mark.parametrize("host", ["straße.example", "stra%C3%9Fe.example", "db.example.com,straße.example"])
def test_a_database_on_another_host_is_never_connected_to(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("JUSTIAM_DATABASE_URL", f"postgresql://justiam:hush-hush@{host}/access")
    with pytest.raises(SettingsError, match="JUSTIAM_DATABASE_URL must name its host in ASCII"):
        load_settings()


class TestInternalHosts:
    def test_are_none_unless_set(self) -> None:
        assert load_settings().outbound.allowed_internal_hosts == frozenset()

    def test_are_separated_by_commas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUSTIAM_ALLOWED_INTERNAL_HOSTS", "Hooks.corp.example, 10.0.0.7:8080,[fd00::7]:8080,")
        assert load_settings().outbound.allowed_internal_hosts == {
            "hooks.corp.example",
            "10.0.0.7:8080",
            "[fd00::7]:8080",
        }

    def test_are_named_in_ascii_by_idna_2008(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(
            "JUSTIAM_ALLOWED_INTERNAL_HOSTS", "straße.intern:8080,\uff28\uff2f\uff2f\uff2b\uff33。intern"
        )
        assert load_settings().outbound.allowed_internal_hosts == {"xn--strae-oqa.intern:8080", "hooks.intern"}

    @pytest.mark.parametrize("wrong", ["http://hooks.corp.example", "10.0.0.0/8", "*", "a b", "user@host"])
    def test_are_hosts(self, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
        monkeypatch.setenv("JUSTIAM_ALLOWED_INTERNAL_HOSTS", wrong)
        with pytest.raises(SettingsError, match="JUSTIAM_ALLOWED_INTERNAL_HOSTS"):
            load_settings()


class TestEncryptionKeys:
    FIRST, SECOND = "hush-hush-hush-hush-hush-hush-hush-1", "hush-hush-hush-hush-hush-hush-hush-2"

    def test_are_none_unless_set(self) -> None:
        assert load_settings().encryption_keys == ()

    def test_are_separated_by_commas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUSTIAM_ENCRYPTION_KEYS", f"{self.FIRST}, {self.SECOND},")
        keys = [key.get_secret_value() for key in load_settings().encryption_keys]
        assert keys == [self.FIRST, self.SECOND]

    def test_are_shown_nowhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUSTIAM_ENCRYPTION_KEYS", f"{self.FIRST},{self.SECOND}")
        settings = load_settings()
        shown = CliRunner().invoke(app, ["settings"])
        assert "JUSTIAM_ENCRYPTION_KEYS" in shown.output
        for text in (repr(settings), settings.model_dump_json(), str(describe_settings()), shown.output):
            assert "hush" not in text

    @pytest.mark.parametrize(
        ("keys", "problem"),
        [(f"{FIRST},hush", "must have at least 32 characters"), (f"{FIRST},{FIRST}", "must not name a key twice")],
        ids=["too short", "twice"],
    )
    def test_that_are_wrong_are_explained_without_them(
        self, monkeypatch: pytest.MonkeyPatch, keys: str, problem: str
    ) -> None:
        monkeypatch.setenv("JUSTIAM_ENCRYPTION_KEYS", keys)
        with pytest.raises(SettingsError, match=f"JUSTIAM_ENCRYPTION_KEYS {problem}") as error:
            load_settings()
        assert "hush" not in str(error.value)


def test_secrets_may_come_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As containers are given them: /run/secrets/justiam_secret_key. The environment goes first."""
    in_file = "the secret key of the file, which is long enough"
    (tmp_path / "justiam_secret_key").write_text(in_file + "\n")
    (tmp_path / "justiam_smtp_password").write_text("hush-hush\n")
    monkeypatch.setenv("JUSTIAM_SECRETS_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("JUSTIAM_SECRET_KEY")
    program = "from settings import load_settings; print(load_settings().secret_key.get_secret_value())"

    def said() -> str:
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        ).stdout.strip()

    monkeypatch.setenv("JUSTIAM_SMTP_HOST", "mail.example.com")
    monkeypatch.setenv("JUSTIAM_SMTP_FROM", "access@example.com")
    monkeypatch.setenv("JUSTIAM_SMTP_USERNAME", "justiam")
    assert said() == in_file
    monkeypatch.setenv("JUSTIAM_SECRET_KEY", _SECRET_KEY)
    assert said() == _SECRET_KEY


def test_settings_cannot_be_changed() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.api_port = 1  # type: ignore[misc]


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUSTIAM_DATABASE_URL")
    monkeypatch.setenv("JUSTIAM_SECRET_KEY", "too-short")
    monkeypatch.setenv("JUSTIAM_API_PORT", "70000")
    monkeypatch.setenv("JUSTIAM_TEMPORAL_ADDRESS", "temporal.example.com")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value).splitlines() == [
        "JUSTIAM_API_PORT must be less than or equal to 65535",
        "JUSTIAM_DATABASE_URL is not set, and has no default",
        "JUSTIAM_SECRET_KEY must have at least 32 characters; openssl rand -hex 32 makes a good one",
        "JUSTIAM_TEMPORAL_ADDRESS must be host:port, as in temporal.example.com:7233",
    ]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://justiam:hush-hush@db/access", "must start with postgresql://"),
        ("postgresql://justiam:hush-hush%zz@db/access", "is not a URL that PostgreSQL understands"),
        ("postgresql://justiam:hush-hush@db", "must name a database"),
        ("postgresql://justiam:a@hush-hush@db/access", "must be percent-encoded"),
        ("postgresql://justiam:hush-hush/a@db/access", "must be percent-encoded"),
        ("postgresql://justiam:hush-hush#a/b@db/access", "must be percent-encoded"),
        ("postgresql://justiam:12/hush-hush@db/access", "must be percent-encoded"),
    ],
)
def test_a_wrong_database_url_is_explained_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    monkeypatch.setenv("JUSTIAM_DATABASE_URL", url)
    with pytest.raises(SettingsError, match=problem) as error:
        load_settings()
    assert "hush" not in str(error.value)
    assert "hush" not in CliRunner().invoke(app, ["settings"]).output


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://justiam:a%40hush-hush%2F@db.example.com:5433/access",
        "postgresql://a.example.com:5432,b.example.com:5433/access?user=justiam%40server&password=hush-hush",
        "postgresql:///access?host=/var/run/postgresql&user=justiam",
        "postgresql://justiam:hush-hush@[::1]:5432/access",
    ],
)
def test_what_postgresql_takes_for_a_url_is_one(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("JUSTIAM_DATABASE_URL", url)
    assert load_settings().database_url.get_secret_value() == url
    assert "hush" not in CliRunner().invoke(app, ["settings"]).output


@pytest.mark.parametrize("variable", ["JUSTIAM_PUBLIC_URL", "JUSTIAM_TEMPORAL_UI_URL", "JUSTIAM_SCRIPT_API_URL"])
def test_an_address_that_is_put_into_links_and_logs_has_no_password(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "https://somebody:hush-hush@access.example.com")
    load = load_script_worker_settings if variable == "JUSTIAM_SCRIPT_API_URL" else load_settings
    if variable == "JUSTIAM_SCRIPT_API_URL":
        monkeypatch.delenv("JUSTIAM_DATABASE_URL")
        monkeypatch.delenv("JUSTIAM_SECRET_KEY")
    with pytest.raises(SettingsError, match=f"{variable} must not have a user or a password in it") as error:
        load()
    assert "hush" not in str(error.value)
    assert "hush" not in CliRunner().invoke(app, ["settings"]).output


@pytest.mark.parametrize(
    "issuers",
    [
        '[{"issuer": "https://login.example.com", "audience": "a", "web_client_secert": "hush-hush"}]',
        '[{"issuer": "https://somebody:hush-hush@login.example.com", "audience": "a"}]',
        '["hush-hush"]',
        '{"web_client_secret": "hush-hush"}',
        '[{"web_client_secret": "hush-hush"',
    ],
)
def test_issuers_are_shown_without_what_could_be_a_secret(monkeypatch: pytest.MonkeyPatch, issuers: str) -> None:
    monkeypatch.setenv("JUSTIAM_OIDC_ISSUERS", issuers)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "hush" not in str(error.value)
    assert "hush" not in CliRunner().invoke(app, ["settings"]).output


def test_secrets_are_in_no_representation() -> None:
    settings = load_settings()
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hush-hush" not in text
        assert _SECRET_KEY not in text


def test_the_command_lists_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTIAM_LOG_LEVEL", "debug")
    monkeypatch.setenv("JUSTIAM_LOG_LEVLE", "debug")
    result = CliRunner().invoke(app, ["settings"])
    assert result.exit_code == 0
    for setting in describe_settings():
        assert setting.variable in result.stdout
        assert setting.meaning in result.stdout
    assert len(describe_settings()) == len({**Settings.model_fields, **ScriptWorkerSettings.model_fields})
    assert "JUSTIAM_SECRET_KEY (required)" in result.stdout
    assert "Now: postgresql://justiam:********@db.example.com:5433/access" in result.stdout
    assert "Now: debug" in result.stdout
    assert "JUSTIAM_LOG_LEVLE is set, but is no setting" in result.stderr
    for secret in ("hush-hush", _SECRET_KEY):
        assert secret not in result.output


def test_the_command_fails_where_the_service_could_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUSTIAM_SECRET_KEY", "short")
    result = CliRunner().invoke(app, ["settings"])
    assert result.exit_code == 1
    assert "JUSTIAM_SECRET_KEY must have at least 32 characters" in result.stderr
