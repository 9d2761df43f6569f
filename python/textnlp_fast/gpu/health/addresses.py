"""Addresses that the agent listens on, and the names that callers give for them."""

from __future__ import annotations

import ipaddress
import socket

from textnlp_fast.errors import InvalidInputError

__all__ = ["host_name", "is_loopback", "listening", "resolved"]


def resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The address that a name means. Raises InvalidInputError if it means none."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise InvalidInputError(f"cannot listen on {host!r}, port {port}: {error}") from None
    return family, (str(address[0]), int(address[1]))


def listening(family: socket.AddressFamily, address: tuple[str, int], host: str) -> socket.socket:
    """A socket that listens there. Raises InvalidInputError where it cannot, as on a port that is taken."""
    try:
        return socket.create_server(address[:2], family=family, backlog=64)
    except OSError as error:
        raise InvalidInputError(
            f"cannot listen on {host}, port {address[1]}: {error.strerror or error}",
            hint="Does an agent run there already? Choose another port; 0 takes any that is free.",
        ) from None


def host_name(header: str) -> str:
    """The name of a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def is_loopback(name: str) -> bool:
    """Whether a name is an address that only this machine reaches."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
