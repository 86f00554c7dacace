"""What an operator may set: environment variables `JUSTIAM_…`, checked once when a program starts.

`justiam settings` lists them from the definitions below, so a field's description is its documentation.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Final, Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, BaseModel, Field, HttpUrl, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX: Final = "JUSTIAM_"
_SECRET_KEY_MIN_CHARS: Final = 32
_MASK: Final = "********"
_HTTP_URL: Final = TypeAdapter(HttpUrl)


class SettingsError(Exception):
    """The environment does not describe a service that can run; the message names every variable that is wrong."""


class SettingDescription(BaseModel):
    """One setting as `justiam settings` shows it; secrets are masked."""

    variable: str
    meaning: str
    default: str | None
    """None where the variable must be set."""
    value: str | None
    """What the environment says, None where it says nothing."""


def _postgresql_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("must start with postgresql://")
    try:
        database = conninfo_to_dict(text).get("dbname")
    except psycopg.Error:
        # Not chained: libpq quotes the part it stumbled over, which may be the password.
        raise ValueError("is not a URL that PostgreSQL understands") from None
    if not database:
        raise ValueError("must name a database, as in postgresql://user:password@host:5432/justiam")
    return url


def _long_enough(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < _SECRET_KEY_MIN_CHARS:
        raise ValueError(
            f"must have at least {_SECRET_KEY_MIN_CHARS} characters; openssl rand -hex 32 makes a good one"
        )
    return key


def _host_and_port(address: str) -> str:
    if not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
        raise ValueError("must be host:port, as in temporal.example.com:7233")
    return address


def _without_trailing_slash(url: str) -> str:
    return str(_HTTP_URL.validate_python(url)).rstrip("/")


class Settings(BaseSettings):
    """All settings of the API, the worker and the commands. Immutable; read them with `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        # An empty variable is what a compose file passes for one that is not set.
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    database_url: Annotated[SecretStr, AfterValidator(_postgresql_url)] = Field(
        description="The record: postgresql://user:password@host:5432/database"
    )
    secret_key: Annotated[SecretStr, AfterValidator(_long_enough)] = Field(
        description="Signs the short-lived proofs on decisions; the same for every API and worker. "
        f"At least {_SECRET_KEY_MIN_CHARS} characters"
    )
    database_pool_max: int = Field(
        default=10, ge=1, le=500, description="Connections to PostgreSQL that one process opens at most"
    )
    temporal_address: Annotated[str, AfterValidator(_host_and_port)] = Field(
        default="127.0.0.1:7233", description="Temporal's frontend, as host:port"
    )
    temporal_namespace: str = Field(
        default="default", min_length=1, max_length=255, description="The Temporal namespace that the workflows live in"
    )
    temporal_rpc_timeout_secs: float = Field(
        default=10.0, gt=0, le=120, description="Seconds that one call to Temporal may take before it counts as failed"
    )
    trust_signal_actors: bool = Field(
        default=False,
        description="Believe the `actor` of a signal that carries no proof: for development only, since anyone who may "
        "signal in the namespace could then decide in any name",
    )
    max_duration_mins: int = Field(
        default=43_200,
        ge=1,
        le=525_600,
        description="The longest access, in minutes, that a template which lists no durations lets people ask for",
    )
    sweep_interval_secs: int = Field(
        default=300,
        ge=10,
        le=3_600,
        description="Seconds between two runs of the sweep, which ends what is overdue and restarts what was lost",
    )
    api_host: str = Field(default="127.0.0.1", min_length=1, description="Address that the API listens on")
    api_port: int = Field(default=8000, ge=1, le=65_535, description="Port that the API listens on")
    public_url: Annotated[str, AfterValidator(_without_trailing_slash)] | None = Field(
        default=None, description="Where people reach the service, for links in messages: https://access.example.com"
    )
    max_body_bytes: int = Field(
        default=262_144, ge=1_024, le=16_777_216, description="The largest body of an HTTP request, in bytes"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe message that is logged: debug, info, warning or error"
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or console: coloured text for people"
    )


def load_settings() -> Settings:
    """Read and check the environment.

    Raises:
        SettingsError: with one line for each variable that is missing or wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = [f"{_variable(str(problem['loc'][0]))} {_explain(problem['msg'])}" for problem in error.errors()]
        raise SettingsError("\n".join(sorted(problems))) from None


def describe_settings() -> list[SettingDescription]:
    """Every setting with its meaning, its default and what the environment says, right or wrong."""
    described = []
    for name, field in Settings.model_fields.items():
        value = os.environ.get(_variable(name)) or None
        if value is not None and field.annotation is SecretStr:
            value = _without_password(value) if name == "database_url" else _MASK
        if field.is_required():
            default = None
        elif field.default is None:
            default = "none"
        else:
            default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        described.append(
            SettingDescription(variable=_variable(name), meaning=field.description or "", default=default, value=value)
        )
    return described


def unknown_variables() -> list[str]:
    """Variables of the environment that begin like settings and are none: most often misspelt."""
    known = {_variable(name) for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in known)


def _variable(field: str) -> str:
    return _PREFIX + field.upper()


def _explain(message: str) -> str:
    if message == "Field required":
        return "is not set, and has no default"
    return message.removeprefix("Value error, ").replace("Input should be", "must be").replace("Value", "value")


def _without_password(database_url: str) -> str:
    try:
        parts = conninfo_to_dict(database_url)
    except psycopg.Error:
        return _MASK
    server = f"{parts.get('host', '')}:{parts.get('port', '5432')}"
    return f"postgresql://{parts.get('user', '')}:{_MASK}@{server}/{parts.get('dbname', '')}"
