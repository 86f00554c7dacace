"""What a problem document, and an error of SCIM, must look like."""

from __future__ import annotations

from typing import Any

import httpx

CODES_OF_SCIM = {400: "validation_error", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 409: "in_use"}
"""What other clients are told by a code, SCIM's are told by a status."""


def check_problem(answer: httpx.Response, status: int | set[int], code: str | None = None) -> dict[str, Any]:
    """Hold an answer to RFC 9457 and to the code that is expected; of SCIM, to RFC 7644, section 3.12."""
    statuses = status if isinstance(status, set) else {status}
    if answer.request.url.path.startswith("/scim/"):
        return _check_error_of_scim(answer, {400 if each == 422 else each for each in statuses}, code)
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"].endswith(problem["code"])
    assert problem["title"]
    assert problem["detail"]
    if code is not None:
        assert problem["code"] == code, problem
    if answer.status_code == 422:
        assert problem["errors"]
        assert all(error["field"] and error["message"] for error in problem["errors"])
    return problem


def _check_error_of_scim(answer: httpx.Response, statuses: set[int], code: str | None) -> dict[str, Any]:
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/scim+json"
    error: dict[str, Any] = answer.json()
    assert error["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
    assert error["status"] == str(answer.status_code)
    assert error["detail"]
    assert error.keys() <= {"schemas", "status", "scimType", "detail"}
    typed = answer.status_code == 400 or (answer.status_code == 409 and answer.request.method != "DELETE")
    assert ("scimType" in error) == typed, error
    said = CODES_OF_SCIM.get(answer.status_code)
    if code is not None and said is not None:
        assert said == code, error
    return {**error, "code": said or str(answer.status_code), "errors": []}


def fields(answer: httpx.Response) -> set[str]:
    """The fields that a 422 names."""
    return {error["field"] for error in check_problem(answer, 422, "validation_error")["errors"]}
