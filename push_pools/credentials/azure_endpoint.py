"""Where Azure Resource Manager is asked: at its public address, a sovereign cloud's, or a double on this machine."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

PUBLIC: Final = "https://management.azure.com"


def checked_endpoint(url: str) -> str:
    """Return an endpoint without its last slash.

    Raises:
        ValueError: It is no https URL; plain http is for doubles on the same machine, since tokens are sent to it.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ValueError(f"give a URL such as {PUBLIC}")
    if parts.scheme == "http" and not is_loopback(url):
        raise ValueError("plain http:// would show tokens to the network; use https://, or a loopback address")
    return url.strip().rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether an endpoint is on this machine, by its address; names but `localhost` are not looked up."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
