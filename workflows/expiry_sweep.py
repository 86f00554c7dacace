"""The specification's background task "Access Request Expiry": one run of the sweep (design, section 1)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from domain.sweeping import SweepReport
    from workflows import names

_RUN: Final = timedelta(minutes=30)
"""Far more than a million open requests take; after that the next run of the Schedule is the better try."""
_HEARTBEAT: Final = timedelta(seconds=30)
"""The activity reports after each page; a worker that died is noticed by then."""


@workflow.defn(name=names.EXPIRY_SWEEP_WORKFLOW)
class AccessRequestExpirySweep:
    """Compare Temporal's running workflows with the open requests of the record, and mend what differs."""

    @workflow.run
    async def run(self) -> SweepReport:
        """One pass over both stores."""
        report: SweepReport = await workflow.execute_activity(
            names.SWEEP,
            result_type=SweepReport,
            start_to_close_timeout=_RUN,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30), maximum_attempts=5
            ),
        )
        return report
