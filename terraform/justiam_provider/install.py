"""Puts the provider where Terraform and OpenTofu look for providers of this machine.

What is installed is a launcher that starts the environment which it was installed from.
"""

from __future__ import annotations

import platform
import shlex
import stat
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from justiam_provider.provider import ADDRESS

VERSION: Final = version("justiam-terraform-provider")
_ARCHITECTURES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def install(plugins: Path) -> Path:
    """Install the launcher into a plugin directory.

    Args:
        plugins: `~/.terraform.d/plugins`, or another directory of that layout.

    Returns:
        The launcher.
    """
    machine = platform.machine().lower()
    target = f"{platform.system().lower()}_{_ARCHITECTURES.get(machine, machine)}"
    directory = plugins.joinpath(*ADDRESS.split("/"), VERSION, target)
    directory.mkdir(parents=True, exist_ok=True)
    launcher = directory / f"terraform-provider-justiam_v{VERSION}"
    # -I: neither the directory that Terraform is called in nor PYTHONPATH says what the provider is.
    content = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -m justiam_provider "$@"\n'
    unfinished = directory.with_suffix(".unfinished")
    unfinished.write_text(content)
    unfinished.chmod(unfinished.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    unfinished.replace(launcher)
    return launcher


def main() -> None:
    """Install, and say where."""
    given = sys.argv[1] if len(sys.argv) > 1 else "~/.terraform.d/plugins"
    print(install(Path(given).expanduser()))  # noqa: T201 - a command


if __name__ == "__main__":
    main()
