"""Whatever is sent to any route is answered with a problem document, and never with a 500."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from api.app import create_app
from db.database import Database
from tests.api.house import MAX_BODY_BYTES, House, open_without_database, settings
from tests.api.problem import check_problem

OPENAPI = create_app(settings("postgresql://nowhere/justiam")).openapi()
ROUTES = [
    (method.upper(), path.removeprefix("/api/v1"), operation)
    for path, operations in OPENAPI["paths"].items()
    for method, operation in operations.items()
]


def _each(routes: list[tuple[str, str, dict[str, Any]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("method", "path"),
        [(method, path) for method, path, _ in routes],
        ids=[f"{method} {path}" for method, path, _ in routes],
    )


def _filled(path: str, value: str | None = None) -> str:
    """`path` with something in place of its parameters."""
    parts = [(value or str(uuid4())) if part.startswith("{") else part for part in path.split("/")]
    return "/".join(parts)


EVERY_ROUTE = _each(ROUTES)
EVERY_BODY = _each([route for route in ROUTES if "requestBody" in route[2]])
EVERY_ID = _each([route for route in ROUTES if "{" in route[1]])
WITH_QUERY = [
    (method, path, parameter["name"])
    for method, path, operation in ROUTES
    for parameter in operation.get("parameters", [])
    if parameter["in"] == "query"
]
EVERY_PARAMETER = pytest.mark.parametrize(
    ("method", "path", "parameter"), WITH_QUERY, ids=[f"{method} {path} {name}" for method, path, name in WITH_QUERY]
)

NOT_JSON = {
    "nothing like JSON": b"<xml/>",
    "cut off": b'{"name": "x',
    "invalid UTF-8": b'{"name": "\xff\xfe"}',
    "nested too deep to parse": b"[" * 30_000,
    "nested too deep to parse, closed": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "an integer too long to parse": b'{"name": ' + b"9" * 10_000 + b"}",
}
NOT_ACCEPTABLE = {
    "a list": [],
    "a text": "name",
    "a number": 7,
    "an unknown field": {"surprise": 1},
    "a status that only the service sets": {
        "status": "approved",
        "decided_by": "x",
        "expires_at": "2999-01-01T00:00:00Z",
    },
    "nested deeper than anything of ours": {"name": json.loads("[" * 40 + "]" * 40)},
    "a NUL": {
        "name": "a\x00b",
        "justification": "\x00",
        "comment": "\x00",
        "body": "\x00",
        "email": "\x00@example.com",
    },
    "a lone surrogate": {"name": "\ud800", "justification": "\ud800", "comment": "\ud800", "body": "\ud800"},
    "a lone surrogate in a field's name": {"\ud800": 1},
    "a NUL in a field's name": {"a\x00": 1},
    "a field's name as long as a body": {"a" * 60_000: 1},
    "thousands of unknown fields": {f"field{number}": number for number in range(3_000)},
    "numbers out of this world": {"name": 1e308, "requested_duration_mins": 10**30, "expires_in_days": -(10**30)},
    "NaN": {"name": float("nan"), "requested_duration_mins": float("nan"), "expires_in_days": float("nan")},
    "Infinity": {"name": float("inf"), "requested_duration_mins": float("inf"), "expires_in_days": float("-inf")},
    "wrong types": {
        key: {"not": ["this"]}
        for schema in OPENAPI["components"]["schemas"].values()
        for key in schema.get("properties", {})
    },
}


class TestAuthentication:
    @EVERY_ROUTE
    async def test_no_route_answers_without_a_token(self, standing_house: House, method: str, path: str) -> None:
        answer = await standing_house.call(method, _filled(path))
        check_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        "header",
        [
            b"",
            b"Bearer",
            b"Bearer ",
            b"Basic cm9vdDpyb290",
            b"Bearer justiam_" + b"A" * 43,
            b"Bearer justiam_",
            b"Bearer \xff\xfe\x00",
            b"Bearer " + b"A" * 60_000,
            b"Bearer a.b.c",
            b"Bearer {token} {token}",
            b"{token}",
            b"Token {token}",
        ],
        ids=repr,
    )
    async def test_garbage_in_the_header_is_no_token(self, standing_house: House, header: bytes) -> None:
        value = header.replace(b"{token}", standing_house.admin.token.encode())
        answer = await standing_house.client.get("/api/v1/users/me", headers=[(b"Authorization", value)])
        check_problem(answer, 401, "unauthenticated")

    async def test_two_headers_are_refused_even_if_both_are_valid(self, standing_house: House) -> None:
        header = (b"Authorization", f"Bearer {standing_house.admin.token}".encode())
        answer = await standing_house.client.get("/api/v1/users/me", headers=[header, header])
        check_problem(answer, 401, "unauthenticated")

    async def test_a_token_in_the_query_string_is_no_token(self, standing_house: House) -> None:
        answer = await standing_house.client.get(f"/api/v1/users/me?access_token={standing_house.admin.token}")
        check_problem(answer, 401, "unauthenticated")

    async def test_the_scheme_counts_in_any_case(self, standing_house: House) -> None:
        headers = {"Authorization": f"bEARER {standing_house.admin.token}"}
        assert (await standing_house.client.get("/api/v1/users/me", headers=headers)).status_code == 200


class TestBodies:
    @EVERY_BODY
    @pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
    async def test_what_is_not_json_is_refused(
        self, standing_house: House, method: str, path: str, body: bytes
    ) -> None:
        headers = {"Content-Type": "application/json"}
        answer = await standing_house.call(method, _filled(path), standing_house.admin, content=body, headers=headers)
        check_problem(answer, 422, "validation_error")

    @EVERY_BODY
    @pytest.mark.parametrize("body", NOT_ACCEPTABLE.values(), ids=NOT_ACCEPTABLE.keys())
    async def test_what_does_not_fit_is_refused(
        self, standing_house: House, method: str, path: str, body: object
    ) -> None:
        answer = await standing_house.call(
            method,
            _filled(path),
            standing_house.admin,
            content=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if (method, path) == ("PUT", "/scim/v2/Users/{user_id}"):
            # A deactivation may come with less than a user has: what is missing is looked up first.
            check_problem(answer, {404, 422})
            return
        problem = check_problem(answer, 422, "validation_error")
        assert len(answer.content) < 40_000, "the answer grows with what was sent"
        assert len(problem["errors"]) <= 50

    @pytest.mark.parametrize("values", [b"NaN", b'"\\u0000"', b'{"\\u0000":1}'], ids=["NaN", "NUL", "a NUL in a name"])
    @pytest.mark.parametrize("name", [b"a" * 30_000, b"a" * 200], ids=["a long name", "an ordinary name"])
    async def test_what_is_wrong_below_a_name_is_not_kept_with_it_over_and_over(
        self, standing_house: House, name: bytes, values: bytes
    ) -> None:
        body = b'{"' + name + b'":[' + b",".join([values] * ((MAX_BODY_BYTES - 31_000) // (len(values) + 1))) + b"]}"
        tracemalloc.start()
        try:
            answer = await standing_house.call(
                "POST", "/groups", standing_house.admin, content=body, headers={"Content-Type": "application/json"}
            )
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(check_problem(answer, 422, "validation_error")["errors"]) <= 50
        assert most < 100 * MAX_BODY_BYTES, "what a body takes grows with its square"

    @EVERY_BODY
    async def test_more_than_anything_of_ours_has_is_refused_before_it_is_looked_at(
        self, standing_house: House, method: str, path: str
    ) -> None:
        for body, message in (
            ({f"field{number}": 1 for number in range(201)}, "has more than 200 fields"),
            ({"name": [1] * 12_000}, "has more than 12000 values"),
        ):
            answer = await standing_house.call(method, _filled(path), standing_house.admin, json=body)
            problem = check_problem(answer, 422, "validation_error")
            assert problem["detail"] == f"body: {message}"

    @pytest.mark.parametrize("path", ["/groups", "/access-requests", "/scim/v2/Groups"])
    async def test_a_name_that_comes_twice_in_an_object_is_refused(self, standing_house: House, path: str) -> None:
        for body in ('{"name": "a", "name": "b"}', '{"custom_answers": {"name": "a", "x": [], "name": "a"}}'):
            answer = await standing_house.call(
                "POST", path, standing_house.admin, content=body, headers={"Content-Type": "application/json"}
            )
            check_problem(answer, 422)
            assert '"name\\" more than once' in answer.text

    @EVERY_BODY
    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "a/b/c;;;", "ÿ"]
    )
    async def test_what_is_not_declared_as_json_is_refused(
        self, standing_house: House, method: str, path: str, content_type: str
    ) -> None:
        headers = {"Content-Type": content_type.encode("latin-1")}
        answer = await standing_house.call(method, _filled(path), standing_house.admin, content=b"{}", headers=headers)
        check_problem(answer, 415, "unsupported_media_type")

    @EVERY_BODY
    async def test_a_body_that_is_too_large_is_refused(self, standing_house: House, method: str, path: str) -> None:
        body = b'{"name": "' + b"a" * MAX_BODY_BYTES + b'"}'
        answer = await standing_house.call(
            method, _filled(path), standing_house.admin, content=body, headers={"Content-Type": "application/json"}
        )
        check_problem(answer, 413, "payload_too_large")

    @EVERY_BODY
    async def test_a_body_that_is_too_large_is_refused_also_where_its_length_was_not_declared(
        self, standing_house: House, method: str, path: str
    ) -> None:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 1024
                yield b" " * 1024

        answer = await standing_house.call(
            method, _filled(path), standing_house.admin, content=endless(), headers={"Content-Type": "application/json"}
        )
        check_problem(answer, 413, "payload_too_large")
        assert sent <= MAX_BODY_BYTES + 2048

    async def test_a_body_of_exactly_the_limit_is_read(self, standing_house: House) -> None:
        body = b'{"name": "' + b"a" * (MAX_BODY_BYTES - 12) + b'"}'
        assert len(body) == MAX_BODY_BYTES
        headers = {"Content-Type": "application/json"}
        answer = await standing_house.call("POST", "/groups", standing_house.admin, content=body, headers=headers)
        check_problem(answer, 422, "validation_error")

    async def test_a_body_is_not_asked_for_twice_in_json_with_a_charset(self, standing_house: House) -> None:
        answer = await standing_house.call(
            "POST",
            "/groups",
            standing_house.admin,
            content=b'{"name": "charset"}',
            headers={"Content-Type": "application/json; charset=utf-8"},
        )
        assert answer.status_code == 201, answer.text

    async def test_a_message_keeps_its_abbreviations(self, standing_house: House) -> None:
        for sent, message in {
            "{}": "is required",
            '{"template_id": 7}': "UUID input should be a string, bytes or UUID object",
            '{"template_id": "7"}': "must be a valid UUID, invalid length: found 1",
        }.items():
            headers = {"Content-Type": "application/json"}
            answer = await standing_house.call(
                "POST", "/access-requests", standing_house.admin, content=sent.encode(), headers=headers
            )
            errors = check_problem(answer, 422)["errors"]
            assert {"field": "template_id", "message": message} in errors

    @pytest.mark.parametrize("key", ["", "k" * 201, "k" * 1_000], ids=["none", "one too many", "far too many"])
    async def test_an_idempotency_key_has_1_to_200_characters(self, standing_house: House, key: str) -> None:
        headers = {"Idempotency-Key": key}
        answer = await standing_house.call("POST", "/access-requests", standing_house.admin, json={}, headers=headers)
        (message,) = [
            error["message"] for error in check_problem(answer, 422)["errors"] if error["field"] == "idempotency-key"
        ]
        assert message in {"string should have at least 1 character", "string should have at most 200 characters"}


class TestPaths:
    @EVERY_ID
    @pytest.mark.parametrize("value", ["x", "%00", "%FF", "1", "null", "0" * 5_000, "%F0%9F%94%91", "{}", "a b"])
    async def test_what_is_no_uuid_is_refused(self, standing_house: House, method: str, path: str, value: str) -> None:
        answer = await standing_house.call(method, _filled(path, value), standing_house.admin)
        check_problem(answer, {404, 422})

    @EVERY_ID
    async def test_what_does_not_exist_is_not_found(self, standing_house: House, method: str, path: str) -> None:
        if method in {"GET", "DELETE"}:
            query = f"?app_id={uuid4()}" if path.endswith("mapping-values") else ""
            answer = await standing_house.call(method, _filled(path) + query, standing_house.admin)
            check_problem(answer, 404, "not_found")

    @pytest.mark.parametrize(
        "path", ["/", "/api/v1", "/api/v1/", "/api/v1/groups/", "/api/v2/groups", "/%00", "/docs/"]
    )
    async def test_unknown_paths_are_not_found(self, standing_house: House, path: str) -> None:
        headers = {"Authorization": f"Bearer {standing_house.admin.token}"}
        check_problem(await standing_house.client.get(path, headers=headers), 404, "not_found")

    async def test_an_unknown_method_is_not_allowed(self, standing_house: House) -> None:
        answer = await standing_house.call("PATCH", "/groups", standing_house.admin)
        check_problem(answer, 405, "method_not_allowed")
        assert "GET" in answer.headers["allow"]

    async def test_what_is_allowed_is_named_in_full(self, standing_house: House) -> None:
        for path, allowed in {
            "/groups": "GET, HEAD, POST",
            f"/groups/{uuid4()}": "DELETE, GET, HEAD, PUT",
            f"/groups/{uuid4()}/members/{uuid4()}": "DELETE, PUT",
            f"/access-requests/{uuid4()}/approve": "POST",
        }.items():
            answer = await standing_house.call("PATCH", path, standing_house.admin)
            assert allowed in check_problem(answer, 405, "method_not_allowed")["detail"]
            assert answer.headers["allow"] == allowed

    async def test_what_is_not_of_the_api_says_what_it_answers_to_as_well(self, standing_house: House) -> None:
        for path, allowed in {
            "/healthz": "GET, HEAD",
            "/docs": "GET, HEAD",
            "/docs/assets/swagger-ui.css": "GET, HEAD",
        }.items():
            answer = await standing_house.client.delete(path)
            assert answer.headers["allow"] == allowed

    async def test_a_garbled_host_header_is_harmless(self, standing_house: House) -> None:
        answer = await standing_house.call("GET", "/nowhere", standing_house.admin, headers={"Host": "[::"})
        check_problem(answer, 404, "not_found")


class TestQueries:
    @EVERY_PARAMETER
    @pytest.mark.parametrize(
        "value", ["%00", "%FF%FE", "a" * 10_000, "%F0%9F%94%91", "-1", "99999999999999999999", "x;y"]
    )
    async def test_garbage_is_refused_or_finds_nothing(
        self, standing_house: House, method: str, path: str, parameter: str, value: str
    ) -> None:
        answer = await standing_house.call(method, f"{_filled(path)}?{parameter}={value}", standing_house.admin)
        if answer.status_code == 200 and path.startswith("/scim/"):
            # To SCIM, less than the least is the least, and more than the most is the most.
            assert parameter in {"startIndex", "count"} or answer.json()["totalResults"] == 0
        elif answer.status_code == 200:
            assert answer.json()["items"] == []
        else:
            check_problem(answer, {404, 422})

    @pytest.mark.parametrize(
        "cursor", ["x", "AAAA", "%00", "MjAyNi0wMS0wMXx4", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5fA==", "é"]
    )
    async def test_a_cursor_of_nobody_is_refused(self, standing_house: House, cursor: str) -> None:
        answer = await standing_house.call("GET", f"/groups?cursor={cursor}", standing_house.admin)
        assert check_problem(answer, 422)["errors"][0]["field"] == "cursor"

    async def test_a_parameter_that_no_route_knows_selects_nothing(self, standing_house: House) -> None:
        for query, said in {
            "state=pending": "is not a known query parameter; did you mean `status`?",
            "Status=pending": "is not a known query parameter; did you mean `status`?",
            "zzz=1": "is not a known query parameter; there are",
            "status=pending&status=denied": "is given more than once; give it once",
            "status=pending&status=pending": "is given more than once; give it once",
            "limit=1&&limit=2": "is given more than once; give it once",
            "%00=1": "is not a known query parameter; there are",
            "x" * 5_000: "is not a known query parameter; there are",
            "&".join(f"status{number}=" for number in range(3_000)): "is not a known query parameter; did you mean",
        }.items():
            answer = await standing_house.call("GET", f"/access-requests/all?{query}", standing_house.admin)
            (error, *more) = check_problem(answer, 422, "validation_error")["errors"]
            assert error["message"].startswith(said)
            assert len(more) < 50

    @EVERY_ROUTE
    async def test_every_route_holds_its_query_to_what_it_declares(
        self, standing_house: House, method: str, path: str
    ) -> None:
        answer = await standing_house.call(method, f"{_filled(path)}?surely_nothing=1", standing_house.admin)
        if path.startswith("/scim/") or "temporal-codec" in path:
            # Foreign clients send parameters of their own.
            assert "surely_nothing" not in answer.text.replace(str(answer.request.url), "")
        else:
            named = [error["field"] for error in check_problem(answer, {404, 422}).get("errors", [])]
            assert "surely_nothing" in named

    async def test_scim_takes_no_parameter_twice_and_ignores_those_of_others(self, standing_house: House) -> None:
        twice = "/scim/v2/Users?startIndex=1&startIndex=2"
        check_problem(await standing_house.call("GET", twice, standing_house.admin), 422)
        others = "/scim/v2/Users?aadOptscim062020&sortBy=userName&count=1"
        assert (await standing_house.call("GET", others, standing_house.admin)).status_code == 200

    async def test_no_header_makes_a_call_fail(self, standing_house: House) -> None:
        odd = (b"\xff\xfe", b"\xed\xa0\x80", b"x" * 9_000, b"[", b"%00", b";,=\"'", b"\xe2\x80\xae")
        for name in (
            b"Idempotency-Key",
            b"Prefer",
            b"Traceparent",
            b"Tracestate",
            b"Host",
            b"Origin",
            b"If-Match",
            b"Accept",
        ):
            for value in odd:
                answer = await standing_house.client.post(
                    f"/api/v1/access-requests/{uuid4()}/approve",
                    headers={b"Authorization": f"Bearer {standing_house.admin.token}".encode(), name: value},
                )
                check_problem(answer, {404, 412, 422})

    @pytest.mark.parametrize("limit", ["0", "201", "-1", "x", "1e3", "", "NaN"])
    async def test_a_page_has_1_to_200_items(self, standing_house: House, limit: str) -> None:
        answer = await standing_house.call("GET", f"/groups?limit={limit}", standing_house.admin)
        assert check_problem(answer, 422)["errors"][0]["field"] == "limit"


class TestFailures:
    async def test_an_unreachable_database_is_a_503_that_says_to_try_again(self) -> None:
        async with open_without_database() as client:
            answer = await client.get("/api/v1/users/me", headers={"Authorization": "Bearer justiam_x"})
            check_problem(answer, 503, "record_unavailable")
            assert answer.headers["retry-after"]
            assert (await client.get("/healthz")).json() == {"status": "ok"}

    async def test_a_bug_is_a_500_that_gives_nothing_away(
        self, standing_house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("the password is hunter2")

        monkeypatch.setattr("db.groups.list_groups", broken)
        answer = await standing_house.call("GET", "/groups", standing_house.admin)
        problem = check_problem(answer, 500, "internal_error")
        assert "hunter2" not in answer.text
        assert "ZeroDivision" not in answer.text
        assert problem["instance"] == "/api/v1/groups"

    async def test_no_call_holds_a_connection_while_it_waits_for_another(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dana = await house.person("dana")
        template = await house.template()
        sent = {"template_id": str(template.id), "requested_duration_mins": 60, "justification": "an incident"}
        user = {"email": dana.email, "name": "Dana", "active": False}
        async with Database(house.url, max_connections=1) as narrow:
            monkeypatch.setattr(house.app.state, "database", narrow)
            answers = await asyncio.gather(
                *(
                    house.call("GET", path.partition("{")[0].rstrip("/"), house.admin)
                    for method, path, _ in ROUTES
                    if method == "GET"
                ),
                *(house.call("POST", "/groups", house.admin, json={"name": f"group {number}"}) for number in range(5)),
                *(house.call("POST", "/api-tokens", dana, json={"name": "laptop"}) for _ in range(5)),
                *(house.call("POST", "/access-requests", dana, json=sent) for _ in range(5)),
            )
            answers.append(await house.call("PUT", f"/users/{dana.id}", house.admin, json=user))
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 201, 409}

    async def test_no_answer_is_kept_by_caches(self, standing_house: House) -> None:
        for answer in (
            await standing_house.call("GET", "/groups", standing_house.admin),
            await standing_house.call("GET", "/groups"),
        ):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
