"""Checking a script before it is saved: whether it can be read at all, without running any of it.

A check refuses only what is certain to fail when the script runs. Where it cannot tell, the script is saved.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from domain.tasks import Language, package_clause, source_text

_log = structlog.get_logger(__name__)

_SECONDS: Final = 10.0
"""For one check of Python, waiting for others included; it takes 0.02 s for an ordinary script."""
_AT_A_TIME: Final = asyncio.Semaphore(2)
_LONGEST_SENTENCE_CHARS: Final = 500
_PYTHON: Final = """
import ast, json, resource, symtable, sys
for limit, most in ((resource.RLIMIT_CPU, 5), (resource.RLIMIT_AS, 256 * 1024**2), (resource.RLIMIT_CORE, 0)):
    hard = resource.getrlimit(limit)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (most, most))
source = sys.stdin.buffer.read().decode()


def tables(table):
    yield table
    for child in table.get_children():
        yield from tables(child)


def binds_run(table, top):
    if "run" not in table.get_identifiers():
        return False
    name = table.lookup("run")
    return (top or name.is_declared_global()) and (name.is_assigned() or name.is_imported())


def may_define_run():
    top = symtable.symtable(source, "task.py", "exec")
    if any(binds_run(table, table is top) for table in tables(top)):
        return True
    # What these do can be seen only by running them.
    if any({"exec", "globals", "locals", "setattr", "vars"} & set(table.get_identifiers()) for table in tables(top)):
        return True
    nodes = ast.walk(ast.parse(source))
    return any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in nodes)


try:
    compile(source, "task.py", "exec", dont_inherit=True)
    found = None if may_define_run() else [None, None, "must define a function run() at its top level"]
except SyntaxError as error:
    found = [error.lineno, error.offset, error.msg]
print(json.dumps(found))
"""
_GO_TOKEN: Final = re.compile(
    r"(?P<blank>\s+|//[^\n]*|/\*.*?\*/)"
    r'|(?P<literal>`[^`]*`|"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])+')"
    r"|(?P<open_comment>/\*)|(?P<open_raw>`)|(?P<open_string>\")|(?P<open_rune>')"
    r"|(?P<word>\w+)|(?P<opening>[({\[])|(?P<closing>[)}\]])|(?P<other>.)",
    re.DOTALL,
)
_NOT_TERMINATED: Final = {
    "open_comment": "comment not terminated",
    "open_raw": "raw string literal not terminated",
    "open_string": "string literal not terminated",
    "open_rune": "rune literal not terminated",
}
_CLOSED_BY: Final = {"(": ")", "{": "}", "[": "]"}
_NOT_IN_GO: Final = frozenset("#$?@\\")


async def mistake(script: str, language: Language) -> str | None:
    """Return why a script cannot run, with line and column where there are any; None where nothing speaks against it.

    Python is compiled by this process's version of it, in a process of its own with limits. Where that crashes or
    reaches a limit, nothing is said against the script. Go has no compiler here: its tokens, its brackets, its package
    and the declaration of Run are checked.
    """
    source = source_text(script, language)
    return _go_mistake(source) if language is Language.GO else await _python_mistake(source)


async def _python_mistake(source: str) -> str | None:
    try:
        async with asyncio.timeout(_SECONDS), _AT_A_TIME:
            found = await _compiled_apart(source)
    except (TimeoutError, OSError, ValueError) as error:
        _log.warning("script_not_checked", error=repr(error))
        return None
    return None if found is None else _sentence(*found)


async def _compiled_apart(source: str) -> tuple[int | None, int | None, str] | None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-W", "ignore", "-c", _PYTHON),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd="/",
        env={},
    )
    try:
        said, _ = await process.communicate(source.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        # Out of memory or too deep: this Python may refuse to run it too, or another may not.
        raise ValueError(f"the check ended with {process.returncode}")
    found: list[int | str | None] | None = json.loads(said)
    if found is None:
        return None
    line, column, sentence = found
    return _number(line), _number(column), str(sentence)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _sentence(line: int | None, column: int | None, sentence: str) -> str:
    where = [f"{name} {number}" for name, number in (("line", line), ("column", column)) if number is not None]
    return (", ".join(where) + ": " if where else "") + sentence[:_LONGEST_SENTENCE_CHARS]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int
    depth: int
    """How many brackets are open before it."""


class _Refused(Exception):
    def __init__(self, at: int, sentence: str) -> None:
        super().__init__(sentence)
        self.at = at
        self.sentence = sentence


def _go_mistake(source: str) -> str | None:
    try:
        _check_go(source)
    except _Refused as refused:
        before = source[: refused.at]
        return _sentence(before.count("\n") + 1, refused.at - before.rfind("\n"), refused.sentence)
    return None


def _go_tokens(source: str) -> Iterator[_Token]:
    """Yield the tokens of a Go file without blanks and comments.

    Raises:
        _Refused: a literal or a comment does not end, brackets do not fit, or a character has no place in Go.
    """
    opened: list[_Token] = []
    for found in _GO_TOKEN.finditer(source):
        kind, text, at = str(found.lastgroup), found[0], found.start()
        if kind == "blank":
            continue
        if kind in _NOT_TERMINATED:
            raise _Refused(at, _NOT_TERMINATED[kind])
        if kind == "other" and not _has_a_place_in_go(text):
            raise _Refused(at, f"invalid character U+{ord(text):04X} '{text}'")
        if kind == "closing":
            if not opened:
                raise _Refused(at, f"unexpected {text}, there is no bracket to close")
            opening = opened.pop()
            if _CLOSED_BY[opening.text] != text:
                raise _Refused(at, f"unexpected {text}, expected {_CLOSED_BY[opening.text]}")
        token = _Token(kind, text, at, len(opened))
        if kind == "opening":
            opened.append(token)
        yield token
    if opened:
        raise _Refused(opened[-1].at, f"{opened[-1].text} is never closed")


def _has_a_place_in_go(char: str) -> bool:
    if char.isascii():
        return char not in _NOT_IN_GO and char.isprintable()
    # A later version of Unicode may have made a letter of it.
    return unicodedata.category(char) == "Cn"


def _check_go(source: str) -> None:
    tokens = list(_go_tokens(source))
    clause = package_clause(source)
    if clause is None:
        raise _Refused(tokens[0].at if tokens else 0, "must begin with `package task`")
    if clause["name"] != "task":
        raise _Refused(clause.start("name"), f"the package must be `task`, not `{clause['name']}`")
    run = "must define func Run() (string, error)"
    texts = [token.text for token in tokens]
    for index, token in enumerate(tokens):
        if token.depth == 0 and texts[index : index + 3] == ["func", "Run", "("]:
            after = next((each for each in tokens[index + 3 :] if each.depth == 0 and each.kind != "closing"), None)
            if after is None or after.text != "(":
                raise _Refused(tokens[index + 1].at, run)
            return
    # A variable of this name that holds a function would do, too.
    if not {"var", "Run"} <= {token.text for token in tokens if token.depth <= 1}:
        raise _Refused(clause.start("name"), run)
