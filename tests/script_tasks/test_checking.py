"""What is said against a script before it is saved, and what is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.tasks import Language, infer_language
from script_tasks import checking
from script_tasks.checking import mistake
from tests.script_tasks.test_running import of_the_specification

ROOT = Path(__file__).parents[2]
RUN = "\ndef run(): ...\n"
GO = 'package task\n\nfunc Run() (string, error) { return "", nil }\n'


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("def run(:", "line 1, column 9: invalid syntax"),
        ("\ufeffdef run(:", "line 1, column 9: invalid syntax"),
        ("def run():\r\n    return 1\r\n   x", "line 3, column 5: unindent does not match any outer indentation level"),
        ("x = “1”" + RUN, "line 1, column 5: invalid character '“' (U+201C)"),
        ("return 1" + RUN, "line 1, column 1: 'return' outside function"),
        ("x = 1", "must define a function run() at its top level"),
        (" ", "must define a function run() at its top level"),
        ("class Task:\n    def run(self): ...\n", "must define a function run() at its top level"),
        ("def main():\n    run = 1\n", "must define a function run() at its top level"),
        ("(" * 60_000, "line 1, column 201: too many nested parentheses"),
    ],
)
async def test_python_that_cannot_run_is_refused_with_line_and_column(script: str, sentence: str) -> None:
    assert await mistake(script, Language.PYTHON) == sentence


@pytest.mark.parametrize(
    "script",
    [
        "async def run(): ...",
        "run = lambda: 1",
        "try:\n    from subprocess import run\nexcept ImportError:\n    pass\n",
        "from asyncio import *",
        "def main():\n    global run\n    def run(): ...\nmain()",
        "globals()['ru' + 'n'] = print",
        "import task\nsetattr(task, 'run', print)",
        "if True:\n    class run: ...\n",
        # An old literal, of which Python warns.
        "x = '\\d'" + RUN,
        "import nothing_that_is_here" + RUN,
        # What Python gives up on, in a process of its own.
        "x = " + "-" * 90_000 + "1" + RUN,
        "x = a" + "()" * 40_000 + RUN,
        "x = " + "not " * 20_000 + "1" + RUN,
    ],
)
async def test_nothing_is_said_against_python_that_may_run(script: str) -> None:
    assert await mistake(script, Language.PYTHON) is None


async def test_a_check_that_fails_or_takes_too_long_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_PYTHON", "import os; os.kill(os.getpid(), 11)")
    assert await mistake("def run(:", Language.PYTHON) is None
    monkeypatch.setattr(checking, "_PYTHON", "while True: pass")
    monkeypatch.setattr(checking, "_SECONDS", 0.2)
    assert await mistake("def run(:", Language.PYTHON) is None
    async with asyncio.timeout(20), checking._AT_A_TIME, checking._AT_A_TIME:
        assert await mistake("def run(:", Language.PYTHON) is None


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("package main\n\nfunc main() {}\n", "line 1, column 9: the package must be `task`, not `main`"),
        ("\ufeff// It logs.\r\npackage tasks", "line 2, column 9: the package must be `task`, not `tasks`"),
        ("def run(): ...", "line 1, column 1: must begin with `package task`"),
        ("package", "line 1, column 1: must begin with `package task`"),
        ("// package task\n", "line 1, column 1: must begin with `package task`"),
        ("package task\n\n// func Run() (string, error)\n", "line 1, column 9: must define func Run() (string, error)"),
        ("package task\ntype T int\nfunc (T) Run() (string, error) {}", "line 1, column 9: must define func Run"),
        ("package task\nfunc Run() {}", "line 2, column 6: must define func Run() (string, error)"),
        ("package task\nfunc Run() error { return nil }", "line 2, column 6: must define func Run() (string, error)"),
        ("package task\nfunc run() (string, error) {}", "line 1, column 9: must define func Run() (string, error)"),
        ("package task\n\nfunc Run( {", "line 3, column 11: { is never closed"),
        (GO + "}", "line 4, column 1: unexpected }, there is no bracket to close"),
        (GO + "var x = [3}", "line 4, column 11: unexpected }, expected ]"),
        (GO + 'var x = "open\n', "line 4, column 9: string literal not terminated"),
        (GO + "var x = `open\n", "line 4, column 9: raw string literal not terminated"),
        (GO + "var x = 'a\n", "line 4, column 9: rune literal not terminated"),
        (GO + "/* open", "line 4, column 1: comment not terminated"),
        (GO + "var x = “1”", "line 4, column 9: invalid character U+201C '“'"),
        (GO + "# comment", "line 4, column 1: invalid character U+0023 '#'"),
    ],
)
async def test_go_that_cannot_run_is_refused_with_line_and_column(script: str, sentence: str) -> None:
    assert (await mistake(script, Language.GO) or "").startswith(sentence)


@pytest.mark.parametrize(
    "script",
    [
        GO,
        "\ufeff" + GO.replace("\n", "\r\n"),
        "#!gorun\n" + GO,
        'package // ours\ntask; func Run(_ ...int) (out string, err error) { return `}"`, nil }',
        'package task\nvar Run = func() (string, error) { return "\\"}", nil }',
        "package task\nvar (\n\tRun = run\n)\nfunc run() (string, error) { return string('\\''), nil }",
        GO + "var größe = map[string][]rune{\"a\": {'{', '\\\\'}} // }\n/* { */",
    ],
)
async def test_nothing_is_said_against_go_that_may_run(script: str) -> None:
    assert await mistake(script, Language.GO) is None


async def test_nothing_is_said_against_the_scripts_that_are_shown() -> None:
    shown = [path.read_text() for path in (ROOT / "scripts").iterdir() if path.suffix in {".go", ".py"}]
    runtime = (ROOT / "script_tasks" / "go_runtime").rglob("*.go.txt")
    assert len(shown) >= 4
    for script in [*shown, *of_the_specification()]:
        assert await mistake(script, infer_language(script)) is None
    for path in runtime:
        # No tasks, but Go: nothing is said against anything but what tasks have.
        said = await mistake(path.read_text(), Language.GO) or ""
        assert "the package must be" in said


@given(st.text(st.sampled_from("packgetsk funcR()(){}[]`\"'/*\\\n;:=,.1_é“#"), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_judged(text: str) -> None:
    assert checking._go_mistake(text) is not None
