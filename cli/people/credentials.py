"""Which service is meant and with whose token: from the environment, the development stack or `justiam login`."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cli.people.errors import Misused, NotSignedIn
from domain.addresses import with_ascii_host
from settings import ENDPOINT_VARIABLE, TOKEN_VARIABLE

DEV_FILE: Final = Path(".justiam") / "dev.json"
"""What `justiam dev` writes where it was started, tokens included."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_API_PATH: Final = "/api/v1"
_EARLY_SECS: Final = 10.0
"""A token is renewed this long before its end, so that it does not end on its way."""


@dataclass(frozen=True)
class SignIn:
    """How somebody signed in at an OpenID Connect issuer, and how they stay signed in."""

    issuer: str
    client_id: str
    audience: str
    """What the token is for; the client id itself where it is an ID token."""
    subject: str
    """Who they are to the issuer."""
    expires_at: float | None
    """When the token ends, by this machine's clock; None where the issuer does not say."""
    refresh_token: str | None = field(repr=False)


@dataclass(frozen=True)
class Credentials:
    """A service and a token for it."""

    endpoint: str
    """Where the service is, without a slash at the end: https://access.example.com."""
    token: str = field(repr=False)
    source: str
    """Where the token came from, in words."""
    sign_in: SignIn | None = None
    """How it is renewed; None for one that was given as it is."""

    @property
    def has_ended(self) -> bool:
        """Whether the token has to be renewed before it is used."""
        ends = self.sign_in.expires_at if self.sign_in else None
        return ends is not None and time.time() > ends - _EARLY_SECS


def current(person: str | None) -> Credentials:
    """What a command uses: for `--as`, the development stack; else the environment; else what `login` stored.

    Raises:
        NotSignedIn: there is no token for the service that is meant.
        Misused: what is there cannot be used.
    """
    if person is not None:
        return _of_dev_person(person)
    endpoint, token = os.environ.get(ENDPOINT_VARIABLE), os.environ.get(TOKEN_VARIABLE)
    kept = stored()
    if token:
        where = endpoint or (kept.endpoint if kept else None)
        if where is None:
            raise NotSignedIn(
                f"{TOKEN_VARIABLE} is set, but not for which service: set {ENDPOINT_VARIABLE} to its URL."
            )
        return Credentials(checked_endpoint(where), checked_token(token), f"the variable {TOKEN_VARIABLE}")
    if kept is None:
        raise NotSignedIn(f"You are not signed in. Sign in with `justiam login`{_or_dev()}.")
    # A stored token is for the service that it was stored for, and is never sent to another.
    if endpoint and checked_endpoint(endpoint) != kept.endpoint:
        raise NotSignedIn(
            f"You are signed in to {kept.endpoint}, not to {checked_endpoint(endpoint)} as {ENDPOINT_VARIABLE} says. "
            f"Sign in there with `justiam login`, or set {TOKEN_VARIABLE}."
        )
    return kept


def stored() -> Credentials | None:
    """What `login` stored.

    Raises:
        Misused: it cannot be used.
    """
    path = _file()
    try:
        with path.open() as file:
            status = os.fstat(file.fileno())
            content = json.load(file)
        found = Credentials(content["endpoint"], content["token"], str(path), _sign_in(content.get("sign_in")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Misused(f"Cannot read {path}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise Misused(f"{path} is damaged. Sign in again with `justiam login`.") from None
    if status.st_uid != os.getuid():
        raise Misused(f"{path} belongs to another user, who could read the token. Remove it, and sign in again.")
    if status.st_mode & _OTHERS:
        raise Misused(f"Others on this machine may read the token in {path}. Protect it: chmod 600 '{path}'")
    return replace(found, endpoint=checked_endpoint(found.endpoint), token=checked_token(found.token))


def stored_endpoint() -> str | None:
    """The service that somebody signed in to here."""
    found = stored()
    return found.endpoint if found else None


def store(credentials: Credentials) -> Path:
    """Keep credentials for the commands that follow: whole or not at all, readable by nobody else."""
    path = _file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made with mode 0600; whoever looks at the path sees the old content or the new.
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            signed_in = {"sign_in": asdict(credentials.sign_in)} if credentials.sign_in else {}
            json.dump({"endpoint": credentials.endpoint, "token": credentials.token, **signed_in}, file)
            file.flush()
            os.fsync(file.fileno())
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    return path


def forget() -> Credentials | None:
    """Remove what `store` kept.

    Returns:
        What it was, as far as it could be read; None where nothing was kept.
    """
    with alone():
        found = None
        with contextlib.suppress(Misused):
            found = stored()
        try:
            _file().unlink()
        except FileNotFoundError:
            return None
    return found or Credentials("the service", "", "")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Have what is stored to oneself: of two commands that renew a token at once, the issuer would refuse one."""
    try:
        directory = os.open(_file().parent, os.O_RDONLY)
    except FileNotFoundError:
        # Nothing is stored.
        yield
        return
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def checked_endpoint(text: str) -> str:
    """A service's address in the one form that is kept and compared.

    A token is a password: over plain HTTP only this machine gets it.

    Raises:
        Misused: it is no address of a service, or one to which a token cannot be sent safely.
    """
    candidate = text.strip()
    if "://" not in candidate:
        candidate = f"https://{candidate}"
    try:
        parts = urlsplit(with_ascii_host(candidate))
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Misused(f"{text!r} is no URL; write it as in https://access.example.com.") from None
    if parts.scheme not in {"https", "http"} or not host or parts.query or parts.fragment:
        raise Misused(f"{text!r} is not the URL of a service; write it as in https://access.example.com.")
    if parts.username or parts.password:
        raise Misused("The URL of the service must not hold a user or a password; the token is given apart.")
    if parts.scheme == "http" and not is_loopback(host):
        raise Misused(
            f"{host} is another machine, and over http everybody on the way could read the token: use https://."
        )
    shown = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix(_API_PATH).rstrip("/")
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path}"


def checked_token(text: str) -> str:
    """A token without the white space around it.

    Raises:
        Misused: it cannot be a token. The message does not repeat it.
    """
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise Misused("This is no token: a token is one word, as in justiam_… .")
    return token


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def dev_people() -> list[str]:
    """Whom `--as` knows here."""
    try:
        return sorted(_dev_users())
    except (Misused, NotSignedIn):
        return []


def _file() -> Path:
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    # A relative path is to be ignored, says the XDG Base Directory Specification.
    return (base if base.is_absolute() else Path.home() / ".config") / "justiam" / "credentials.json"


def _sign_in(content: Any) -> SignIn | None:  # noqa: ANN401 - JSON
    if content is None:
        return None
    expires_at, refresh_token = content["expires_at"], content["refresh_token"]
    return SignIn(
        issuer=str(content["issuer"]),
        client_id=str(content["client_id"]),
        audience=str(content["audience"]),
        subject=str(content["subject"]),
        expires_at=None if expires_at is None else float(expires_at),
        refresh_token=None if refresh_token is None else str(refresh_token),
    )


def _of_dev_person(name: str) -> Credentials:
    users = _dev_users()
    if name not in users:
        raise Misused(f"{DEV_FILE} knows no {name}; it knows {', '.join(sorted(users)) or 'nobody'}.")
    return users[name]


def _dev_users() -> dict[str, Credentials]:
    try:
        with DEV_FILE.open() as file:
            status = os.fstat(file.fileno())
            content: dict[str, Any] = json.load(file)
        endpoint = checked_endpoint(content["api_url"])
        users = {
            name: Credentials(endpoint, checked_token(user["token"]), f"{DEV_FILE}, as {name}")
            for name, user in content["users"].items()
        }
    except FileNotFoundError:
        raise NotSignedIn(
            f"--as is for the directory in which `justiam dev` runs; there is no {DEV_FILE} here. "
            "Elsewhere, sign in with `justiam login`."
        ) from None
    except OSError as error:
        raise Misused(f"Cannot read {DEV_FILE}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Misused(f"{DEV_FILE} is not what `justiam dev` writes.") from None
    # Else somebody else could have what is asked here go to a service of theirs.
    if status.st_uid != os.getuid() or status.st_mode & _OTHERS_WRITE:
        raise Misused(f"{DEV_FILE} belongs to, or can be changed by, somebody else; --as does not trust it.")
    if not is_loopback(urlsplit(endpoint).hostname or ""):
        raise Misused(f"{DEV_FILE} names a service on another machine; --as is for this one.")
    return users


def _or_dev() -> str:
    people = dev_people()
    if not people:
        return ""
    somebody = "alice" if "alice" in people else people[0]
    return f", or use the development stack here: `justiam --as {somebody} …` ({', '.join(people)})"
