"""Checks of loopback names and addresses, for servers that only this machine can reach."""

import ipaddress
import urllib.parse


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on `host` can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_local_host_header(header: str, bound_host: str) -> bool:
    """Return whether a Host header ("localhost:8000", "[::1]") is a loopback name or the host that the server listens on.

    The check prevents DNS rebinding. Another site can make its host name resolve to 127.0.0.1, so that its pages have the same
    origin as this server. Their requests can still be recognized, because the Host header contains the name of that site.
    """
    try:
        name = urllib.parse.urlsplit(f"//{header}").hostname
    except ValueError:
        return False
    return name is not None and (is_loopback(name) or name == bound_host.lower())
