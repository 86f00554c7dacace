"""What an audit of both stores found."""

from __future__ import annotations

from pydantic import BaseModel, Field, computed_field


class Violation(BaseModel):
    """One request for which something that always holds does not."""

    request_id: str
    what: str


class Invariant(BaseModel):
    """Something that always holds, and what was found of it."""

    name: str
    meaning: str
    violations: list[Violation] = Field(default_factory=list, description="At most a hundred are named.")


class AuditReport(BaseModel):
    """The result of one audit."""

    requests: int = Field(description="Requests in the record.")
    open_requests: int = Field(description="Pending and approved ones.")
    running_workflows: int = Field(description="Running workflows of requests in Temporal.")
    invariants: list[Invariant]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not any(invariant.violations for invariant in self.invariants)
