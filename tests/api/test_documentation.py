"""The OpenAPI document is complete, and /docs needs nothing but this server."""

from __future__ import annotations

import re
from typing import Any

import pytest

from api.documentation import DESCRIPTION
from api.problems import MEDIA_TYPE
from tests.api.house import House
from tests.api.test_adversarial import OPENAPI, ROUTES

OPERATIONS = pytest.mark.parametrize(
    "operation", [operation for _, _, operation in ROUTES], ids=[f"{method} {path}" for method, path, _ in ROUTES]
)
SPECIFIED = [
    "GET /access-request-templates",
    "GET /access-request-templates/{template_id}",
    "POST /access-request-templates",
    "PUT /access-request-templates/{template_id}",
    "DELETE /access-request-templates/{template_id}",
    "GET /access-requests",
    "POST /access-requests",
    "GET /access-requests/pending",
    "GET /access-requests/all",
    "GET /access-requests/{request_id}",
    "POST /access-requests/{request_id}/approve",
    "POST /access-requests/{request_id}/deny",
    "POST /access-requests/{request_id}/revoke",
    "GET /access-requests/{request_id}/messages",
    "POST /access-requests/{request_id}/messages",
]


ERRORS = {"application/problem+json": "Problem", "application/scim+json": "ScimError"}


def _is_scim(operation: dict[str, Any]) -> bool:
    return bool(operation["tags"][0].startswith("SCIM"))


class TestOpenApi:
    @OPERATIONS
    def test_says_what_each_route_does(self, operation: dict[str, Any]) -> None:
        assert operation["summary"]
        assert operation["description"]
        assert len(operation["tags"]) == 1
        assert operation["security"] == [{"token": []}]

    @OPERATIONS
    def test_types_each_body_and_each_answer(self, operation: dict[str, Any]) -> None:
        if "requestBody" in operation:
            assert operation["requestBody"]["content"]["application/json"]["schema"]
        succeeding = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
        assert succeeding
        for status, answer in succeeding.items():
            if status != "204":
                media_type = "application/scim+json" if _is_scim(operation) else "application/json"
                assert answer["content"][media_type]["schema"]

    @OPERATIONS
    def test_documents_each_refusal_with_an_example(self, operation: dict[str, Any]) -> None:
        failing = {status: answer for status, answer in operation["responses"].items() if status[0] in "45"}
        invalid, media_type = ("400", "application/scim+json") if _is_scim(operation) else ("422", MEDIA_TYPE)
        assert {"401", invalid, "429", "503"} <= failing.keys()
        for status, answer in failing.items():
            content = answer["content"]
            assert list(content) == [media_type], "nothing but problem documents, and SCIM's errors"
            assert content[media_type]["schema"] == {"$ref": f"#/components/schemas/{ERRORS[media_type]}"}
            assert content[media_type]["examples"]
            for code, example in content[media_type]["examples"].items():
                assert _is_scim(operation) or example["value"]["code"] == code
                assert str(example["value"]["status"]) == status

    @OPERATIONS
    def test_describes_each_field_of_a_body_and_gives_an_example(self, operation: dict[str, Any]) -> None:
        for name in re.findall(r"#/components/schemas/(\w+)", str(operation.get("requestBody"))):
            schema = OPENAPI["components"]["schemas"][name]
            for field, described in schema["properties"].items():
                assert described.get("description"), f"{name}.{field}"
            assert schema.get("examples") or any("examples" in field for field in schema["properties"].values())

    @OPERATIONS
    def test_describes_each_parameter_of_a_query(self, operation: dict[str, Any]) -> None:
        for parameter in operation.get("parameters", []):
            assert parameter["in"] == "path" or parameter["description"], parameter["name"]

    def test_refers_to_nothing_that_is_missing(self) -> None:
        for name in re.findall(r"#/components/schemas/([\w-]+)", str(OPENAPI)):
            assert name in OPENAPI["components"]["schemas"]
        assert "HTTPValidationError" not in OPENAPI["components"]["schemas"]

    def test_names_operations_tidily(self) -> None:
        names = [operation["operationId"] for _, _, operation in ROUTES]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z_]+", name) for name in names)

    @OPERATIONS
    def test_says_of_a_body_that_it_can_be_too_large_or_no_json(self, operation: dict[str, Any]) -> None:
        assert ({"413", "415"} <= operation["responses"].keys()) == ("requestBody" in operation)

    @OPERATIONS
    def test_documents_the_headers_that_come_with_an_answer(self, operation: dict[str, Any]) -> None:
        headers = {status: set(answer.get("headers", {})) for status, answer in operation["responses"].items()}
        assert headers["401"] == {"WWW-Authenticate"}
        assert headers["429"] == headers["503"] == {"Retry-After"}
        assert headers.get("202", {"Preference-Applied"}) == {"Preference-Applied"}
        assert ("Location" in headers.get("201", ())) == bool(operation["responses"].get("201", {}).get("links"))

    def test_links_what_was_made_to_what_can_be_done_with_it(self) -> None:
        made = {operation["operationId"]: operation["responses"].get("201", {}) for _, _, operation in ROUTES}
        assert set(made["submit_request"]["links"]) == {
            "get_request",
            "approve_request",
            "deny_request",
            "revoke_request",
            "create_signal_proof",
            "list_timeline",
            "list_messages",
            "list_request_runs",
            "add_message",
        }
        linked = {name for answer in made.values() for name in answer.get("links", {})}
        made_elsewhere = {"get_scim_resource_type", "get_scim_schema"}
        assert linked == {operation["operationId"] for _, path, operation in ROUTES if "{" in path} - made_elsewhere

    def test_links_to_parameters_that_exist(self) -> None:
        operations = {operation["operationId"]: operation for _, _, operation in ROUTES}
        for operation in operations.values():
            for link in operation["responses"].get("201", {}).get("links", {}).values():
                names = {each["name"] for each in operations[link["operationId"]]["parameters"] if each["in"] == "path"}
                assert set(link["parameters"]) <= names

    def test_explains_each_tag_that_is_used(self) -> None:
        explained = {tag["name"] for tag in OPENAPI["tags"] if tag["description"]}
        assert {operation["tags"][0] for _, _, operation in ROUTES} == explained

    @pytest.mark.parametrize("route", SPECIFIED)
    def test_has_every_route_of_the_specification(self, route: str) -> None:
        assert route in {f"{method} {path}" for method, path, _ in ROUTES}

    def test_the_tour_leads_to_operations_that_exist(self) -> None:
        there = {(operation["tags"][0].replace(" ", "%20"), operation["operationId"]) for _, _, operation in ROUTES}
        led_to = re.findall(r"\(#/([^/]+)/(\w+)\)", DESCRIPTION)
        assert len(led_to) >= 7
        assert set(led_to) <= there


class TestDocs:
    async def test_needs_nothing_but_this_server(self, standing_house: House) -> None:
        page = await standing_house.client.get("/docs")
        assert page.status_code == 200
        assert "https://" not in page.text
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "<script>" not in page.text, "the policy would refuse it"
        sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(sources) == 4
        for source in sources:
            assert (await standing_house.client.get(source)).status_code == 200, source

    async def test_the_start_script_points_to_the_document(self, standing_house: House) -> None:
        script = (await standing_house.client.get("/docs/start.js")).text
        assert 'url: "/openapi.json"' in script
        assert (await standing_house.client.get("/openapi.json")).json() == OPENAPI
