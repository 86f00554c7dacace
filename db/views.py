"""What the views of all things have in common."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import BaseModel, Field

from domain.versions import version_of


class Identified(BaseModel):
    """Something with an id; the last base of a view, so that the id comes first in its JSON."""

    id: UUID = Field(description="Assigned by the server.")


class Versioned(Identified):
    """Something that is replaced as a whole."""

    VERSIONED: ClassVar[frozenset[str]]
    """The fields that make its version: those that a replacement sets. Others may change without a conflict."""

    @property
    def version(self) -> str:
        """The entity tag, the same for the same values (`domain.versions`)."""
        return version_of(self.model_dump(mode="json", include={"id", *self.VERSIONED}))
