"""Sending a lifecycle event to whoever an integration names: no database, no Temporal.

`send` makes one attempt and says what came of it; it never raises for what the other side does.
"""

from deliveries.sending import send

__all__ = ["send"]
