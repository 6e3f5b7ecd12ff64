"""Loopback names and addresses: how a browser may name a server that only this machine can reach."""

import ipaddress
import urllib.parse


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_local_host_header(header: str, bound_host: str) -> bool:
    """Return whether a Host header ("localhost:8000", "[::1]") names this machine or the host that the server listens on.

    This prevents DNS rebinding: a page of another site can make its own host name resolve to 127.0.0.1, and then shares an
    origin with the server. The Host header still contains the name of that site.
    """
    try:
        name = urllib.parse.urlsplit(f"//{header}").hostname
    except ValueError:
        return False
    return name is not None and (is_loopback(name) or name == bound_host.lower())
