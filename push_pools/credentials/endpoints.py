"""Where an API is, if not at its cloud's own address: a test's double, or a private address."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Endpoint:
    """The address of an API."""

    host: str
    port: int
    is_plain: bool
    """Whether it is spoken to without TLS, which only happens within one machine."""

    @property
    def target(self) -> str:
        """Host and port, as gRPC wants them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as a URL without a path, and without a port that it would have anyhow."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _usual_port(self.is_plain) else f":{self.port}"
        return f"{'http' if self.is_plain else 'https'}://{host}{port}"


def read_endpoint(text: str) -> Endpoint:
    """Return the endpoint that a URL names.

    Raises:
        ValueError: It is not a URL of a host, or would send tokens in clear text to another machine.
    """
    parts = urlsplit(text.strip())
    is_url = parts.scheme in ("http", "https") and parts.hostname and not parts.username
    if not is_url or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("write a URL such as https://HOST or http://127.0.0.1:PORT, without a path")
    is_plain = parts.scheme == "http"
    if is_plain and not is_loopback(parts.hostname):
        raise ValueError("http:// is taken for this machine (127.0.0.1) only; write https://")
    return Endpoint(parts.hostname, parts.port or _usual_port(is_plain), is_plain)


def _usual_port(is_plain: bool) -> int:
    return 80 if is_plain else 443


def is_loopback(host: str) -> bool:
    """Whether a host is this machine. Names but `localhost` are not looked up: they could be made to lie."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
