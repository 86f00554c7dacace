"""The one way to Temporal: every program of the service makes its client here."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
from datetime import timedelta
from functools import cache
from typing import Final

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.service import RPCError, TLSConfig

import logs
from payloads import EncryptedPayloads
from settings import ProgramSettings
from telemetry import tracing

_log = structlog.get_logger(__name__)

UNREACHABLE: Final = (RPCError, RuntimeError, TimeoutError)
"""How a call to Temporal fails that had no answer. RuntimeError is what its client raises where it cannot connect."""
_WRITE_PROBE: Final = "justiam-write-probe"
_LOOPBACK: Final = "127.0.0.1"
_RECONNECT_SECS: Final = 2.0


async def connect(settings: ProgramSettings, *, lazy: bool = False) -> Client:
    """A client of the namespace that the settings name.

    Args:
        settings: where Temporal is, and what it wants to see.
        lazy: connect with the first call instead of now.

    Raises:
        RuntimeError: Temporal cannot be reached, or refuses the credentials.
        OSError: a file that the settings name cannot be read.
    """
    api_key = settings.temporal_api_key
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        data_converter=data_converter(settings),
        tls=tls(settings),
        api_key=None if api_key is None else api_key.get_secret_value(),
        interceptors=tracing.interceptors(),
        runtime=_runtime(None if settings.metrics_port is None else metrics_port()),
        lazy=lazy,
    )


async def connect_in_time(settings: ProgramSettings) -> Client:
    """A client, once Temporal can be reached, however long that takes.

    Raises:
        OSError: a file that the settings name cannot be read.
    """
    while True:
        try:
            return await connect(settings)
        except RuntimeError as error:
            _log.warning("temporal_unreachable", address=settings.temporal_address, error=str(error))
            await asyncio.sleep(_RECONNECT_SECS)


async def is_reachable(client: Client, patience_secs: float) -> bool:
    """Whether Temporal serves, as it says itself within this time."""
    try:
        async with asyncio.timeout(patience_secs):
            return await client.service_client.check_health()
    except UNREACHABLE:
        return False


async def takes_writes(client: Client, patience_secs: float) -> bool:
    """Return whether Temporal writes something down within this time.

    Its health, and every read, look fine while its database is locked, full or read-only. No call writes without
    leaving something: this one leaves a workflow that no worker takes and that ends after a second. So ask only after
    a write has failed.
    """
    try:
        async with asyncio.timeout(patience_secs):
            await client.start_workflow(
                _WRITE_PROBE,
                id=_WRITE_PROBE,
                task_queue=_WRITE_PROBE,
                execution_timeout=timedelta(seconds=1),
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                rpc_timeout=timedelta(seconds=patience_secs),
            )
    except UNREACHABLE:
        return False
    return True


def data_converter(settings: ProgramSettings) -> DataConverter:
    """How what is said to Temporal is written: encrypted where there are keys for it."""
    # Without keys as well: what other programs encrypted is then refused with what to do about it.
    converter = dataclasses.replace(
        pydantic_data_converter, payload_codec=EncryptedPayloads(settings.temporal_encryption_keys)
    )
    if not settings.temporal_encryption_keys:
        return converter
    # What went wrong can say what somebody wrote.
    return dataclasses.replace(converter, failure_converter_class=DefaultFailureConverterWithEncodedAttributes)


def tls(settings: ProgramSettings) -> TLSConfig | bool:
    """How the connection is protected.

    Raises:
        OSError: a file that the settings name cannot be read.
    """
    certificate, key, ca = settings.temporal_tls_certificate, settings.temporal_tls_key, settings.temporal_tls_ca
    if not (certificate or ca):
        return settings.temporal_tls or settings.temporal_api_key is not None
    return TLSConfig(
        server_root_ca_cert=ca.read_bytes() if ca else None,
        client_cert=certificate.read_bytes() if certificate else None,
        client_private_key=key.read_bytes() if key else None,
    )


@cache
def metrics_port() -> int:
    """Where the Temporal client of this process serves its own metrics, on this machine alone."""
    with socket.socket() as free:
        free.bind((_LOOPBACK, 0))
        port: int = free.getsockname()[1]
        return port


@cache
def _runtime(port: int | None) -> Runtime:
    measured = None if port is None else PrometheusConfig(bind_address=f"{_LOOPBACK}:{port}", durations_as_seconds=True)
    # Else it writes to the terminal by itself, in a format of its own.
    forwarding = LogForwardingConfig(logging.getLogger(logs.TEMPORAL), prepend_target_on_message=False)
    said = LoggingConfig(TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=forwarding)
    return Runtime(telemetry=TelemetryConfig(logging=said, metrics=measured))
