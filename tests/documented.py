"""What documentation shows, and what there is: code blocks, commands, settings, routes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

import typer.main
from pydantic import SecretStr
from typer.core import TyperCommand, TyperGroup

import settings
from api.app import create_app
from cli.main import app
from settings import Settings, describe_settings

ROOT: Final = Path(__file__).parents[1]
FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
VARIABLE: Final = re.compile(r"\bJUSTIAM_[A-Z][A-Z_]*\b")

_COMMAND: Final = typer.main.get_command(app)
_PLACEHOLDER: Final = re.compile(r"[…<|]|\.\.\.")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, without the indentation of a list that they stand in."""
    return [
        "\n".join(line.removeprefix(indent) for line in body.splitlines())
        for indent, kind, body in FENCE.findall(page.read_text())
        if kind == language
    ]


def known_variables() -> set[str]:
    """The service's settings, and what clients read."""
    of_clients = {value for name, value in vars(settings).items() if name.endswith("_VARIABLE")}
    return {setting.variable for setting in describe_settings()} | of_clients


@cache
def routes() -> set[tuple[str, str]]:
    """Method and path of every operation in the OpenAPI document; parameters as `{}`."""
    nowhere = Settings(database_url=SecretStr("postgresql://nobody@127.0.0.1/nothing"), secret_key=SecretStr("x" * 32))
    return {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for path, operations in create_app(nowhere).openapi()["paths"].items()
        for method in operations
    }


def command_problem(words: list[str]) -> str | None:
    """What is wrong with `justiam` followed by `words`; None where it could be typed like that."""
    command = _COMMAND
    left = list(words)
    while left:
        word = left.pop(0)
        if _PLACEHOLDER.search(word):
            return None
        if word.startswith("-"):
            name, _, value = word.partition("=")
            option = next((param for param in command.params if name in (*param.opts, *param.secondary_opts)), None)
            if option is None and name != "--help":
                return f"{command.name} has no option {name}"
            if option is not None and not getattr(option, "is_flag", False) and not value and left:
                left.pop(0)
        elif isinstance(command, TyperGroup):
            if word not in command.commands:
                return f"{command.name} has no command {word}"
            found = command.commands[word]
            assert isinstance(found, TyperGroup | TyperCommand)
            command = found
    return None
