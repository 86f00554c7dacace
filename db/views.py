"""What the views of all things have in common."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, Field


class Identified(BaseModel):
    """Something with an id; the last base of a view, so that the id comes first in its JSON."""

    id: UUID = Field(description="Assigned by the server.")
