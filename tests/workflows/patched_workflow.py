"""The workflow as the next version might have it: changed, and patched so that requests that are under way go on."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from domain.transitions import AccessRequestInput, AccessRequestResult
    from workflows import names
    from workflows.access_request import AccessRequestWorkflow

PATCH = "wait-a-moment-first"


@workflow.defn(name=names.ACCESS_REQUEST_WORKFLOW)
class PatchedAccessRequestWorkflow(AccessRequestWorkflow):
    """Waits a moment before it does what it always did; requests of the version before do not."""

    @workflow.init
    def __init__(self, start: AccessRequestInput) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: AccessRequestInput) -> AccessRequestResult:
        if workflow.patched(PATCH):
            await workflow.sleep(timedelta(milliseconds=50))
        return await super().run(start)
