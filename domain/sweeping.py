"""What a sweep did."""

from __future__ import annotations

from pydantic import BaseModel, Field


class SweepReport(BaseModel):
    """Counts of one pass of the sweep over both stores."""

    open_requests: int = Field(default=0, description="Pending and approved requests in the record.")
    running_workflows: int = Field(default=0, description="Running workflows of requests in Temporal.")
    started: int = Field(default=0, description="Requests that had no workflow and were given one.")
    reconciled: int = Field(default=0, description="Workflows told to look at the record again.")
    restarted: int = Field(default=0, description="Workflows that did not go on, terminated and started anew.")
    expired: int = Field(default=0, description="Grants over a minute past their end, ended at once.")
    dispatched: int = Field(default=0, description="Runs of tasks that were due and had not been started.")
    failed: int = Field(default=0, description="Repairs that did not succeed and are left to the next sweep.")
