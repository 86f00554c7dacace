"""Mail addresses and host names in the one spelling that is stored, compared and connected to.

IDNA 2008 with the mapping of UTS #46 (non-transitional), as browsers have it: upper case and full-width letters become
lower case and half width, `。` becomes a dot; `ß`, `ς` and the joiners stay what they are, because with them a name is
another one. Python's own "idna" codec is IDNA 2003, which sends `straße.example` to `strasse.example`. Every standard
function that takes a host name applies that codec to what is not ASCII. Therefore a host is made ASCII here first.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Final

import email_validator
import idna
from pydantic import AfterValidator, BeforeValidator, EmailStr

from domain.text import SEEN_WHOLE, STORABLE

# Addresses name accounts here and need not be reachable by mail: `deploy@corp.local` is accepted.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


def _alone(value: object) -> object:
    """Refuse an address with a name before it, of which `EmailStr` would take the address alone."""
    if isinstance(value, str) and "<" in value:
        raise ValueError("must be an address alone, without a name")
    return value


Email = Annotated[EmailStr, BeforeValidator(_alone), STORABLE, SEEN_WHOLE]
"""A mail address, normalised by `email_validator`: local part in NFC, domain in lower-case Unicode (U-labels)."""

_LONGEST_SOUGHT: Final = 2048
"""Characters up to which a text is brought into the spelling of addresses, as those of `EmailStr`: the time that it
takes can be the square of their number."""
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?)([^/?#@:\[\]]+)")
"""A URL up to its host, and the host."""


def ascii_host(host: str) -> str:
    """Return a host name with A-labels, in lower case; ASCII names and IP addresses are only put in lower case.

    Raises:
        ValueError: it is not ASCII, and IDNA 2008 does not allow it.
    """
    if host.isascii():
        return host.lower()
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"is not a host name: {error}") from None


HostName = Annotated[str, AfterValidator(ascii_host)]
"""A host name or an IP address, in ASCII."""


def with_ascii_host(url: str) -> str:
    """Return `url` with its host as `ascii_host` returns it; a URL whose host is ASCII is returned as it is.

    Raises:
        ValueError: its host is not ASCII, and IDNA 2008 does not allow it.
    """
    found = _URL.match(url)
    if found is None or found[2].isascii():
        return url
    return f"{found[1]}{ascii_host(found[2])}{url[found.end() :]}"


def normal_address(address: str) -> str:
    """Return a mail address as it is stored.

    Raises:
        ValueError: it is not an address.
    """
    return email_validator.validate_email(address.strip(), check_deliverability=False).normalized


def sought_address(text: str) -> str:
    """Return an address, or a part of one, spelled as stored addresses are, so that it finds them.

    What is not a whole address is taken as follows: the part behind the last `@`, or all of a text that has a label in
    Punycode, is mapped as a domain; the rest is put in NFC. A text that is longer than every address is returned as it
    is, since it finds nothing.
    """
    if len(text) > _LONGEST_SOUGHT:
        return text
    try:
        return normal_address(text)
    except ValueError:
        pass
    local, at, domain = text.rpartition("@")
    if not at and "xn--" not in text.lower():
        return unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFC", local) + at + _shown_domain(domain)


def mailbox(address: str) -> tuple[str, str]:
    """Return the local part of an address and its domain as ASCII, as a mail server is told them.

    Raises:
        ValueError: it is not an address.
    """
    # Without a dot as well: the operator's mail server may know `access@mailhost`.
    checked = email_validator.validate_email(address, check_deliverability=False, globally_deliverable=False)
    return checked.local_part, checked.ascii_domain


def _shown_domain(domain: str) -> str:
    try:
        mapped = idna.uts46_remap(domain, std3_rules=False)
    except idna.IDNAError:
        return unicodedata.normalize("NFC", domain)
    return ".".join(_shown_label(label) for label in mapped.split("."))


def _shown_label(label: str) -> str:
    try:
        return idna.ulabel(label) if label.startswith("xn--") else label
    except idna.IDNAError:
        return label
