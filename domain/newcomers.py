"""Somebody who comes with the word of an identity provider and has no account yet."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import email_validator
from pydantic import TypeAdapter, ValidationError

from domain.directory import UserValues
from domain.text import LONGEST_NAME, Name

_NAME: Final = TypeAdapter(Name)
_LONGEST_EMAIL: Final = 320


def normal_domain(domain: str) -> str:
    """`domain` as addresses are stored with it.

    Raises:
        ValueError: it is none.
    """
    try:
        return email_validator.validate_email(f"anybody@{domain}", check_deliverability=False).domain
    except email_validator.EmailNotValidError:
        raise ValueError("must be a domain, as in example.com") from None


def counted_address(email: str, domains: Collection[str]) -> str | None:
    """An address as it is stored; None where it counts for nothing.

    Args:
        email: as the provider has it, and has verified it.
        domains: those that count; empty: all do.
    """
    if len(email) > _LONGEST_EMAIL:
        return None
    try:
        checked = email_validator.validate_email(email, check_deliverability=False)
    except email_validator.EmailNotValidError:
        return None
    local, _, domain = email.rpartition("@")
    alike = {checked.domain.encode(), checked.ascii_domain.encode()}
    # What was verified is this mailbox, and not another whose letters become the same: the Kelvin sign is a k.
    if local != checked.local_part or domain.encode().lower() not in alike:
        return None
    return checked.normalized if not domains or checked.domain in domains else None


def newcomer(email: str, name: object) -> UserValues:
    """The account of somebody new.

    Args:
        email: their address, as `counted_address` has it.
        name: as the provider has it. Where it is no name that an account can have, the address stands for it.
    """
    try:
        return UserValues(email=email, name=_NAME.validate_python(name))
    except ValidationError:
        return UserValues(email=email, name=email[:LONGEST_NAME])
