"""Ask a database of vulnerabilities about everything that is locked, and say what has one: `make audit-dependencies`.

pip-audit asks. What is added to it: every pin of every lock is asked about, also those for other platforms; a database
that cannot be reached, or does not know what it was asked about, fails nobody's build but is said loudly; and what is
ignored has a reason, and a day on which it is looked at again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

HERE: Final = Path(__file__).parent
LOCKS: Final = (*sorted(HERE.glob("*.txt")), HERE.parent / "terraform/requirements.txt")
IGNORED: Final = HERE / "ignored-vulnerabilities.toml"

_PIP_AUDIT: Final = str(Path(sys.executable).parent / "pip-audit")
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
_ANSWER_SECS: Final = 5
_WHOLE_SECS: Final = 180
_SHOWN: Final = 5
"""As many names as fit a line."""

Pin = tuple[str, str]
"""Name and version."""


class Ignored(BaseModel):
    """A vulnerability that does not concern the service, as far as somebody looked."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1)
    """As the database names it, or another name that it has (CVE, GHSA, PYSEC)."""
    reason: str = Field(min_length=10)
    until: date
    """The last day on which it is ignored."""


class _Vulnerability(BaseModel):
    id: str
    aliases: list[str]
    fix_versions: list[str]
    description: str = ""


class _Dependency(BaseModel):
    name: str
    version: str | None = None
    vulns: list[_Vulnerability] = []
    skip_reason: str | None = None


class _Audited(BaseModel):
    dependencies: list[_Dependency]


class Unasked(Exception):
    """pip-audit did not get an answer, for what its last line says."""


def main() -> int:
    """Say what is vulnerable; answers with the exit code.

    1 where something is, or where something was ignored for longer than it may be.
    """
    options = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    options.add_argument("--ignored", type=Path, default=IGNORED, help="the file with what is ignored, and until when")
    options.add_argument("--lock", type=Path, action="append", help="instead of the project's; may be repeated")
    given, for_pip_audit = options.parse_known_args()
    found_in = _pins(given.lock or LOCKS)
    ignored = TypeAdapter(list[Ignored]).validate_python(
        tomllib.loads(given.ignored.read_text()).get("ignored", []), strict=False
    )
    today = datetime.now(UTC).date()
    expired = [rule for rule in ignored if rule.until < today]
    for rule in expired:
        _say(f"{rule.id} was ignored until {rule.until}: look again whether it may be ({given.ignored.name})")
    try:
        dependencies = _audit(found_in, for_pip_audit)
    except Unasked as error:
        _warn(f"NOTHING WAS ASKED ABOUT VULNERABILITIES, THE DATABASE DID NOT ANSWER: {error}")
        return 1 if expired else 0
    unknown = [f"{each.name} {each.version or ''}".strip() for each in dependencies if each.skip_reason]
    if unknown:
        few = ", ".join(unknown[:_SHOWN]) + (", …" if len(unknown) > _SHOWN else "")
        _warn(f"THE DATABASE SAYS NOTHING ABOUT {len(unknown)} OF {len(found_in)} DEPENDENCIES: {few}")
    vulnerable = [(each, vulnerability) for each in dependencies for vulnerability in each.vulns]
    names = {name for _, vulnerability in vulnerable for name in (vulnerability.id, *vulnerability.aliases)}
    if not unknown:
        for rule in ignored:
            if rule.id not in names:
                _say(f"{rule.id} is ignored, and nothing has it any more: take it out ({given.ignored.name})")
    still_ignored = {rule.id for rule in ignored if rule not in expired}
    counted = [
        (each, vulnerability)
        for each, vulnerability in vulnerable
        if still_ignored.isdisjoint({vulnerability.id, *vulnerability.aliases})
    ]
    for each, vulnerability in counted:
        fixed = " or ".join(vulnerability.fix_versions) or "no version yet"
        locks = ", ".join(found_in[each.name, each.version or ""])
        _say(f"{each.name} {each.version} has {vulnerability.id}, fixed in {fixed} ({locks})")
        _say(f"    {vulnerability.description[:200]}")
    asked = len(dependencies) - len(unknown)
    _say(
        f"{asked} dependencies were asked about, {len(counted)} vulnerabilities found, "
        f"{len(vulnerable) - len(counted)} ignored"
    )
    return 1 if counted or expired else 0


def _pins(locks: Iterable[Path]) -> dict[Pin, list[str]]:
    """What is locked, and in which files: markers aside, because another platform's dependency is shipped as well."""
    found: dict[Pin, list[str]] = defaultdict(list)
    for lock in locks:
        for name, version in _PIN.findall(lock.read_text()):
            found[name, version].append("/".join(lock.parts[-2:]))
    return found


def _audit(pins: Iterable[Pin], more: list[str]) -> list[_Dependency]:
    """What pip-audit finds out about them.

    Raises:
        Unasked: the database does not answer.
        CalledProcessError: pip-audit does not take what it is given; it has said why.
    """
    # It takes one version of a package at a time, and the locks differ in some.
    rounds: list[dict[str, str]] = []
    for name, version in pins:
        for each in rounds:
            if name not in each:
                each[name] = version
                break
        else:
            rounds.append({name: version})
    return [dependency for each in rounds for dependency in _ask(each, more)]


def _ask(pins: Mapping[str, str], more: list[str]) -> list[_Dependency]:
    with tempfile.TemporaryDirectory() as directory:
        requirements, output = Path(directory) / "pins.txt", Path(directory) / "audited.json"
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
        command = [_PIP_AUDIT, "--no-deps", "--disable-pip", "--progress-spinner=off", f"--requirement={requirements}"]
        command += [f"--timeout={_ANSWER_SECS}", "--format=json", f"--output={output}", *more]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_WHOLE_SECS)
        except subprocess.TimeoutExpired:
            raise Unasked(f"no answer within {_WHOLE_SECS} seconds") from None
        # It exits with 1 where something is vulnerable, and where it could not ask.
        if not output.exists():
            # Where it fails without asking anybody, that is no database that is away.
            subprocess.run([*command, "--dry-run"], check=True)
            raise Unasked((asked.stderr.strip().splitlines() or ["it said nothing"])[-1])
        return _Audited.model_validate_json(output.read_bytes()).dependencies


def _say(message: str) -> None:
    print(message)


def _warn(message: str) -> None:
    print(f"==> WARNING: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
