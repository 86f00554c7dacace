"""oidc-provider-mock as a program, with what it lacks for programs of people: clients without a secret, and PKCE.

Both are authlib's, on which it stands.
"""

from __future__ import annotations

from typing import Any, Final

import oidc_provider_mock._app as mock  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import CodeChallenge  # type: ignore[import-untyped]
from oidc_provider_mock.__main__ import run  # type: ignore[import-untyped]

_GRANT: Final[Any] = mock.AuthorizationCodeGrant
_challenges: Final[dict[str, tuple[str, str]]] = {}


def _add_pkce() -> None:
    prepare, save = _GRANT.__init__, _GRANT.save_authorization_code
    challenge = CodeChallenge(required=True)
    challenge.get_authorization_code_challenge = lambda code: _challenges[code.code][0]
    challenge.get_authorization_code_challenge_method = lambda code: _challenges[code.code][1]

    def prepared(grant: Any, *arguments: Any) -> None:
        prepare(grant, *arguments)
        challenge(grant)

    def saved(grant: Any, code: str, request: Any) -> None:
        asked = request.payload.data
        _challenges[code] = (asked["code_challenge"], asked["code_challenge_method"])
        save(grant, code, request)

    _GRANT.__init__, _GRANT.save_authorization_code = prepared, saved


if __name__ == "__main__":
    _GRANT.TOKEN_ENDPOINT_AUTH_METHODS = ["none"]
    _add_pkce()
    run()
