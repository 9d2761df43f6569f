"""Which addresses of a store may be used: TLS to other machines, and no credentials in URLs."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from textnlp_fast.errors import InvalidInputError

__all__ = ["check_endpoint", "is_loopback"]


def check_endpoint(endpoint: str, *, allow_http: bool) -> bool:
    """Whether the endpoint is plain HTTP, which only this machine may be unless the caller says otherwise.

    Raises ``InvalidInputError`` for what is no ``https://`` or ``http://`` URL, for one that carries credentials (they
    are not repeated in the message), and for plain HTTP to another machine.
    """
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname
        port = parts.port  # reading it checks it
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if "@" in endpoint or parts.query or parts.fragment:
        raise InvalidInputError(
            "the endpoint URL carries credentials or a query",
            hint="Take them out: credentials come from the environment, a profile or a role only.",
        )
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise InvalidInputError(
            f"{endpoint!r} is no endpoint URL", hint="Give https://host or https://host:port."
        )
    if parts.scheme == "https":
        return False
    if not allow_http and not is_loopback(host):
        raise InvalidInputError(
            f"{endpoint!r} would send weights and signatures in clear",
            hint="Use https://, or pass allow_http=True if the network is yours.",
        )
    return True


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine: ``localhost`` or a loopback address, written as one.

    No name is looked up: what a name means may change between the check and the use.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
