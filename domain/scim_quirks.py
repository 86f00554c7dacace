"""What SCIM clients send too much, or spell in ways of their own, and what is left of it.

None of it may refuse a PATCH or PUT, because the same call may deactivate a person. What is invalid in an attribute
that this service keeps still refuses the whole call (RFC 7644, section 3.5.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from scim2_models import PatchOperation, Resource

from domain.scim import Group, User

_OPERATIONS: Final = frozenset(PatchOperation.Op)
_SEVERAL: Final = frozenset({"emails", "members"})
"""Attributes of which a remove may name some values."""
_REQUIRED: Final = frozenset({"username", "emails"})
"""Attributes of a User that cannot be empty."""
_NO: Final = frozenset({"false", "0", "0.0", "f", "n", "no", "off"})
"""What the library reads as false, as text in lower case."""
_READ_ONLY: Final = frozenset({"id", "meta"})


def _known(model: type[Resource[Any]]) -> frozenset[str]:
    names = {name.replace("_", "") for name in model.model_fields}
    return frozenset({*names, *_READ_ONLY, "schemas", "externalid", _schema(model)})


def _schema(model: type[Resource[Any]]) -> str:
    return str(model.__schema__).lower()


_KNOWN: Final[Mapping[type[Resource[Any]], frozenset[str]]] = {model: _known(model) for model in (User, Group)}


def tidied_operation(model: type[Resource[Any]], operation: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operation of a PATCH without what is superfluous in it.

    That is a value in a remove of what has one value, a change of an attribute that is not kept, and what
    `tidied_value` leaves out. What is no operation stays as it is.
    """
    told = {key.lower(): value for key, value in operation.items()}
    op, path, value = str(told.get("op")).lower(), told.get("path"), told.get("value")
    if op not in _OPERATIONS or not isinstance(path, str | None):
        return dict(operation)
    if not path:
        return {**told, "value": tidied_value(model, value)} if isinstance(value, Mapping) else told
    attribute, is_whole = _attribute(model, path)
    if attribute not in _KNOWN[model]:
        # Not left out: the syntax of its path is checked.
        return {"op": PatchOperation.Op.remove.value, "path": path}
    if op == PatchOperation.Op.remove and not (is_whole and attribute in _SEVERAL):
        told.pop("value", None)
    elif attribute == _schema(model) and isinstance(value, Mapping):
        told["value"] = tidied_value(model, value)
    elif is_whole and value is not None:
        told["value"] = _tidied_part(attribute, value)
    return told


def tidied_value(model: type[Resource[Any]], value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource, or a part of one, without `id` and `meta`, and with `active` and addresses as meant."""
    kept: dict[str, Any] = {}
    for key, part in value.items():
        attribute, is_whole = _attribute(model, key)
        if attribute == _schema(model) and isinstance(part, Mapping):
            kept[key] = tidied_value(model, part)
        elif attribute not in _READ_ONLY:
            kept[key] = _tidied_part(attribute, part) if is_whole else part
    return kept


def says_inactive(values: Iterable[tuple[str, Any]]) -> bool:
    """Return whether the last value that says if a person is active says no.

    Args:
        values: attributes with tidied values, in their order; the value of an attribute without a name is a part of the
            resource.
    """
    said = list(_said_of_activity(values))
    return bool(said) and isinstance(said[-1], bool | int | float | str) and str(said[-1]).lower() in _NO


def _said_of_activity(values: Iterable[tuple[str, Any]]) -> Iterator[Any]:
    for key, value in values:
        attribute = _attribute(User, key)[0] if key else _schema(User)
        if attribute == "active":
            yield value
        elif attribute == _schema(User) and isinstance(value, Mapping):
            yield from _said_of_activity(value.items())


def without_clearing(operation: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a tidied operation on a User without what takes the user name or the address away; None: nothing is left.

    A remove that names one of several addresses stays as it is: another one may take its place.
    """
    op, path, value = str(operation.get("op")).lower(), operation.get("path"), operation.get("value")
    if op not in _OPERATIONS:
        return dict(operation)
    if path:
        # Without a value, anything but a remove is invalid.
        cleared = _is_empty(value) and ("value" in operation or op == PatchOperation.Op.remove)
        if cleared and _attribute(User, path)[0] in _REQUIRED:
            return None
        if _attribute(User, path)[0] != _schema(User):
            return dict(operation)
    if not isinstance(value, Mapping):
        return dict(operation)
    left = without_cleared(value)
    return {**operation, "value": left} if left or not value else None


def without_cleared(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a User, or a part of one, without a user name and addresses that are empty."""
    left: dict[str, Any] = {}
    for key, part in value.items():
        attribute = _attribute(User, key)[0]
        if attribute == _schema(User) and isinstance(part, Mapping):
            left[key] = without_cleared(part)
        elif attribute not in _REQUIRED or not _is_empty(part):
            left[key] = part
    return left


def _is_empty(value: object) -> bool:
    """Return whether a value is none, also where clients write it as a list of values that are none."""
    parts = value if isinstance(value, list) else [value]
    return all(_told(part) in (None, "") for part in parts)


def _told(part: object) -> object:
    if not isinstance(part, Mapping):
        return part
    return next((value for key, value in part.items() if key.lower() == "value"), None)


def _attribute(model: type[Resource[Any]], path: str) -> tuple[str, bool]:
    """Return the attribute that a path names, in lower case, and whether the path names all of it.

    An attribute of the model is named without its schema, one of an extension with it.
    """
    name, schema = path.strip().lower(), _schema(model)
    name = name.removeprefix(f"{schema}:") if name != schema else name
    if name.startswith("urn:"):
        return name, True
    attribute = re.split(r"[.\[\s]", name, maxsplit=1)[0]
    return attribute, attribute == name


def _tidied_part(attribute: str, value: object) -> object:
    if attribute == "emails" and value is not None:
        entries = value if isinstance(value, list) else [value]
        return [{"value": entry} if isinstance(entry, str) and entry else entry for entry in entries]
    if attribute != "active":
        return value
    # As old versions of Entra send it: [{"$ref": null, "value": "False"}].
    single = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(single, Mapping):
        told = {key.lower(): part for key, part in single.items()}
        return told.get(attribute, told.get("value", value))
    return single
