"""What operators see: metrics, traces, logs, and what is made of them."""
