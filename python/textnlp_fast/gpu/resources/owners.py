"""The name of a fleet, which its machines carry as a tag."""

from __future__ import annotations

import getpass
import os
import re
import socket

from textnlp_fast.errors import InvalidInputError

__all__ = ["checked_owner", "default_owner"]


def default_owner() -> str:
    """User and host: two people in one account do not end each other's machines."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        user = str(os.getuid())
    return re.sub(r"[^a-z0-9_-]+", "-", f"{user}-{socket.gethostname()}".lower())[:63].strip("-")


def checked_owner(owner: str) -> str:
    """The name, if all clouds take it as a tag. Raises InvalidInputError."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", owner, re.ASCII):
        raise InvalidInputError(
            f"{owner!r} is no name of a fleet",
            hint="Use 1 to 63 of a-z, 0-9, '-' and '_': clouds take no more.",
        )
    return owner
