"""Traces, from a call through its workflow into the activities, for OpenTelemetry.

On where the standard variable `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) says where to
send them; the other `OTEL_…` variables mean what OpenTelemetry has them mean.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from temporalio.contrib.opentelemetry import TracingInterceptor

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_QUERY = "url.query"


class _WithoutQuery(SpanProcessor):
    """Keeps what was asked for out of traces: whose requests somebody looked for, the code of an issuer."""

    def on_start(self, span: Span, parent_context: Any = None) -> None:  # noqa: ANN401, ARG002 - as the SDK has it
        if span.attributes and _QUERY in span.attributes:
            span.set_attribute(_QUERY, "")

    def on_end(self, span: ReadableSpan) -> None:
        pass


@cache
def provider() -> TracerProvider | None:
    """What makes the spans of this process; None where nobody wants them."""
    if not any(os.environ.get(name) for name in _ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED", "") == "true":
        return None
    # OTEL_SERVICE_NAME counts more than the default here.
    made = TracerProvider(resource=Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or "justiam"}))
    made.add_span_processor(_WithoutQuery())
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(made)
    return made


def interceptors() -> list[TracingInterceptor]:
    """For the Temporal client, which hands them on to its workers.

    Spans of workflows are told at once and have no length: a request may last for weeks, and nobody waits for its end
    to see what came of a call.
    """
    made = provider()
    if made is None:
        return []
    interceptor = TracingInterceptor(made.get_tracer("justiam"))
    # And no `baggage`, up to 8 KiB of which anybody may send, and proxies put people's names in: nobody here reads it,
    # and headers of workflows are kept in histories, unencrypted.
    interceptor.text_map_propagator = TraceContextTextMapPropagator()
    return [interceptor]


def flush() -> None:
    """Send what is left, before the process ends."""
    made = provider()
    if made is not None:
        made.shutdown()
