"""Requests that run when a new version is deployed go on: today's workflow replays what earlier ones wrote."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import NondeterminismError

from tests.workflows import histories
from tests.workflows.changed_workflow import ChangedAccessRequestWorkflow
from tests.workflows.histories import STORIES, Story
from tests.workflows.world import World
from workflows.access_request import AccessRequestWorkflow

STORED = histories.stored()


def replayer(workflow: type, runner: WorkflowRunner | None = None) -> Replayer:
    return Replayer(
        workflows=[workflow],
        workflow_runner=runner or SandboxedWorkflowRunner(),
        data_converter=pydantic_data_converter,
    )


@pytest.mark.parametrize("runner", [SandboxedWorkflowRunner(), UnsandboxedWorkflowRunner()], ids=["sandbox", "program"])
@pytest.mark.parametrize("name", STORED)
async def test_a_stored_history_replays(name: str, runner: WorkflowRunner) -> None:
    await replayer(AccessRequestWorkflow, runner).replay_workflow(STORED[name])


def test_every_way_has_a_stored_history() -> None:
    assert {f"{version('justiam')}/{story.__name__}" for story in STORIES} <= STORED.keys()


@pytest.mark.parametrize("name", STORED)
async def test_a_changed_workflow_does_not_replay(name: str) -> None:
    """Were this to pass, the tests above would prove nothing."""
    with pytest.raises(NondeterminismError):
        await replayer(ChangedAccessRequestWorkflow).replay_workflow(STORED[name])


@pytest.mark.parametrize("story", STORIES)
async def test_what_happens_now_replays(real_world: World, story: Story, pytestconfig: pytest.Config) -> None:
    history: WorkflowHistory = await histories.tell(real_world, story)
    if pytestconfig.getoption("--store-histories"):
        histories.save(story, history)
    await replayer(AccessRequestWorkflow).replay_workflow(history)
