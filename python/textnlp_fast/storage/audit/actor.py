"""Who does it, as far as the machine says: claimed, not proven."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

__all__ = ["acting_as", "claimed_actor"]

# What the clouds and CI systems call whoever runs here. Names only: no value of these lets anyone in.
_IDENTITIES = (
    "AWS_ROLE_ARN",
    "AWS_PROFILE",
    "AZURE_CLIENT_ID",
    "CLOUDSDK_CORE_ACCOUNT",
    "GITHUB_ACTOR",
    "GITLAB_USER_LOGIN",
)
# As getpass.getuser looks for the user, before it asks the system.
_USERS = ("LOGNAME", "USER", "LNAME", "USERNAME")
_LONGEST = 256
_acting: ContextVar[str | None] = ContextVar("textnlp_fast_actor", default=None)


@cache
def _user_of(uid: int) -> str:
    """Looked up once: the machine's list of users is a file, or a server, and takes as long as a sync of the disk."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {uid}"


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Records of this thread are of `name` within the block: of whom a service works for, rather than its own user."""
    before = _acting.set(name)
    try:
        yield
    finally:
        _acting.reset(before)


def claimed_actor(name: str | None = None) -> dict[str, str]:
    """The actor of a record. A `name` that was configured or is acted as is all; else user, machine, role."""
    name = _acting.get() or name
    if name:
        return {"name": name[:_LONGEST]}
    actor = {"host": socket.gethostname()[:_LONGEST]}
    told = next(filter(None, map(os.environ.get, _USERS)), None)
    actor["name"] = (told or _user_of(os.getuid()))[:_LONGEST]
    for variable in _IDENTITIES:
        value = os.environ.get(variable)
        if value:
            actor["identity"] = f"{variable}={value}"[:_LONGEST]
            break
    return actor
