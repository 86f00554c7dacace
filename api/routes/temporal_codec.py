"""Temporal's codec server: its UI and `temporal --codec-endpoint` ask it for what is encrypted in histories."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from temporalio.api.common.v1 import Payload

from api.authentication import RequestsManager
from api.observation import API
from api.problems import refusals
from api.resources import AppSettings
from db.runs import TICKET_PREFIX
from domain.errors import Invalid
from payloads import EncryptedPayloads, PayloadUnreadable

_log = structlog.get_logger(__name__)

PATH: Final = "/temporal-codec"
_TICKET: Final = re.compile(rb"\b" + TICKET_PREFIX.encode() + rb"[\w-]+")
router = APIRouter(prefix=PATH, tags=["Temporal"])


class EncodedPayload(BaseModel):
    """One payload as Temporal has it in JSON."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"metadata": {}, "data": "e30="}]})

    metadata: dict[str, Base64Bytes] = Field(default_factory=dict, description="Base64 each.")
    data: Base64Bytes = Field(default=b"", description="Base64.")


class EncodedPayloads(BaseModel):
    """Payloads as Temporal has them in JSON."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"payloads": [{"metadata": {"encoding": "anNvbi9wbGFpbg=="}, "data": "e30="}]}]
        },
    )

    payloads: Annotated[list[EncodedPayload], Field(max_length=1_000)] = Field(
        default_factory=list, description="In the order of the answer."
    )


@router.post("/decode", summary="Decrypt payloads", responses=refusals("forbidden"))
async def decode_payloads(sent: EncodedPayloads, caller: RequestsManager, settings: AppSettings) -> EncodedPayloads:
    """Needs `access_requests.manage`. For the Temporal UI: what is not encrypted is answered as it is.

    The tickets of scripts are left out: one that no script worker has redeemed yet stands for the secrets of its task.
    Set the UI's codec endpoint to this path without `/decode`, and have it pass the user's access token.
    """
    _log.info("payloads_decrypted", count=len(sent.payloads), by=str(caller.id))
    try:
        decoded = await EncryptedPayloads(settings.temporal_encryption_keys).decode(_heard(sent))
    except PayloadUnreadable as error:
        raise Invalid(("payloads", str(error))) from None
    for payload in decoded:
        payload.data = _TICKET.sub(TICKET_PREFIX.encode() + b"(hidden)", payload.data)
    return _said(decoded)


@router.post("/encode", summary="Encrypt payloads", responses=refusals("forbidden"))
async def encode_payloads(sent: EncodedPayloads, _: RequestsManager, settings: AppSettings) -> EncodedPayloads:
    """Needs `access_requests.manage`. For signals that are sent from the Temporal UI."""
    return _said(await EncryptedPayloads(settings.temporal_encryption_keys).encode(_heard(sent)))


class CodecCors(CORSMiddleware):
    """Lets the Temporal UI's pages, and no others, call these routes from a browser."""

    def __init__(self, app: ASGIApp, temporal_ui_url: str | None) -> None:
        super().__init__(
            app,
            allow_origins=[_origin(temporal_ui_url)] if temporal_ui_url else [],
            allow_methods=["POST"],
            # Beside the access token the UI sends its ID token, which nobody here reads.
            allow_headers=["Authorization", "Authorization-Extras", "Content-Type", "X-Namespace"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the browser's question beforehand, and say who may read the answer."""
        if scope["type"] == "http" and scope["path"].startswith(f"{API}{PATH}/"):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _origin(url: str) -> str:
    """As browsers name it: the UI may be below a path of its host."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _heard(sent: EncodedPayloads) -> list[Payload]:
    return [Payload(metadata=payload.metadata, data=payload.data) for payload in sent.payloads]


def _said(payloads: list[Payload]) -> EncodedPayloads:
    return EncodedPayloads(
        payloads=[
            # As Base64Bytes keeps it: what it is, and not how it is written.
            EncodedPayload.model_construct(metadata=dict(payload.metadata), data=payload.data)
            for payload in payloads
        ]
    )
