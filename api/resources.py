"""What the application opened at its start and every route may use."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from api.orchestrator import Orchestrator
from db.database import Database
from db.secrets import SecretVault
from settings import Settings


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _orchestrator(request: Request) -> Orchestrator:
    orchestrator: Orchestrator = request.app.state.orchestrator
    return orchestrator


async def _vault(request: Request) -> SecretVault:
    vault: SecretVault = request.app.state.vault
    return vault


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


Db = Annotated[Database, Depends(_database)]
"""The record."""

Temporal = Annotated[Orchestrator, Depends(_orchestrator)]
"""The way to the workflows."""

Secrets = Annotated[SecretVault, Depends(_vault)]
"""What encrypts and decrypts secrets."""

AppSettings = Annotated[Settings, Depends(_settings)]
"""What the operator set."""
