"""The names of this machine for itself: what a browser may call a server that only this machine reaches."""

import ipaddress
import urllib.parse


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def names_loopback(header: str, bound_host: str) -> bool:
    """Whether a Host header ("localhost:8000", "[::1]") names this machine by itself or by the host that was bound.

    A page of another site can have its own name lead to 127.0.0.1 (DNS rebinding) and would be of one origin with the server;
    the header still has that name.
    """
    try:
        name = urllib.parse.urlsplit(f"//{header}").hostname
    except ValueError:
        return False
    return name is not None and (is_loopback(name) or name == bound_host.lower())
