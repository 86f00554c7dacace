"""Which service is meant and with whose token: from the environment, the development stack or `justiam login`."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cli.people.errors import Misused, NotSignedIn
from settings import ENDPOINT_VARIABLE, TOKEN_VARIABLE

DEV_FILE: Final = Path(".justiam") / "dev.json"
"""What `justiam dev` writes where it was started, tokens included."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_API_PATH: Final = "/api/v1"


@dataclass(frozen=True)
class Credentials:
    """A service and a token for it."""

    endpoint: str
    """Where the service is, without a slash at the end: https://access.example.com."""
    token: str = field(repr=False)
    source: str
    """Where the token came from, in words."""


def current(person: str | None) -> Credentials:
    """What a command uses: for `--as`, the development stack; else the environment; else what `login` stored.

    Raises:
        NotSignedIn: there is no token for the service that is meant.
        Misused: what is there cannot be used.
    """
    if person is not None:
        return _of_dev_person(person)
    endpoint, token = os.environ.get(ENDPOINT_VARIABLE), os.environ.get(TOKEN_VARIABLE)
    stored = _stored()
    if token:
        where = endpoint or (stored.endpoint if stored else None)
        if where is None:
            raise NotSignedIn(
                f"{TOKEN_VARIABLE} is set, but not for which service: set {ENDPOINT_VARIABLE} to its URL."
            )
        return Credentials(checked_endpoint(where), checked_token(token), f"the variable {TOKEN_VARIABLE}")
    if stored is None:
        raise NotSignedIn(f"You are not signed in. Sign in with `justiam login`{_or_dev()}.")
    # A stored token is for the service that it was stored for, and is never sent to another.
    if endpoint and checked_endpoint(endpoint) != stored.endpoint:
        raise NotSignedIn(
            f"You are signed in to {stored.endpoint}, not to {checked_endpoint(endpoint)} as {ENDPOINT_VARIABLE} says. "
            f"Sign in there with `justiam login`, or set {TOKEN_VARIABLE}."
        )
    return stored


def stored_endpoint() -> str | None:
    """The service that somebody signed in to here."""
    stored = _stored()
    return stored.endpoint if stored else None


def store(credentials: Credentials) -> Path:
    """Keep credentials for the commands that follow: whole or not at all, readable by nobody else."""
    path = _file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made with mode 0600; whoever looks at the path sees the old content or the new.
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"endpoint": credentials.endpoint, "token": credentials.token}, file)
            file.flush()
            os.fsync(file.fileno())
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    return path


def forget() -> str | None:
    """Remove what `store` kept.

    Returns:
        The service that it was for; None where nothing was kept.
    """
    endpoint = None
    with contextlib.suppress(Misused):
        endpoint = stored_endpoint()
    try:
        _file().unlink()
    except FileNotFoundError:
        return None
    return endpoint or "the service"


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
        parts = urlsplit(candidate)
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


def _stored() -> Credentials | None:
    path = _file()
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            content = json.load(file)
        found = Credentials(content["endpoint"], content["token"], str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Misused(f"Cannot read {path}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise Misused(f"{path} is damaged. Sign in again with `justiam login`.") from None
    if mode & _OTHERS:
        raise Misused(f"Others on this machine may read the token in {path}. Protect it: chmod 600 '{path}'")
    return Credentials(checked_endpoint(found.endpoint), checked_token(found.token), found.source)


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
