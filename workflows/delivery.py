"""A delivery of a lifecycle event, until it has arrived or is given up (design, section 3)."""

import contextlib
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from domain.deliveries import DeliveryInput, DeliveryNext
    from workflows import names

_ATTEMPT: Final = timedelta(minutes=2)
"""An attempt is bounded by its own, shorter, timeouts; one that takes this long is stuck."""
_ALIVE: Final = timedelta(seconds=30)
"""A worker that does not say within this time that it is at an attempt is dead. Workers of the version before say
nothing, and are done within it: what they wait for most, an answer, they wait for half as long."""
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(seconds=30)
)
"""For ever: what fails here is the record. A target that does not answer is a result, and its pause is in it."""


@workflow.defn(name=names.DELIVERY_WORKFLOW)
class DeliveryWorkflow:
    """One delivery: attempts, with growing pauses."""

    def __init__(self) -> None:
        self._again = False

    @workflow.signal(name=names.AGAIN_SIGNAL)
    def again(self) -> None:
        """Somebody wants it tried now; whether it is due, the record says."""
        self._again = True

    @workflow.run
    async def run(self, start: DeliveryInput) -> None:
        """Try until nothing is left to do."""
        while True:
            self._again = False
            following: DeliveryNext = await workflow.execute_activity(
                names.DELIVER,
                start,
                result_type=DeliveryNext,
                start_to_close_timeout=_ATTEMPT,
                heartbeat_timeout=_ALIVE,
                retry_policy=_RETRY,
            )
            if following.pause_seconds is None:
                return
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._again,
                    timeout=following.pause_seconds,
                    timeout_summary="until the next attempt",
                )
