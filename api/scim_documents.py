"""SCIM's resources and messages for the OpenAPI document, drawn from the schemas that SCIM clients are told."""

from __future__ import annotations

from typing import Any, Final

from scim2_models import Attribute, Mutability, Resource, ResourceType, Schema, ServiceProviderConfig

from api.scim import MEDIA_TYPE
from domain import scim

_LIST: Final = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
_PATCH: Final = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
_ERROR: Final = "urn:ietf:params:scim:api:messages:2.0:Error"

_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "UserRequest": {
        "schemas": [str(scim.User.__schema__)],
        "userName": "dana@example.com",
        "externalId": "00u1a2b3c4",
        "name": {"givenName": "Dana", "familyName": "Fischer"},
        "displayName": "Dana Fischer",
        "emails": [{"value": "dana@example.com", "type": "work", "primary": True}],
        "active": True,
    },
    "GroupRequest": {
        "schemas": [str(scim.Group.__schema__)],
        "displayName": "dba_team",
        "members": [{"value": "7b8f3a52-2f0e-4c6e-9a59-3b1d6c1d7f10"}],
    },
    "PatchOp": {
        "schemas": [_PATCH],
        "Operations": [{"op": "replace", "path": "active", "value": False}],
    },
}


def answers(status: int, name: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that answers with a document of this name."""
    schema = {"$ref": f"#/components/schemas/Scim{name}"}
    return {status: {"description": name, "content": {MEDIA_TYPE: {"schema": schema}}}}


def takes(name: str) -> dict[str, Any]:
    """The `openapi_extra=` of a route that takes a document of this name."""
    schema = {"$ref": f"#/components/schemas/Scim{name}"}
    # Entra declares the one, Okta the other.
    content = {media_type: {"schema": schema} for media_type in (MEDIA_TYPE, "application/json")}
    return {"requestBody": {"required": True, "content": content}}


def schemas() -> dict[str, Any]:
    """The schemas that `answers` and `takes` refer to, for `components` of the OpenAPI document."""
    named = {
        "User": _resource(scim.User, answered=True),
        "UserRequest": _resource(scim.User, answered=False),
        "Group": _resource(scim.Group, answered=True),
        "GroupRequest": _resource(scim.Group, answered=False),
        "ServiceProviderConfig": _resource(ServiceProviderConfig, answered=True),
        "ResourceType": _resource(ResourceType, answered=True),
        "Schema": _resource(Schema, answered=True),
        "ListResponse": _list_response(),
        "PatchOp": _patch(),
        "Error": _error(),
    }
    for name, example in _EXAMPLES.items():
        named[name]["examples"] = [example]
    return {f"Scim{name}": schema for name, schema in named.items()}


def _resource(model: type[Resource[Any]], *, answered: bool) -> dict[str, Any]:
    schema = model.to_schema()
    properties: dict[str, Any] = {
        "schemas": {
            "type": "array",
            "description": "Schemas of the resource.",
            "items": {"type": "string"},
            "contains": {"const": str(model.__schema__)},
        },
        "externalId": {"type": "string", "description": "What the client calls it by; unique."},
    }
    if answered:
        properties["id"] = {"type": "string", "description": "What this service calls it by."}
        properties["meta"] = _meta()
    named = _properties(schema.attributes or [], answered=answered)
    required = [
        str(attribute.name)
        for attribute in schema.attributes or []
        # What goes without saying is completed, and what nobody asks for is not answered.
        if attribute.required and not answered and attribute.name not in {"active", "emails"}
    ]
    return {
        "type": "object",
        "description": schema.description,
        "properties": {**properties, **named},
        "required": ["schemas", *required],
        **({"additionalProperties": False} if answered else {}),
    }


def _properties(attributes: list[Attribute], *, answered: bool) -> dict[str, Any]:
    return {
        str(attribute.name): _property(attribute, answered=answered)
        for attribute in attributes
        if answered or attribute.mutability is not Mutability.read_only
    }


def _property(attribute: Attribute, *, answered: bool) -> dict[str, Any]:
    one: dict[str, Any]
    match attribute.type:
        case Attribute.Type.complex:
            one = {
                "type": "object",
                "properties": _properties(attribute.sub_attributes or [], answered=answered),
                **({"additionalProperties": False} if answered else {}),
            }
            required = [str(sub.name) for sub in attribute.sub_attributes or [] if sub.required]
            if required:
                one["required"] = required
        case Attribute.Type.boolean | Attribute.Type.integer:
            one = {"type": attribute.type.value}
        case _:
            one = {"type": "string"}
    if attribute.multi_valued:
        one = {"type": "array", "items": one}
    return {"description": " ".join((attribute.description or str(attribute.name)).split()), **one}


def _meta() -> dict[str, Any]:
    texts = {
        "resourceType": "The kind of resource.",
        "location": "Where it is.",
        "created": "When it was made.",
        "version": "The `ETag`. A Group that is shown without its members has none.",
    }
    return {
        "type": "object",
        "description": "What the service knows about the resource.",
        "properties": {name: {"type": "string", "description": text} for name, text in texts.items()},
        "required": ["resourceType", "location"],
        "additionalProperties": False,
    }


def _message(urn: str, properties: dict[str, Any], *required: str) -> dict[str, Any]:
    schemas = {
        "type": "array",
        "description": "What this message is.",
        "items": {"const": urn, "type": "string"},
        "minItems": 1,
    }
    return {
        "type": "object",
        "properties": {"schemas": schemas, **properties},
        "required": ["schemas", *required],
    }


def _list_response() -> dict[str, Any]:
    kinds = ("User", "Group", "ResourceType", "Schema")
    numbers = {
        "totalResults": "How many there are.",
        "startIndex": "The index of the first one here, from 1.",
        "itemsPerPage": "How many are here.",
    }
    return _message(
        _LIST,
        {
            **{name: {"type": "integer", "minimum": 0, "description": text} for name, text in numbers.items()},
            "Resources": {
                "type": "array",
                "description": "What was found, with the attributes that were asked for.",
                "items": {
                    "type": "object",
                    "required": ["schemas"],
                    "properties": {
                        "schemas": {
                            "type": "array",
                            "description": f"Schema of a {', '.join(kinds)}.",
                            "items": {"type": "string"},
                        }
                    },
                },
            },
        },
        "totalResults",
    )


def _patch() -> dict[str, Any]:
    operation = {
        "type": "object",
        "properties": {
            "op": {"type": "string", "enum": ["add", "remove", "replace"], "description": "What to do; in any case."},
            "path": {"type": "string", "description": "Where; left out, `value` names attributes."},
            "value": {"description": "With what."},
        },
        "required": ["op"],
    }
    operations = {
        "type": "array",
        "description": "One after the other, all or none.",
        "items": operation,
        "minItems": 1,
    }
    return _message(_PATCH, {"Operations": operations}, "Operations")


def _error() -> dict[str, Any]:
    texts = {
        "status": "The HTTP status.",
        "scimType": "The kind of error (RFC 7644, section 3.12).",
        "detail": "What happened, for the person who has to act on it.",
    }
    return _message(
        _ERROR, {name: {"type": "string", "description": text} for name, text in texts.items()}, "status", "detail"
    )
