"""What a problem document must look like."""

from __future__ import annotations

from typing import Any

import httpx


def check_problem(answer: httpx.Response, status: int | set[int], code: str | None = None) -> dict[str, Any]:
    """Hold an answer to RFC 9457 and to the code that is expected."""
    statuses = status if isinstance(status, set) else {status}
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


def fields(answer: httpx.Response) -> set[str]:
    """The fields that a 422 names."""
    return {error["field"] for error in check_problem(answer, 422, "validation_error")["errors"]}
