"""Which IP addresses a webhook may be sent to."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK = "a loopback address"
PRIVATE = "a private address"

SETTINGS = {PRIVATE: "allow_private_webhooks", LOOPBACK: "allow_loopback_webhooks"}

# The first row that contains an address says what it is. What no row and no global range contains is refused.
_KINDS: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), kind)
    for network, kind in (
        # Cloud metadata services hand out credentials: refused even where private addresses are allowed.
        ("169.254.169.254/32", "a cloud metadata address"),
        ("100.100.100.200/32", "a cloud metadata address"),  # Alibaba
        ("168.63.129.16/32", "a cloud metadata address"),  # Azure
        ("192.0.0.192/32", "a cloud metadata address"),  # Oracle
        ("fd00:ec2::/32", "a cloud metadata address"),  # AWS: ::254, ::23 of EKS, and whatever follows
        ("fd20:ce::254/128", "a cloud metadata address"),  # Google
        ("0.0.0.0/8", "an unspecified address"),  # Linux connects 0.0.0.0 to itself
        ("::/128", "an unspecified address"),
        ("127.0.0.0/8", LOOPBACK),
        ("::1/128", LOOPBACK),
        ("169.254.0.0/16", "a link-local address"),
        ("fe80::/10", "a link-local address"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("10.0.0.0/8", PRIVATE),
        ("172.16.0.0/12", PRIVATE),
        ("192.168.0.0/16", PRIVATE),
        ("100.64.0.0/10", PRIVATE),  # carrier-grade NAT
        ("fc00::/7", PRIVATE),
        ("fec0::/10", PRIVATE),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "a reserved address"),
        ("192.88.99.0/24", "a reserved address"),
        ("198.18.0.0/15", "a reserved address"),
        ("198.51.100.0/24", "a reserved address"),
        ("203.0.113.0/24", "a reserved address"),
        ("240.0.0.0/4", "a reserved address"),
        ("2001::/23", "a reserved address"),  # Teredo and other protocols
        ("2001:db8::/32", "a reserved address"),
        ("3fff::/20", "a reserved address"),
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def check_address(ip: str, *, allow_private: bool, allow_loopback: bool) -> str | None:
    """None when a webhook may go to this address, else the reason why not, as a sentence.

    An IPv4 address carried inside an IPv6 one (mapped, 6to4, NAT64) is judged as itself.
    """
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return f"{ip!r} is not an IP address."
    kind = _kind(_carried(address))
    allowed = kind is None or (kind == PRIVATE and allow_private) or (kind == LOOPBACK and allow_loopback)
    without = f" without {SETTINGS[kind]}" if kind in SETTINGS else ""
    return None if allowed else f"{ip} is {kind}, and webhooks are not sent there{without}."


def _carried(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _kind(address: Address) -> str | None:
    for network, kind in _KINDS:
        if address in network:
            return kind
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_V6:
        return "a reserved address"
    return None
