"""Scheduled tasks and their runs (specification, Trigger Tasks and Setting Up Slack Notifications).

A task is a script. It runs when a request's status changes (its template's trigger), when an integration is bound to
a lifecycle event, at its own times (`interval`, `cron`), or when somebody says so.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from domain.cron import checked_cron
from domain.lists import DISTINCT, distinct
from domain.states import Action
from domain.text import STORABLE, UNTURNED, LongText, Name

LONGEST_SCRIPT_CHARS: Final = 100_000
BLOCK_SECS: Final = 30
"""A `block` trigger has this long for everything, queueing included (specification, Failure modes)."""

SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,99}$")]
"""A secret's name, as an environment variable would be called: SLACK_WEBHOOK."""


_BYTE_ORDER_MARK: Final = "\ufeff"
_PACKAGE_CLAUSE: Final = re.compile(
    # Possessive quantifiers: without them, the time grows exponentially with the number of comments.
    rf"{_BYTE_ORDER_MARK}?+(?:#![^\n]*+)?+(?:\s|//[^\n]*+|/\*.*?\*/)*+package(?:\s|//[^\n]*+|/\*.*?\*/)++(?P<name>\w++)",
    re.DOTALL,
)

REDEEM_PATH: Final = "/script-runs/redeem"
"""Where script workers hand in their tickets, at the API."""


class TaskType(StrEnum):
    """What a task is made of."""

    SCRIPT = "script"


class Language(StrEnum):
    """What a script is written in."""

    PYTHON = "python"
    GO = "go"


class ScheduleType(StrEnum):
    """When a task runs by itself."""

    ONCE = "once"
    """Never: only when it is triggered, or run on demand."""
    INTERVAL = "interval"
    CRON = "cron"


class RunCause(StrEnum):
    """Why a run was made."""

    TRIGGER = "trigger"
    INTEGRATION = "integration"
    SCHEDULE = "schedule"
    MANUAL = "manual"


class RunStatus(StrEnum):
    """Where a run is."""

    QUEUED = "queued"
    """Written down, not yet started; also between two attempts."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """Cut off by a crash, and not to be repeated: what it did until then is not known."""
    CANCELLED = "cancelled"
    """The decision that it was to block was overtaken by another."""


RUN_OVER: Final = frozenset(RunStatus) - {RunStatus.QUEUED, RunStatus.RUNNING}
"""What a run never leaves."""

TRIGGER_EVENTS: Final[dict[Action | None, str]] = {
    None: "created",
    Action.APPROVE: "approved",
    Action.DENY: "denied",
    Action.REVOKE: "revoked",
    Action.EXPIRE: "expired",
}
"""The `trigger_event` of each status change; None is the submission. Escalation changes no status."""


class Ending(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"


class RunResult(BaseModel):
    """What came of an attempt."""

    ending: Ending
    exit_code: int | None = None
    """None where the process was killed, or never started."""
    duration_ms: int = 0
    output: str = ""
    """At most 64 KiB, with the values of secrets masked."""
    output_truncated: bool = False
    error: str | None = None
    """One line: what went wrong."""
    isolation: str = ""
    """What kept the script apart, for people."""


class TaskRunInput(BaseModel):
    """All that a run's workflow needs to start, or to start again: the rest is in the record."""

    run_id: UUID


class TaskInput(BaseModel):
    """What a task's Schedule starts."""

    task_id: UUID


class Attempt(BaseModel):
    """An attempt to begin, under a name that no other has: whoever begins it again begins the same."""

    run_id: UUID
    holder: str
    at: datetime


class ScriptOrder(BaseModel):
    """An attempt for a script worker."""

    run_id: UUID
    ticket: str
    """Redeemed once at the API for what the script needs: the order itself holds nothing that is worth stealing."""
    timeout_seconds: int


class ScriptApprover(BaseModel):
    """Somebody who was asked to decide the request, as scripts see them."""

    id: UUID
    email: str
    name: str


class ScriptJob(BaseModel):
    """What an attempt needs, for the script worker that comes with its ticket. Never in a workflow's history."""

    # The error of an answer that does not fit would quote it, and errors are kept in histories and logs.
    model_config = ConfigDict(hide_input_in_errors=True)

    run_id: UUID
    language: Language
    script: str
    config: dict[str, str]
    approvers: list[ScriptApprover]
    secrets: dict[str, str] = Field(repr=False)
    timeout_seconds: int
    network: bool


class Begun(BaseModel):
    """What there is to do."""

    run_id: UUID | None = None
    order: ScriptOrder | None = None
    """None: nothing, the run is over or is not to be repeated."""


class BlockingRun(BaseModel):
    """The run that an approval waits for."""

    run_id: UUID
    order: ScriptOrder | None
    """None: the task does not exist any more, so the run has failed already."""


class Report(BaseModel):
    """How an attempt ended. `result` is null where nobody knows: its worker died, or there was none."""

    run_id: UUID
    holder: str
    at: datetime
    result: RunResult | None
    error: str | None = None
    """Why there is no result."""
    lost: bool = False
    """It was begun and cut off: what it did until then is not known."""
    cancelled: bool = False
    """The decision that it was to block was overtaken."""


class RunNext(BaseModel):
    """What follows."""

    status: RunStatus
    pause_seconds: float | None = None
    """Until the next attempt; null: there is none."""


def pause_after(attempt: int) -> float:
    """Seconds between a failed attempt and the next: 5, 10, 20 … up to ten minutes."""
    return float(min(5 * 2 ** (attempt - 1), 600))


@cache
def time_zones() -> dict[str, str]:
    """Return the names of the time zone database, by themselves in lower case.

    Those of the package `tzdata`, in this spelling, on every machine. What else lies beside them on some machines is a
    file and not a time zone: `localtime`, `posixrules`, `posix/…`, `right/…`. `Factory` says that no zone is set.
    """
    names = files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()
    return {name.lower(): name for name in names if name != "Factory"}


def _time_zone(name: str) -> str:
    known = time_zones().get(name.lower())
    if known is None:
        raise ValueError("is no time zone; take one like Europe/Berlin, or UTC")
    if known != name:
        raise ValueError(f"is spelled {known}")
    return name


def package_clause(script: str) -> re.Match[str] | None:
    """Return the package clause that a Go file begins with, after comments; its group `name` is the package's name."""
    return _PACKAGE_CLAUSE.match(script)


def infer_language(script: str) -> Language:
    """Return Go where the script begins with a package clause, else Python.

    Comments, empty lines, a byte order mark and a `#!` line may stand before it.
    """
    return Language.PYTHON if package_clause(script) is None else Language.GO


def source_text(script: str, language: Language) -> str:
    """Return a script as a compiler can read it. Its lines keep their numbers.

    Editors leave a byte order mark, which Python refuses, and line ends of CR LF. Go has no `#!` line, which becomes a
    comment. What is stored stays as it was sent.
    """
    text = script.removeprefix(_BYTE_ORDER_MARK).replace("\r\n", "\n")
    return f"//{text}" if language is Language.GO and text.startswith("#!") else text


class TaskValues(BaseModel):
    """Everything that is set of a task."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="Display name; no two tasks share one.", examples=["Access Request Event Logger"])
    description: LongText = Field(default="", description="What it is for.")
    task_type: TaskType = Field(default=TaskType.SCRIPT, description="`script` is the only one.")
    language: Language | None = Field(
        default=None, description="`python` or `go`. Left out, it is inferred from the script."
    )
    script: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_SCRIPT_CHARS), STORABLE, UNTURNED] = (
        Field(description="Python that defines `run()`, or a Go file `package task` with `func Run() (string, error)`.")
    )
    schedule_type: ScheduleType = Field(
        default=ScheduleType.ONCE, description="`once` runs only when triggered or on demand."
    )
    interval_seconds: int | None = Field(
        default=None, ge=10, le=31_536_000, strict=True, description="For `interval`: seconds between two runs."
    )
    cron: Annotated[str, StringConstraints(max_length=200), AfterValidator(checked_cron)] | None = Field(
        default=None,
        description="For `cron`: minute, hour, day of month, month, day of week, all of which have to fit; "
        "`0 6 * * 1-5` is at six on weekdays.",
        examples=["0 6 * * 1-5"],
    )
    time_zone: Annotated[str, StringConstraints(max_length=100), AfterValidator(_time_zone)] = Field(
        default="UTC", description="The time zone that `cron` is read in.", examples=["Europe/Berlin"]
    )
    max_retries: int = Field(
        default=3,
        ge=0,
        le=20,
        strict=True,
        description="Further attempts after a failure, with growing pauses. A trigger of mode `ignore` or `block` "
        "makes none.",
    )
    timeout_seconds: int = Field(
        default=60, ge=1, le=3600, strict=True, description="An attempt that takes longer is killed."
    )
    secret_names: Annotated[
        list[SecretName], Field(max_length=50, json_schema_extra=DISTINCT), AfterValidator(distinct)
    ] = Field(default_factory=list, description="Secrets that the script may read.", examples=[["SLACK_WEBHOOK"]])
    network: bool = Field(
        default=True, description="Whether the script reaches the network, where the isolation can take that away."
    )

    @model_validator(mode="after")
    def _schedule_is_whole(self) -> Self:
        if (self.interval_seconds is not None) != (self.schedule_type is ScheduleType.INTERVAL):
            raise ValueError("interval_seconds goes with schedule_type interval, and only with that")
        if (self.cron is not None) != (self.schedule_type is ScheduleType.CRON):
            raise ValueError("cron goes with schedule_type cron, and only with that")
        return self

    @property
    def written_in(self) -> Language:
        """The language, given or inferred."""
        return self.language or infer_language(self.script)


def event_config(payload: dict[str, str | list[str] | None]) -> dict[str, str]:
    """What the script of an integration reads of an event: its keys as they are, and the same behind `event.`."""
    config: dict[str, str] = {}
    for key, value in payload.items():
        text = ",".join(value) if isinstance(value, list) else (value or "")
        config[key] = config[f"event.{key}"] = text
    return config
