"""Who does it, as far as the machine says: claimed, not proven."""

from __future__ import annotations

import getpass
import os
import socket

__all__ = ["claimed_actor"]

# What the clouds and CI systems call whoever runs here. Names only: no value of these lets anyone in.
_IDENTITIES = (
    "AWS_ROLE_ARN",
    "AWS_PROFILE",
    "AZURE_CLIENT_ID",
    "CLOUDSDK_CORE_ACCOUNT",
    "GITHUB_ACTOR",
    "GITLAB_USER_LOGIN",
)
_LONGEST = 256


def claimed_actor(name: str | None = None) -> dict[str, str]:
    """The actor of a record. A `name` that was configured is all of it; else the user, the machine and the role."""
    if name:
        return {"name": name[:_LONGEST]}
    actor = {"host": socket.gethostname()[:_LONGEST]}
    try:
        actor["name"] = getpass.getuser()[:_LONGEST]
    except (KeyError, OSError):  # a container's user without a name
        actor["name"] = f"uid {os.getuid()}"
    for variable in _IDENTITIES:
        value = os.environ.get(variable)
        if value:
            actor["identity"] = f"{variable}={value}"[:_LONGEST]
            break
    return actor
