"""What a requester sends (specification, Submit a request)."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from domain.text import LongText, storable


def _answerlike(answers: dict[str, Any]) -> dict[str, Any]:
    """What could be an answer to some field; whether it is one to this template's is judged with the template."""
    for key, value in answers.items():
        texts = value if isinstance(value, list) else [value]
        for text in (key, *texts):
            if isinstance(text, str):
                storable(text)
            elif not (text is None or isinstance(text, bool)) or isinstance(value, list):
                raise ValueError("answers are text, true or false, or a list of options")
    return answers


class Submission(BaseModel):
    """A request for access. Who asks is who authenticated; nothing else about the request can be set."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "template_id": "5f0c2c5e-6a44-4d35-9a3f-0f9d2f1c7a10",
                    "requested_duration_mins": 480,
                    "justification": "Need access to debug the production incident.",
                }
            ]
        },
    )

    template_id: UUID = Field(description="The template to ask for.")
    requested_duration_mins: Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)] = Field(
        description="How long, in minutes, from the decision on."
    )
    justification: LongText = Field(default="", description="Why; required unless the template says otherwise.")
    custom_answers: Annotated[dict[str, Any], Field(max_length=50), AfterValidator(_answerlike)] = Field(
        default_factory=dict, description="Answers to the template's custom fields, by the field's id."
    )
