"""What the filters of SCIM clients say, in SQL (RFC 7644, section 3.4.2.2).

The whole grammar, on the attributes that have a column. An index finds people by `id`, `userName`, `externalId` and
`emails.value`, groups by `id`, `displayName` and `externalId`.
"""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final

from scim2_models import InvalidFilterException, ScimFilter
from scim2_models.path import (
    AttrPath,
    CompareOperator,
    Comparison,
    FilterVisitor,
    LogicalExpr,
    LogicalOperator,
    Not,
    Present,
    ValuePath,
    coerce_value,
)
from sqlalchemy import SQLColumnExpression, and_, case, exists, false, func, literal, not_, or_, true
from sqlmodel import col

from db.tables import Group, GroupMember, User
from domain import scim
from domain.addresses import sought_address
from domain.scim import parsed_ids
from domain.text import storable

Column = SQLColumnExpression[Any]

PERSON: Final[Column] = and_(col(User.owner_id).is_(None), col(User.left_at).is_(None))
"""Whom a SCIM client sees."""

USER_NAME: Final[Column] = func.coalesce(User.user_name, User.email)
"""What SCIM clients call somebody."""


def _told(*path: str) -> Column:
    """A part of what a client said, as text."""
    return func.jsonb_extract_path_text(col(User.profile), *path)


def _unless_told(otherwise: str, *path: str) -> Column:
    return case((col(User.profile).is_(None), literal(otherwise)), else_=_told(*path))


_OF_USERS: Final[Mapping[str, Column]] = {
    "id": col(User.id),
    "external_id": col(User.external_id),
    "user_name": USER_NAME,
    "display_name": col(User.name),
    "active": col(User.active),
    "emails.value": col(User.email),
    "emails.type": _unless_told("work", "email", "type"),
    "emails.primary": _unless_told("true", "email", "primary") == "true",
    "name.formatted": _told("name", "formatted"),
    "name.given_name": _told("name", "givenName"),
    "name.family_name": _told("name", "familyName"),
    "meta.created": col(User.created_at),
}
_OF_GROUPS: Final[Mapping[str, Column]] = {
    "id": col(Group.id),
    "external_id": col(Group.external_id),
    "display_name": col(Group.name),
    "members.value": col(GroupMember.user_id),
    "meta.created": col(Group.created_at),
}
_IDS: Final = frozenset({"id", "members.value"})
_ADDRESSES: Final = frozenset({"user_name", "emails.value"})
_NO_TEXT: Final = frozenset({"active", "emails.primary", "meta.created"})
_OF_TEXT: Final = frozenset({CompareOperator.co, CompareOperator.sw, CompareOperator.ew})

_COMPARED: Final[Mapping[CompareOperator, Callable[[Column, Any], Column]]] = {
    CompareOperator.eq: operator.eq,
    CompareOperator.ne: lambda column, value: column.is_distinct_from(value),
    CompareOperator.co: lambda column, value: func.strpos(column, value) > 0,
    CompareOperator.sw: func.starts_with,
    CompareOperator.ew: lambda column, value: func.right(column, func.length(value)) == value,
    CompareOperator.gt: operator.gt,
    CompareOperator.ge: operator.ge,
    CompareOperator.lt: operator.lt,
    CompareOperator.le: operator.le,
}


def user_condition(matching: ScimFilter[scim.User] | None) -> Column:
    """What a filter says of `users`.

    Raises:
        InvalidFilterException: it asks for something that has no column.
    """
    return true() if matching is None else _Condition(matching, _OF_USERS).visit(matching.ast)


def group_condition(matching: ScimFilter[scim.Group] | None) -> Column:
    """What a filter says of `groups`.

    Raises:
        InvalidFilterException: it asks for something that has no column.
    """
    return true() if matching is None else _Condition(matching, _OF_GROUPS).visit(matching.ast)


class _Condition(FilterVisitor[Column]):
    """Text is compared in any case, but for what is `caseExact` (RFC 7643, section 2.2)."""

    def __init__(self, matching: ScimFilter[Any], columns: Mapping[str, Column]) -> None:
        self._filter = matching
        self._columns = columns
        self._within: str | None = None
        """The attribute whose values are being looked at: within `emails[…]`, emails."""

    def visit_logical_expr(self, node: LogicalExpr) -> Column:
        terms = [self.visit(term) for term in node.terms]
        return and_(*terms) if node.op is LogicalOperator.and_ else or_(*terms)

    def visit_not(self, node: Not) -> Column:
        # What is not known is not so.
        return not_(func.coalesce(self.visit(node.expr), false()))

    def visit_present(self, node: Present) -> Column:
        name, column = self._column(node.attr_path, for_comparison=False)
        return _of_members(name, column.is_not(None))

    def visit_value_path(self, node: ValuePath) -> Column:
        self._within = node.attr_path.attr
        try:
            return self.visit(node.val_filter)
        finally:
            self._within = None

    def visit_comparison(self, node: Comparison) -> Column:
        name, column = self._column(node.attr_path, for_comparison=True)
        if node.value is None:
            missing = column.is_(None)
            return _of_members(name, not_(missing) if node.op is CompareOperator.ne else missing)
        value: Any = node.value
        if name in _IDS:
            if node.op not in {CompareOperator.eq, CompareOperator.ne}:
                raise InvalidFilterException(detail=f"{self._whole(node.attr_path)} is compared by eq or ne")
            ids = parsed_ids([str(value)])
            if not ids:
                return literal(node.op is CompareOperator.ne)
            value = ids[0]
        elif name in _NO_TEXT:
            binding = self._filter.resolve_comparison(self._whole(node.attr_path))
            if binding is None or not isinstance(value, bool | str):
                raise InvalidFilterException(detail=f"{self._whole(node.attr_path)} is not compared with that")
            if node.op in _OF_TEXT:
                raise InvalidFilterException(detail=f"{self._whole(node.attr_path)} is no text")
            value = coerce_value(binding, value)
        else:
            value = self._text(node)
            if name in _ADDRESSES:
                column, value = func.folded_address(column), func.folded_address(sought_address(value))
            elif name != "external_id":
                column, value = func.folded_name(column), func.folded_name(value)
        return _of_members(name, _COMPARED[node.op](column, value))

    def _text(self, node: Comparison) -> str:
        whole = self._whole(node.attr_path)
        if not isinstance(node.value, str):
            raise InvalidFilterException(detail=f"{whole} is compared with a text")
        try:
            # What the filter spells with escapes was not there when the edge looked.
            return unicodedata.normalize("NFC", storable(node.value))
        except ValueError as error:
            raise InvalidFilterException(detail=f"what {whole} is compared with {error}") from None

    def _whole(self, attribute: AttrPath) -> AttrPath:
        return attribute if self._within is None else AttrPath(self._within, attribute.attr)

    def _column(self, attribute: AttrPath, *, for_comparison: bool) -> tuple[str, Column]:
        whole = self._whole(attribute)
        binding = (self._filter.resolve_comparison if for_comparison else self._filter.resolve)(whole)
        if binding is not None:
            name = binding.field_name
            for known in (f"{name}.{binding.sub_field_name or 'value'}", *(() if binding.sub_field_name else (name,))):
                if known in self._columns:
                    return known, self._columns[known]
        raise InvalidFilterException(detail=f"{whole} cannot be looked for here")


def _of_members(name: str, condition: Column) -> Column:
    if name != "members.value":
        return condition
    return exists().where(
        col(GroupMember.group_id) == col(Group.id), col(GroupMember.user_id) == col(User.id), PERSON, condition
    )
