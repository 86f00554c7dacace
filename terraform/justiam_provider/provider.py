"""The provider: where the service is, and with which token it is called."""

from __future__ import annotations

import os
from typing import Any, Final

from tf import iface
from tf.schema import Schema
from tf.types import Number, String, Unknown
from tf.utils import Diagnostics

from justiam_provider import data_sources, resources
from justiam_provider.arguments import Argument, State, whole
from justiam_provider.service import (
    RETRY_SECS,
    TIMEOUT_SECS,
    Failure,
    Misconfigured,
    Service,
    checked_endpoint,
    checked_token,
)

ADDRESS: Final = "terraform.justiam.local/justiam/justiam"
"""The provider's source in a configuration. The host is nobody's: the provider lies in the local plugin directory."""
DESCRIPTION: Final = "Manages JustIAM Access Requests over its HTTP API."
_VARIABLES: Final = {"endpoint": "JUSTIAM_ENDPOINT", "token": "JUSTIAM_TOKEN"}
_CHECKS: Final = {"endpoint": checked_endpoint, "token": checked_token}

ARGUMENTS: Final = (
    Argument(
        name="endpoint",
        type=String(),
        description="Address of the service, such as `https://access.example.com`; over `http`, this machine only. "
        "`JUSTIAM_ENDPOINT` unless given.",
    ),
    Argument(
        name="token",
        type=String(),
        description="API token of somebody who holds the permissions that are needed. Better left to `JUSTIAM_TOKEN`.",
        sensitive=True,
    ),
    Argument(
        name="timeout_seconds",
        type=Number(),
        description=f"How long one call may take. {TIMEOUT_SECS:.0f} unless given.",
        check=whole(1, 600),
    ),
    Argument(
        name="retry_seconds",
        type=Number(),
        description="How long a call is repeated that the service puts off (429, 503), with growing pauses or those "
        f"that it asks for. {RETRY_SECS:.0f} unless given; 0: not at all.",
        check=whole(0, 600),
    ),
)


class Provider(iface.Provider):
    """The provider, as Terraform starts it: once for each run."""

    def __init__(self) -> None:
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """The configured service.

        Raises:
            Failure: the provider's configuration is not known yet.
        """
        if self._service is None:
            raise Failure("The provider's endpoint or token is not known yet: apply first what they come from.")
        return self._service

    def stop(self) -> None:
        """End waiting for a service that puts calls off."""
        if self._service is not None:
            self._service.stop()

    def get_model_prefix(self) -> str:
        """What every type begins with."""
        return "justiam_"

    def full_name(self) -> str:
        """The provider's source."""
        return ADDRESS

    def get_provider_schema(self, diags: Diagnostics) -> Schema:
        """The provider block."""
        del diags
        return Schema([each.schema() for each in ARGUMENTS], version=0, description=DESCRIPTION)

    def validate_config(self, diags: Diagnostics, config: State) -> None:
        """Refuse what cannot be an address or a token."""
        for argument in ARGUMENTS:
            given = config.get(argument.name)
            for path, message in argument.problems(given):
                diags.add_error(f"Invalid value for {argument.name}", f"{message}.", path)
            if isinstance(given, str):
                _checked(diags, argument.name, given, [argument.name])

    def configure_provider(self, diags: Diagnostics, config: State) -> None:
        """Connect, and make sure that it is JustIAM and the token good: one error then, and not one a resource."""
        if any(config.get(name) is Unknown for name in ("endpoint", "token")):
            return
        values = {name: self._setting(diags, config, name) for name in _VARIABLES}
        if diags.has_errors():
            return
        timeout, retry = config.get("timeout_seconds"), config.get("retry_seconds")
        service = Service(
            values["endpoint"],
            values["token"],
            timeout_secs=timeout if isinstance(timeout, int) else TIMEOUT_SECS,
            retry_secs=retry if isinstance(retry, int) else RETRY_SECS,
        )
        try:
            service.check()
        except Failure as failure:
            unauthenticated = failure.code == "unauthenticated"
            summary = "JustIAM does not know the token" if unauthenticated else "Cannot use JustIAM"
            name = "token" if unauthenticated else "endpoint"
            diags.add_error(summary, failure.detail, [name] if config.get(name) is not None else None)
            return
        self._service = service

    def get_data_sources(self) -> list[type[iface.DataSource]]:
        """What can be looked up."""
        return list(data_sources.ALL)

    def get_resources(self) -> list[type[iface.Resource]]:
        """What can be managed."""
        return list(resources.ALL)

    @staticmethod
    def _setting(diags: Diagnostics, config: State, name: str) -> str:
        """An argument of the provider block, or else its variable."""
        given: Any = config.get(name)
        if given is not None:
            return _checked(diags, name, given, [name])
        value = os.environ.get(_VARIABLES[name])
        if not value:
            diags.add_error(
                f"The {name} of JustIAM is missing", f"Give {name} in the provider block, or set {_VARIABLES[name]}."
            )
            return ""
        return _checked(diags, name, value, None)


def _checked(diags: Diagnostics, name: str, value: str, path: list[Any] | None) -> str:
    if name not in _CHECKS:
        return value
    try:
        return _CHECKS[name](value)
    except Misconfigured as problem:
        diags.add_error(f"Invalid {name}" if path else f"Invalid {_VARIABLES[name]}", str(problem), path)
        return ""
