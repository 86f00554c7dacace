"""Where a message may go: an address of the public internet, or a host that the operator allows by name.

Whoever manages integrations chooses the URL, and a name can resolve to anything. So what is judged is the address that
is connected to, not the name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

import httpx

from domain.addresses import with_ascii_host

Address = IPv4Address | IPv6Address

# IANA's special-purpose registries, written out: what `ipaddress` makes of them differs between versions of Python.
_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        # Azure's metadata, which looks public; those of the other clouds are link-local, private or shared.
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(network)
    for network in (
        # Teredo among them. Like 6to4 it leads to an IPv4 address of the sender's choice, and nobody is reached
        # through either any more.
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
)
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""NAT64 (RFC 6052): the IPv4 address in the last 32 bits is where the packet ends up."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_NAME: Final = re.compile(r"([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
_IPV6: Final = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*")
_LAST_PORT: Final = 65_535
_IPV4_CHARS: Final = frozenset("0123456789.")


class Refused(Exception):
    """The message may not go there; the text says why, and names no secret."""


@dataclass(frozen=True)
class Place:
    """Where a URL leads, before its host is resolved."""

    scheme: str
    host: str
    """In lower case, as ASCII; an IPv6 address without brackets."""
    port: int
    path: str
    """With the query."""
    allowed: bool
    """Whether the operator allows it by name."""

    @property
    def authority(self) -> str:
        """For the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def place_of(url: str, allowed_hosts: frozenset[str]) -> Place:
    """Where `url` leads.

    Raises:
        Refused: it is no URL that a message may go to.
    """
    try:
        # httpx maps neither full-width letters nor an upper-case Σ as browsers do.
        parsed = httpx.URL(with_ascii_host(url))
        host = parsed.raw_host.decode("ascii").lower()
    except (httpx.InvalidURL, ValueError, TypeError):
        raise Refused("It is not a URL.") from None
    if parsed.scheme not in _DEFAULT_PORTS or not (_NAME.fullmatch(host) or _IPV6.fullmatch(host)):
        raise Refused("It must start with https:// and name a host.")
    if parsed.userinfo:
        raise Refused("It must not have a user name or a password in it.")
    if parsed.fragment:
        raise Refused("It must not have a fragment.")
    port = _DEFAULT_PORTS[parsed.scheme] if parsed.port is None else parsed.port
    if not 0 < port <= _LAST_PORT:
        raise Refused("It must have a port that exists.")
    bracketed = f"[{host}]" if ":" in host else host
    allowed = not allowed_hosts.isdisjoint({bracketed, f"{bracketed}:{port}"})
    if parsed.scheme != "https" and not allowed:
        raise Refused("It must start with https://.")
    place = Place(parsed.scheme, host, port, parsed.raw_path.decode("ascii"), allowed)
    if not allowed and (literal := _literal(host)) is not None:
        check_address(literal)
    return place


def check_address(address: Address) -> None:
    """Refuse an address that is not on the public internet.

    Raises:
        Refused: it is not; the text says what it is.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return check_address(address.ipv4_mapped)
        if address in _TRANSLATED:
            return check_address(IPv4Address(address.packed[-4:]))
        public = address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_PUBLIC_6)
    else:
        public = not any(address in network for network in _NOT_PUBLIC_4)
    if not public:
        raise Refused(
            "Its host is not on the public internet. JUSTIAM_ALLOWED_INTERNAL_HOSTS lists the internal ones that may "
            "be reached."
        )
    return None


def _literal(host: str) -> Address | None:
    """The address that is meant where `host` is one as people write them; other spellings are left to the resolver."""
    if ":" not in host and not _IPV4_CHARS.issuperset(host):
        return None
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None
