"""What operators see of a running program: metrics for Prometheus, traces for OpenTelemetry."""
