"""Which addresses are those of the public internet: what a server may be sent to by strangers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

Address = IPv4Address | IPv6Address

_UNICAST = ip_network("2000::/3")
"""All that is assigned of IPv6; what lies outside is local, reserved or another way to write IPv4 (mapped, NAT64)."""
_EXCEPT = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # protocols
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # the host of virtual machines, in a public range (Azure)
            "2001::/23",  # protocols, Teredo among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: IPv4 inside
            "3fff::/20",  # documentation
        ),
    )
)


def is_public(address: Address) -> bool:
    """Whether an address is of a host on the public internet, and no other spelling of one that isn't."""
    if isinstance(address, IPv6Address) and (address not in _UNICAST or address.scope_id is not None):
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _EXCEPT)
