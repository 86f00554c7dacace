"""What is shown to people works as it is shown."""

from __future__ import annotations

import shutil
import subprocess

from tests.terraform.conftest import PROVIDER_PYTHON, ROOT, Workspace


def test_the_example_applies(workspace: Workspace) -> None:
    target = workspace.directory / "environment"
    shutil.copytree(ROOT / "examples", target)
    shutil.copytree(ROOT / "scripts", workspace.directory / "scripts")
    for name in (".terraform", ".terraform.lock.hcl"):
        (workspace.directory / name).rename(target / name)
    workspace.directory = target
    hook = {"TF_VAR_slack_webhook": "https://hooks.example.com/services/hush-hush"}
    said = workspace.apply(variables=hook)
    assert "16 added, 0 changed, 0 destroyed" in said
    assert 'ask_for = "Read the data warehouse: database_owners"' in said
    workspace.plan("-detailed-exitcode", code=0, variables=hook)
    assert "hush-hush" not in (target / "terraform.tfstate").read_text()
    workspace.run("fmt", "-check")
    workspace.destroy()


def test_the_documentation_is_that_of_the_schema() -> None:
    assert PROVIDER_PYTHON.exists(), "the provider has no environment: make terraform-provider"
    done = subprocess.run(
        [PROVIDER_PYTHON, "-m", "justiam_provider.documentation", "--check", "docs/terraform", "examples"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
