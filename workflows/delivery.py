"""A delivery of a lifecycle event, until it has arrived or is given up (design, section 3)."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from domain.deliveries import DeliveryInput, DeliveryNext
    from workflows import names

_ATTEMPT: Final = timedelta(minutes=2)
"""An attempt is bounded by its own, shorter, timeouts; one that takes this long is stuck."""
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(seconds=30)
)
"""For ever: what fails here is the record. A target that does not answer is a result, and its pause is in it."""


@workflow.defn(name=names.DELIVERY_WORKFLOW)
class DeliveryWorkflow:
    """One delivery: attempts, with growing pauses."""

    @workflow.run
    async def run(self, start: DeliveryInput) -> None:
        """Try until nothing is left to do."""
        while True:
            following: DeliveryNext = await workflow.execute_activity(
                names.DELIVER,
                start,
                result_type=DeliveryNext,
                start_to_close_timeout=_ATTEMPT,
                retry_policy=_RETRY,
            )
            if following.pause_seconds is None:
                return
            await workflow.sleep(following.pause_seconds, summary="until the next attempt")
