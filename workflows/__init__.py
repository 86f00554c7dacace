"""The processes. They decide; activities act. Deterministic, sandboxed, free of I/O."""
