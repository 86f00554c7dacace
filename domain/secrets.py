"""Secrets, as administrators say them. Their values go one way: in."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from domain.tasks import SecretName
from domain.text import LongText, storable

LONGEST_VALUE_CHARS: Final = 32_768


def _storable(value: SecretStr) -> SecretStr:
    storable(value.get_secret_value())
    return value


SecretValue = Annotated[SecretStr, Field(min_length=1, max_length=LONGEST_VALUE_CHARS), AfterValidator(_storable)]
"""What nobody reads back: 1 to 32,768 characters, several lines if need be."""


class NewSecret(BaseModel):
    """A secret, as it is made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "SLACK_WEBHOOK",
                    "value": "https://hooks.slack.com/services/T000/B000/XXXX",
                    "description": "Where the access logger posts",
                }
            ]
        },
    )

    name: SecretName = Field(
        description="What scripts read it by: capitals, digits and `_`, no two alike. Cannot be changed."
    )
    value: SecretValue = Field(description="Kept encrypted; no answer has it.")
    description: LongText = Field(default="", description="What it is for. Anybody who manages tasks can read it.")


class SecretChange(BaseModel):
    """What is to change of a secret."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"value": "https://hooks.slack.com/services/T000/B000/YYYY"}]},
    )

    value: SecretValue | None = Field(default=None, description="The new value; left out, it stays.")
    description: LongText | None = Field(default=None, description="What it is for; left out, it stays.")
