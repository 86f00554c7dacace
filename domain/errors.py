"""The ways in which the service says no, free of HTTP and of Temporal.

Every error has one stable `code`. The code is the `code` of a problem document (RFC 9457), the `type` of an
`ApplicationError` on its way through Temporal and what the command line prints, so that nobody ever has to branch on a
message.
"""

from __future__ import annotations

from typing import ClassVar


class AccessError(Exception):
    """Base of everything the service refuses; `detail` is written for the person who has to act on it."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Unauthenticated(AccessError):
    """No bearer token, or one that is unknown, expired, revoked or belongs to somebody deactivated."""

    code = "unauthenticated"


class Forbidden(AccessError):
    """The caller is known and may not do this."""

    code = "forbidden"


class NotFound(AccessError):
    """There is no such thing, or none that the caller could know of."""

    code = "not_found"


class PendingRequestExists(AccessError):
    """One person has at most one pending request per template (specification, Submit a request)."""

    code = "pending_request_exists"


class RequestNotPending(AccessError):
    """The request was decided or cancelled before this decision arrived."""

    code = "request_not_pending"


class RequestNotActive(AccessError):
    """The request is over: nothing is left that could be revoked."""

    code = "request_not_active"


class DecisionInProgress(AccessError):
    """Another approval of the same request is being carried out at this moment."""

    code = "decision_in_progress"


class TriggerTaskFailed(AccessError):
    """The task that has to succeed before the approval did not (specification, Failure modes); nothing has changed."""

    code = "trigger_task_failed"


class TemplateInUse(AccessError):
    """A template with pending or approved requests cannot be deleted (specification, Template Deletion)."""

    code = "template_in_use"


class SystemGroup(AccessError):
    """Temporary groups belong to their request; no directory route reads or changes them."""

    code = "system_group"


class InUse(AccessError):
    """Something else depends on this; the detail says what."""

    code = "in_use"


class ChangedMeanwhile(AccessError):
    """The thing is not in the version that the caller read (If-Match); nothing has changed."""

    code = "changed_meanwhile"


class SecretUnreadable(AccessError):
    """A stored secret cannot be decrypted with the keys that the service has; the detail says what to do."""

    code = "secret_unreadable"


class OrchestratorUnavailable(AccessError):
    """Temporal could not be reached or did not answer in time; the call may be repeated."""

    code = "orchestrator_unavailable"


class RecordUnavailable(AccessError):
    """PostgreSQL could not be reached or did not answer in time; the call may be repeated."""

    code = "record_unavailable"


class IssuerUnavailable(AccessError):
    """An OpenID Connect issuer could not be asked for its keys; the call may be repeated."""

    code = "issuer_unavailable"


class TooManyCalls(AccessError):
    """The caller sends more than it may; what was refused was not begun."""

    code = "too_many_calls"

    def __init__(self, detail: str, retry_after_secs: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_secs = retry_after_secs


class Invalid(AccessError):
    """The input breaks a rule; `errors` names each field and says what would be accepted."""

    code = "validation_error"

    def __init__(self, *errors: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in errors))
        self.errors = errors


def _all_errors(base: type[AccessError]) -> dict[str, type[AccessError]]:
    found = {}
    for kind in base.__subclasses__():
        found[kind.code] = kind
        found.update(_all_errors(kind))
    return found


ERRORS_BY_CODE: dict[str, type[AccessError]] = _all_errors(AccessError)


def refusal(code: str, detail: str) -> AccessError:
    """The error that carries `code`, rebuilt from its name, for example from an `ApplicationError.type`."""
    kind = ERRORS_BY_CODE.get(code, AccessError)
    return Invalid(("", detail)) if kind is Invalid else kind(detail)
