"""The workflow as somebody might change it without thinking of the requests that are under way."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domain.transitions import AccessRequestInput, AccessRequestResult
    from workflows import names
    from workflows.access_request import AccessRequestWorkflow


@workflow.defn(name=names.ACCESS_REQUEST_WORKFLOW)
class ChangedAccessRequestWorkflow(AccessRequestWorkflow):
    """Waits a second before it does what it always did."""

    @workflow.init
    def __init__(self, start: AccessRequestInput) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: AccessRequestInput) -> AccessRequestResult:
        await workflow.sleep(timedelta(seconds=1))
        return await super().run(start)
