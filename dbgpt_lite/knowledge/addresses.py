"""Which hosts may be asked for a page: names and addresses of the public internet, in no disguise."""

import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv6Address

from dbgpt_lite.errors import UserError

Address = IPv4Address | IPv6Address

# IANA's special-purpose registries (https://www.iana.org/assignments/iana-ipv4-special-registry), written out: what
# `is_global` of the standard library knows depends on its version, and it takes multicast for global.
_PRIVATE_V4 = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
# The whole of the public IPv6 internet, and what is special inside it (Teredo, ORCHID, documentation, 6to4, SRv6).
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_PRIVATE_V6 = tuple(
    ipaddress.IPv6Network(block)
    for block in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
# Networks without IPv4 write public IPv4 addresses so (RFC 6052); what counts is the address inside.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# The interface part of ISATAP addresses (RFC 5214), which end in an IPv4 address.
_ISATAP = (0x00005EFE, 0x02005EFE)

# Names that mean this machine or this network, whatever a resolver says (RFC 6761, 6762, 8375; ICANN's .internal).
_LOCAL_NAMES = ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "home.arpa")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})+")
# Ports below 1024 other than the web's own are mail, remote shells and the like.
_WEB_PORTS = (80, 443)
_FIRST_FREE_PORT = 1024


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, also when it wraps another one."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _PRIVATE_V4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    isatap = (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    return address in _PUBLIC_V6 and not isatap and not any(address in block for block in _PRIVATE_V6)


def is_foreign(address: Address) -> bool:
    """Public and not this machine: behind its firewall it could reach by its public address what others cannot."""
    return is_public(address) and not _is_own(address)


def _is_own(address: Address) -> bool:
    """A socket can be bound only to an address of the machine itself."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def literal(host: str) -> Address | None:
    """The address that a host spells out, None for a name. `host` is lower-case ASCII, without brackets.

    Raises UserError (knowledge.url_private) for numbers that are no plain dotted quad: 127.1, 0x7f000001, 017700000001
    and 2130706433 are 127.0.0.1 to some programs and names or nonsense to others.
    """
    if ":" in host:
        try:
            return IPv6Address(host)
        except ValueError:
            raise UserError("knowledge.url_invalid") from None
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        try:
            return IPv4Address(host)
        except ValueError:
            raise UserError("knowledge.url_private", host=host) from None
    return None


def check_name(host: str) -> None:
    """Raises UserError for a host name of this machine or network, or one that is no name at all."""
    name = host.removesuffix(".")
    labels = name.split(".")
    if len(labels) < 2 or any(name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES):
        raise UserError("knowledge.url_private", host=host)
    if not _NAME.fullmatch(name):
        raise UserError("knowledge.url_invalid")


def check_port(port: int) -> None:
    """Raises UserError for a port that is no web server's."""
    if port not in _WEB_PORTS and not _FIRST_FREE_PORT <= port <= 65535:
        raise UserError("knowledge.url_port", port=port)
