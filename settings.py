"""What an operator may set: environment variables `JUSTIAM_…`, checked once when a program starts.

`justiam settings` lists them from the definitions below, so a field's description is its documentation.
"""

from __future__ import annotations

import json
import os
import re
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain import json_text
from domain.actors import Permission
from domain.addresses import HostName, ascii_host, mailbox
from domain.deliveries import Outbound, Smtp
from domain.directory import refuse_reserved
from domain.errors import SystemGroup
from domain.newcomers import normal_domain
from domain.text import Name

S = TypeVar("S", bound=BaseSettings)

_PREFIX: Final = "JUSTIAM_"
ENDPOINT_VARIABLE: Final = "JUSTIAM_ENDPOINT"
"""Where clients find the service: the commands for people, and Terraform. No setting of the service itself."""
TOKEN_VARIABLE: Final = "JUSTIAM_TOKEN"  # noqa: S105 - the name of the variable
"""Whom clients act for."""
SECRETS_VARIABLE: Final = "JUSTIAM_SECRETS_DIRECTORY"
"""Where secrets are found in files."""
SECRETS_DIRECTORY: Final = Path(os.environ.get(SECRETS_VARIABLE) or "/run/secrets")
_SECRET_KEY_MIN_CHARS: Final = 32
_MASK: Final = "********"
_HTTP_URL: Final = TypeAdapter(HttpUrl)
_USER_INFO: Final = re.compile(r"://[^/?#\s\"]*@")
_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ISSUERS_EXAMPLE: Final = '[{"issuer": "https://login.example.com", "audience": "justiam"}]'


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
        parts = conninfo_to_dict(text)
    except psycopg.Error:
        # Not chained: libpq quotes the part it stumbled over, which may be the password.
        raise ValueError("is not a URL that PostgreSQL understands") from None
    host, port, database = (str(parts.get(name, "")) for name in ("host", "port", "dbname"))
    if "@" in host + database or not re.fullmatch(r"[0-9,]*", port):
        # What is taken for host, port or database then is a part of the password, and named wherever they are.
        raise ValueError("has a character in its user or password that must be percent-encoded: @ is %40, / is %2F")
    if not host.isascii():
        # psycopg resolves it with Python's codec, which is IDNA 2003: another server could be given the password.
        raise ValueError(
            "must name its host in ASCII: an international name in its A-labels, as in xn--strae-oqa.example"
        )
    if not database:
        raise ValueError("must name a database, as in postgresql://user:password@host:5432/justiam")
    return url


def _long_enough(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < _SECRET_KEY_MIN_CHARS:
        raise ValueError(
            f"must have at least {_SECRET_KEY_MIN_CHARS} characters; openssl rand -hex 32 makes a good one"
        )
    return key


def _encryption_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for key in keys:
        _long_enough(key)
    if len(set(keys)) < len(keys):
        raise ValueError("must not name a key twice")
    return keys


def _host_and_port(address: str) -> str:
    if not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
        raise ValueError("must be host:port, as in temporal.example.com:7233")
    host, _, port = address.rpartition(":")
    return f"{ascii_host(host)}:{port}"


def _without_trailing_slash(url: str) -> str:
    if "@" in urlsplit(url).netloc:
        # It is put into links and logs.
        raise ValueError("must not have a user or a password in it")
    return str(_HTTP_URL.validate_python(url)).rstrip("/")


def _issuer_url(url: str) -> str:
    # Kept as it is written: an issuer is compared character by character (OpenID Connect Discovery, section 4.3).
    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be a URL without a query, as in https://login.example.com")
    if not safe_to_fetch(url):
        raise ValueError("must start with https://, unless it is on this machine")
    return url


def safe_to_fetch(url: str) -> bool:
    """Whether what `url` answers is what its owner sent: over TLS, or without leaving this machine."""
    try:
        parts = urlsplit(url)
        # Read for what it raises: a port that is none.
        parts.port  # noqa: B018
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _THIS_MACHINE)


def _json_list(text: Any) -> Any:  # noqa: ANN401 - what the environment says, or what a test passes
    if not isinstance(text, str):
        return text
    try:
        return json_text.parsed(text)
    except json_text.RepeatedName as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError):
        raise ValueError(f"must be a JSON list, as in {_ISSUERS_EXAMPLE}") from None


def _listed(text: Any) -> Any:  # noqa: ANN401 - what the environment says, or what a test passes
    return [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else text


def _internal_host(host: str) -> str:
    found = re.fullmatch(r"([\w.。-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?", host)
    if found is None:
        raise ValueError("must be hosts, with or without a port, as in hooks.corp.example,10.0.0.7:8080,[fd00::7]:8080")
    return f"{ascii_host(found[1])}{found[2] or ''}"


def _mailbox(sender: str) -> str:
    try:
        mailbox(parseaddr(sender)[1])
    except ValueError:
        raise ValueError("must be an address, as in JustIAM <access@example.com>") from None
    if not sender.isprintable():
        raise ValueError("must be an address, as in JustIAM <access@example.com>")
    return sender


def _of_people(name: str) -> str:
    try:
        refuse_reserved(name)
    except SystemGroup as error:
        raise ValueError("must not be the name of a temporary group, which lives and ends with its grant") from error
    return name


def _scope(scope: str) -> str:
    if "openid" not in scope.split():
        raise ValueError("must contain openid, without which nobody says who has signed in")
    return scope


SigningAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"]
"""What an issuer may sign with. Asymmetric only: who can verify a token must not be able to make one."""


_EMAIL_CLAIM: Final = "email"
_ClaimName = Annotated[str, Field(min_length=1, max_length=255)]


class OidcIssuer(BaseModel):
    """An OpenID Connect issuer whose tokens are accepted from callers of the API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Annotated[str, AfterValidator(_issuer_url)]
    """As it stands in the `iss` of its tokens; its discovery document is below it."""
    audience: Annotated[str, Field(min_length=1)]
    """What its tokens name as `aud` when they are for this API."""
    algorithms: Annotated[tuple[SigningAlgorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    """The signatures that are accepted."""
    link_by_email: bool = False
    """Whether an address that it has verified links an account, once. Whoever runs the issuer can then sign in as
    anybody who has not been linked yet."""
    create_users: bool = False
    """Whether somebody with an address that it has verified, and that no account has, is given an account."""
    email_domains: Annotated[tuple[Annotated[str, AfterValidator(normal_domain)], ...], Field(max_length=1_000)] = ()
    """Of which domains its addresses link and make accounts; those below a domain are others. Empty: of all."""
    subject_claim: _ClaimName = "sub"
    """What names a person for good. Nothing that is ever given to somebody else."""
    email_claim: _ClaimName = "email"
    """What carries the address."""
    email_verified_claim: _ClaimName | None = None
    """What says whether that address is verified; `email_verified` unless `email_claim` is another than `email`."""
    name_claim: _ClaimName = "name"
    """What carries the name, for accounts that are made."""
    groups_claim: _ClaimName | None = None
    """What lists the groups that somebody is in there. None: it has no say in groups here."""
    groups: dict[Annotated[str, Field(min_length=1)], Annotated[Name, AfterValidator(_of_people)]] = {}
    """Its groups, as that claim lists them, and the groups here whose members they are. Others count for nothing."""
    groups_may_have: tuple[Permission, ...] = ()
    """The permissions that a group may have and still be filled by it; without them, whoever runs the issuer could
    make administrators of people as soon as somebody gives such a group a permission."""
    client_id: Annotated[str, Field(min_length=1)] | None = None
    """As which of its public clients `justiam login` signs people in. None: it does not."""
    scope: Annotated[str, Field(min_length=1)] | None = None
    """What `justiam login` asks for, where the usual does not do."""
    web_client_id: Annotated[str, Field(min_length=1)] | None = None
    """As which of its clients the pages sign people in. None: they do not."""
    web_client_secret: Annotated[SecretStr, Field(min_length=1)] | None = None
    """What that client authenticates with; None: it is a public client."""
    web_scope: Annotated[str, AfterValidator(_scope)] = "openid email profile"
    """What the pages ask for."""

    @model_validator(mode="after")
    def _secret_is_of_a_client(self) -> Self:
        if self.web_client_secret is not None and self.web_client_id is None:
            raise ValueError("web_client_secret needs the web_client_id that it is of")
        return self

    @model_validator(mode="after")
    def _claims_fit(self) -> Self:
        if self.subject_claim in {self.email_claim, self.name_claim}:
            raise ValueError("subject_claim must not be that of the address or the name, which pass to others")
        reads_addresses = self.link_by_email or self.create_users
        if reads_addresses and self.email_claim != _EMAIL_CLAIM and self.email_verified_claim is None:
            raise ValueError(f"email_claim needs email_verified_claim: email_verified speaks of {_EMAIL_CLAIM} alone")
        if self.email_domains and not reads_addresses:
            raise ValueError("email_domains needs link_by_email or create_users, else addresses count for nothing")
        if (self.groups_claim is None) != (not self.groups):
            raise ValueError("groups_claim and groups are set together, or neither is")
        if self.groups_may_have and not self.groups:
            raise ValueError("groups_may_have needs the groups that it is about")
        return self


class ProgramSettings(BaseSettings):
    """What every program of the service is told."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        # An empty variable is what a compose file passes for one that is not set.
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        # Where containers find their secrets: a file for each, such as justiam_secret_key. The environment goes first.
        secrets_dir=str(SECRETS_DIRECTORY) if SECRETS_DIRECTORY.is_dir() else None,
    )

    temporal_address: Annotated[str, AfterValidator(_host_and_port)] = Field(
        default="127.0.0.1:7233", description="Temporal's frontend, as host:port"
    )
    temporal_namespace: str = Field(
        default="default", min_length=1, max_length=255, description="The Temporal namespace that the workflows live in"
    )
    temporal_tls: bool = Field(
        default=False, description="Speak to Temporal over TLS; implied by the four settings that follow"
    )
    temporal_tls_ca: Path | None = Field(
        default=None,
        description="File with the authorities that Temporal's certificate is held to, where not the usual",
    )
    temporal_tls_certificate: Path | None = Field(
        default=None, description="File with the certificate that we show Temporal (mTLS)"
    )
    temporal_tls_key: Path | None = Field(default=None, description="File with the private key of that certificate")
    temporal_api_key: SecretStr | None = Field(
        default=None, description="What we show Temporal Cloud instead of a certificate"
    )
    temporal_encryption_keys: Annotated[
        tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_encryption_keys)
    ] = Field(
        default=(),
        description="Encrypt what Temporal's histories hold, separated by commas: the first encrypts, all decrypt. "
        f"At least {_SECRET_KEY_MIN_CHARS} characters each; the same for every program. Without, nothing is encrypted",
    )
    metrics_host: HostName = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address that /metrics, and /healthz and /readyz of workers, are on",
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65_535, description="Port for that, one for each program of a machine. None: not served"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe message that is logged: debug, info, warning or error"
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or console: coloured text for people"
    )

    @model_validator(mode="after")
    def _certificate_is_whole(self) -> Self:
        if (self.temporal_tls_certificate is None) != (self.temporal_tls_key is None):
            raise ValueError(
                "JUSTIAM_TEMPORAL_TLS_CERTIFICATE and JUSTIAM_TEMPORAL_TLS_KEY are set together, or neither is"
            )
        return self


class ScriptWorkerSettings(ProgramSettings):
    """All settings of `justiam script-worker`, which has neither the database nor the keys."""

    script_api_url: Annotated[str, AfterValidator(_without_trailing_slash)] = Field(
        default="http://127.0.0.1:8000",
        description="Where a script worker fetches what a script needs: the address of the API as it reaches it",
    )
    script_cache_dir: Path = Field(
        default=Path("~/.cache/justiam-scripts"),
        description="Where a script worker keeps compiled scripts; nobody else may write there",
    )
    script_warm_up: bool = Field(
        default=True,
        description="Compile Go's library when a script worker starts, so that the first script in Go does not wait; "
        "`justiam dev` does so when such a script is saved",
    )
    script_slots: int = Field(default=4, ge=1, le=100, description="Scripts that one script worker runs at a time")


class Settings(ProgramSettings):
    """All settings of the API, the worker and the commands. Immutable; read them with `load_settings`."""

    database_url: Annotated[SecretStr, AfterValidator(_postgresql_url)] = Field(
        description="The record: postgresql://user:password@host:5432/database"
    )
    secret_key: Annotated[SecretStr, AfterValidator(_long_enough)] = Field(
        description="Signs the short-lived proofs on decisions; the same for every API and worker. "
        f"At least {_SECRET_KEY_MIN_CHARS} characters"
    )
    encryption_keys: Annotated[
        tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_encryption_keys)
    ] = Field(
        default=(),
        description="Encrypt secrets at rest, separated by commas: the first encrypts, all decrypt. "
        f"At least {_SECRET_KEY_MIN_CHARS} characters each; without, a key derived from JUSTIAM_SECRET_KEY",
    )
    database_pool_max: int = Field(
        default=10, ge=1, le=500, description="Connections to PostgreSQL that one process opens at most"
    )
    temporal_rpc_timeout_secs: float = Field(
        default=10.0, gt=0, le=120, description="Seconds that one call to Temporal may take before it counts as failed"
    )
    workflow_sandbox: bool = Field(
        default=False,
        description="Run workflows in Temporal's sandbox, which stops nondeterministic calls at run time and triples "
        "the worker's processor time for each workflow: for development of workflows",
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
    api_host: HostName = Field(default="127.0.0.1", min_length=1, description="Address that the API listens on")
    api_port: int = Field(default=8000, ge=1, le=65_535, description="Port that the API listens on")
    public_url: Annotated[str, AfterValidator(_without_trailing_slash)] | None = Field(
        default=None,
        description="Where people reach the service, for links in messages: https://access.example.com; "
        "also the issuer of its tokens",
    )
    temporal_ui_url: Annotated[str, AfterValidator(_without_trailing_slash)] | None = Field(
        default=None, description="Where administrators reach the Temporal UI, for links to a request's workflow"
    )
    dev_sign_in: bool = Field(
        default=False,
        description="Let anybody who reaches the pages sign in as anybody, with one click: for development only, and "
        "refused unless the service listens on this machine alone",
    )
    access_token_lifetime_secs: int = Field(
        default=300,
        ge=10,
        le=3_600,
        description="Seconds for which a token that is issued for an application is valid at most; it never outlasts a "
        "grant that it draws on",
    )
    oidc_issuers: Annotated[tuple[OidcIssuer, ...], NoDecode, BeforeValidator(_json_list)] = Field(
        default=(),
        description="OpenID Connect issuers whose tokens callers may use, as a JSON list: issuer (URL), audience, and "
        'where they differ algorithms (["RS256", "ES256"]) and link_by_email (false); client_id, and where it has to '
        "differ scope, let people sign in there with `justiam login`; web_client_id, and web_client_secret unless it "
        "is a public client, let them sign in to the pages; create_users, and groups_claim with groups, make accounts "
        "and memberships of what the issuer says; docs/tokens.md has all of them. As in " + _ISSUERS_EXAMPLE,
    )
    oidc_leeway_secs: int = Field(
        default=30,
        ge=0,
        le=120,
        description="Seconds by which the clock of an OpenID Connect issuer may be off",
    )
    calls_per_minute: int = Field(
        default=1_200,
        ge=60,
        le=1_000_000,
        description="Calls that each process of the API takes from one person a minute, a sixth of them at once; more "
        "are refused (429) with the time to wait",
    )
    max_body_bytes: int = Field(
        default=262_144, ge=1_024, le=16_777_216, description="The largest body of an HTTP request, in bytes"
    )

    allowed_internal_hosts: Annotated[
        tuple[Annotated[str, AfterValidator(_internal_host)], ...], NoDecode, BeforeValidator(_listed)
    ] = Field(
        default=(),
        description="Hosts that webhooks may reach on private addresses and over plain http, separated by commas: "
        "host or host:port, as they stand in the URL. All others are reached over https, at public addresses",
    )
    smtp_host: HostName | None = Field(
        default=None, min_length=1, description="The mail server; without, no mail is sent"
    )
    smtp_port: int = Field(default=587, ge=1, le=65_535, description="Port of the mail server")
    smtp_username: str | None = Field(default=None, min_length=1, description="Whom to log in to the mail server as")
    smtp_password: SecretStr | None = Field(default=None, description="The password for that")
    smtp_tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls",
        description="How to speak to the mail server: starttls, tls from the first byte, or none at all",
    )
    smtp_from: Annotated[str, AfterValidator(_mailbox)] | None = Field(
        default=None, description="Sender of all mails, as in JustIAM <access@example.com>"
    )
    reminder_mins: int = Field(
        default=15, ge=1, le=10_080, description="Minutes before the end of an access at which its holder is reminded"
    )

    @property
    def outbound(self) -> Outbound:
        """What is said about messages that leave the house."""
        smtp = None
        if self.smtp_host is not None and self.smtp_from is not None:
            smtp = Smtp(
                host=self.smtp_host,
                port=self.smtp_port,
                username=self.smtp_username,
                password=self.smtp_password,
                tls=self.smtp_tls,
                sender=self.smtp_from,
            )
        return Outbound(
            allowed_internal_hosts=frozenset(self.allowed_internal_hosts), source=self.token_issuer, smtp=smtp
        )

    @property
    def token_issuer(self) -> str:
        """The `iss` of the tokens that are issued here. Never taken from a request, whose Host anybody can write."""
        return self.public_url or f"http://{self.api_host}:{self.api_port}"

    @model_validator(mode="after")
    def _issuers_differ(self) -> Self:
        issuers = [configured.issuer for configured in self.oidc_issuers]
        if len(set(issuers)) < len(issuers):
            raise ValueError("JUSTIAM_OIDC_ISSUERS names an issuer twice")
        if self.token_issuer in {issuer.rstrip("/") for issuer in issuers}:
            raise ValueError("JUSTIAM_OIDC_ISSUERS names this service itself, whose tokens are for applications")
        return self

    @model_validator(mode="after")
    def _development_stays_here(self) -> Self:
        if self.dev_sign_in and not {self.api_host, urlsplit(self.token_issuer).hostname} <= _THIS_MACHINE:
            raise ValueError("JUSTIAM_DEV_SIGN_IN needs JUSTIAM_API_HOST and JUSTIAM_PUBLIC_URL to be on this machine")
        return self

    @model_validator(mode="after")
    def _mail_is_whole(self) -> Self:
        if (self.smtp_host is None) != (self.smtp_from is None):
            raise ValueError("JUSTIAM_SMTP_HOST and JUSTIAM_SMTP_FROM are set together, or neither is")
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("JUSTIAM_SMTP_USERNAME and JUSTIAM_SMTP_PASSWORD are set together, or neither is")
        if self.smtp_password is not None and self.smtp_tls == "none":
            raise ValueError("JUSTIAM_SMTP_TLS must be starttls or tls where there is a password to protect")
        return self


_FIELDS: Final = {**Settings.model_fields, **ScriptWorkerSettings.model_fields}


def load_settings() -> Settings:
    """Read and check the environment.

    Raises:
        SettingsError: with one line for each variable that is missing or wrong.
    """
    return _load(Settings)


def load_script_worker_settings() -> ScriptWorkerSettings:
    """Read and check what a script worker is told.

    Raises:
        SettingsError: with one line for each variable that is missing or wrong.
    """
    return _load(ScriptWorkerSettings)


def describe_settings() -> list[SettingDescription]:
    """Every setting with its meaning, its default and what the environment says, right or wrong."""
    described = []
    for name, field in _FIELDS.items():
        value = os.environ.get(_variable(name)) or None
        if value is not None and SecretStr in {field.annotation, *get_args(field.annotation)}:
            value = _without_password(value) if name == "database_url" else _MASK
        elif value is not None and name == "oidc_issuers":
            value = _without_client_secrets(value)
        if value is not None:
            value = _USER_INFO.sub(f"://{_MASK}@", value) if name != "database_url" else value
        if field.is_required():
            default = None
        elif field.default is None:
            default = "none"
        else:
            default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
            default = "none" if field.default == () else default
        described.append(
            SettingDescription(variable=_variable(name), meaning=field.description or "", default=default, value=value)
        )
    return described


def _without_client_secrets(issuers: str) -> str:
    try:
        listed = json_text.parsed(issuers)
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        # Whatever stands there may have a secret in it.
        return _MASK
    # A name that is unknown may be that of the secret, misspelt.
    shown = OidcIssuer.model_fields.keys() - {"web_client_secret"}
    return json.dumps(
        [
            {name: value if name in shown else _MASK for name, value in each.items()}
            if isinstance(each, dict)
            else _MASK
            for each in listed
        ]
    )


def unknown_variables() -> list[str]:
    """Variables of the environment that begin like settings and are none: most often misspelt."""
    known = {_variable(name) for name in _FIELDS} | {ENDPOINT_VARIABLE, TOKEN_VARIABLE, SECRETS_VARIABLE}
    return sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in known)


def _load(kind: type[S]) -> S:
    try:
        return kind()
    except ValidationError as error:
        problems = [" ".join([*_place(problem["loc"]), _explain(problem["msg"])]) for problem in error.errors()]
        raise SettingsError("\n".join(sorted(problems))) from None


def _variable(field: str) -> str:
    return _PREFIX + field.upper()


def _place(location: tuple[int | str, ...]) -> list[str]:
    """The variable, and the place within it; nothing for a rule over several, which names them itself."""
    if not location:
        return []
    variable, *within = location
    return [_variable(str(variable)), *([".".join(map(str, within))] if within else [])]


def _explain(message: str) -> str:
    if message == "Field required":
        return "is not set, and has no default"
    return message.removeprefix("Value error, ").replace("Input should be", "must be").replace("Value", "value")


def _without_password(database_url: str) -> str:
    try:
        _postgresql_url(SecretStr(database_url))
    except ValueError:
        # Nobody knows where in it the password is.
        return _MASK
    parts = conninfo_to_dict(database_url)
    server = f"{parts.get('host', '')}:{parts.get('port', '5432')}"
    return f"postgresql://{parts.get('user', '')}:{_MASK}@{server}/{parts.get('dbname', '')}"
