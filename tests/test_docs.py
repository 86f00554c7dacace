"""The documentation says what is so: links, files, routes, codes, commands and variables that it names exist."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

# Comes with pre-commit.
import yaml  # type: ignore[import-untyped]

from api import problems
from tests.documented import FENCE, ROOT, VARIABLE, blocks, command_problem, known_variables, routes

PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
EACH_PAGE: Final = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
EXAMPLES: Final = {"decide.py"}
"""Files that a reader is asked to make."""

LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE: Final = re.compile(r"[A-Za-z_.][\w.-]*(/[\w.-]+)*(/|\.(py|md|txt|toml|ya?ml|sh))")
API_PATH: Final = re.compile(r"(?:/api/v1|\$\{?API\}?)((?:/[\w{}$<>.-]+)*)")
TABLE_ROUTE: Final = re.compile(r"^\| (GET|POST|PUT|PATCH|DELETE) \| `(/[^`]*)` \|", re.MULTILINE)
NAMES: Final = {
    path.name for folder in ROOT.iterdir() if folder.is_dir() and folder.name[0] != "." for path in folder.rglob("*.*")
} | {path.name for path in ROOT.iterdir()}


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def code_spans(page: Path) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[list[str]]:
    """What is typed after `justiam`, in code spans and in shell blocks."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    for text in [*code_spans(page), *lines]:
        if match := re.match(r"(?:\S*/)?justiam(?: (.*))?$", text.strip()):
            typed = re.split(r"\s#|[;|>]| && ", match[1] or "")[0]
            yield typed.split()


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(alerts) > 10
    page = ROOT / "docs/operating.md"
    for alert in alerts:
        assert alert["annotations"]["runbook"] == f"docs/operating.md#{alert['alert'].lower()}"
        assert alert["alert"].lower() in anchors(page)
    sections = re.findall(r"^### (JustIAM\w+)$", page.read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(alert["alert"] for alert in alerts)


@EACH_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@EACH_PAGE
def test_files_exist(page: Path) -> None:
    for span in code_spans(page):
        if not FILE.fullmatch(span) or span.startswith(".justiam") or span in EXAMPLES:
            continue
        found = (ROOT / span).exists() or (page.parent / span).exists() or ("/" not in span and span in NAMES)
        assert found, span


@EACH_PAGE
def test_routes_exist(page: Path) -> None:
    known = {path for _, path in routes()}
    # A command that stands for a value is one segment.
    text = re.sub(r"\$\([^()]*\)", "{}", page.read_text())
    for rest in API_PATH.findall(text):
        path = re.sub(r"/(?:\$\w+|\$?\{\w*\}|<[^>]*>)", "/{}", rest.rstrip("."))
        assert not path or f"/api/v1{path}" in known, rest


def test_every_route_is_in_the_table() -> None:
    listed = TABLE_ROUTE.findall((ROOT / "docs/api.md").read_text())
    assert {(method, "/api/v1" + re.sub(r"\{\w+\}", "{}", path)) for method, path in listed} == {
        route for route in routes() if route[1].startswith("/api/v1/")
    }
    assert len(listed) == len(set(listed))


def test_every_route_of_scim_is_in_its_table() -> None:
    listed = TABLE_ROUTE.findall((ROOT / "docs/scim.md").read_text())
    assert {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in listed} == {
        route for route in routes() if route[1].startswith("/scim/v2/")
    }


def test_every_error_is_in_the_table() -> None:
    listed = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert {(int(status), code) for status, code in listed} == {
        (status, code) for code, (status, _, _) in problems._KINDS.items()
    }


@EACH_PAGE
def test_commands_exist(page: Path) -> None:
    for words in commands(page):
        assert command_problem(words) is None, " ".join(words)


@EACH_PAGE
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for span in [*code_spans(page), *(line for block in blocks(page, "sh") for line in block.splitlines())]:
        if match := re.match(r"make ([a-z-]+)", span):
            assert match[1] in targets, span


@EACH_PAGE
def test_variables_are_settings(page: Path) -> None:
    assert set(VARIABLE.findall(page.read_text())) <= known_variables()


@EACH_PAGE
def test_code_can_be_read(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)
    for block in blocks(page, "sh"):
        checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_every_threat_names_tests_that_there_are() -> None:
    rows = re.findall(r"^\| (?!what somebody|---)(.+) \|$", (ROOT / "docs/security.md").read_text(), re.MULTILINE)
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for path, name in named:
            assert re.search(rf"def {name}\(", (ROOT / path).read_text()), f"{path}::{name}"
