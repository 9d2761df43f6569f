"""The file that says which replicas a target has, and where the agent of each is.

replicas:
  - serves: 10.0.0.1:8000
    agent: http://10.0.0.1:9402
  - serves: 10.0.0.2:8000
    agent: http://10.0.0.2:9402
    spare: true
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from textnlp_fast.adapter.documents import document_in
from textnlp_fast.adapter.rollout.agent import DEFAULT_AGENT_PORT
from textnlp_fast.adapter.rollout.records import MOST_REPLICAS
from textnlp_fast.adapter.rollout.replicas import Replica
from textnlp_fast.adapter.words import check_address, refuse, shown
from textnlp_fast.errors import InvalidInputError

__all__ = ["agents_beside", "read_pool"]

_KEYS: Final = {"serves", "agent", "spare"}


def agents_beside(addresses: Sequence[str]) -> tuple[Replica, ...]:
    """Replicas whose agents listen on the same machines, on the port that agents have by themselves.

    Raises InvalidInputError where two are on one machine: then a file says which agent is whose.
    """
    hosts = [one.rpartition(":")[0] for one in addresses]
    if len(set(hosts)) < len(hosts):
        raise InvalidInputError(
            "two replicas are on one machine, and only one agent can have the port of agents",
            hint="Write a file that names the agent of each, and pass it as --agents.",
        )
    return tuple(
        Replica(one, f"http://{host}:{DEFAULT_AGENT_PORT}")
        for one, host in zip(addresses, hosts, strict=True)
    )


def read_pool(path: str | os.PathLike[str]) -> tuple[tuple[Replica, ...], frozenset[str]]:
    """The replicas of a file of YAML or JSON, and the names of the spare ones. Raises InvalidInputError."""
    file = Path(path)
    document = document_in(file)
    rows = document.get("replicas") if isinstance(document, dict) and set(document) == {"replicas"} else None
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST_REPLICAS:
        raise InvalidInputError(
            f"{file} has no list of replicas",
            hint='Write, for example: replicas: [{serves: "10.0.0.1:8000", agent: "http://10.0.0.1:9402"}]',
        )
    replicas, spares = [], []
    for number, row in enumerate(rows):
        where = f"{file}: replicas[{number}]"
        if not isinstance(row, dict) or not {"serves", "agent"} <= set(row) <= _KEYS:
            refuse(where, f"must have serves and agent, and may have spare, not {shown(row)}")
        check_address(f"{where}.serves", row["serves"])
        if not isinstance(row.get("spare", False), bool):
            refuse(f"{where}.spare", "must be true or false")
        try:
            replicas.append(Replica(row["serves"], row["agent"]))
        except InvalidInputError as error:
            raise InvalidInputError(f"{where}.agent: {error.args[0]}", hint=error.hint) from None
        if row.get("spare"):
            spares.append(row["serves"])
    if len({one.name for one in replicas}) < len(replicas):
        raise InvalidInputError(f"{file} names a replica twice", hint="Each has an address of its own.")
    if len(spares) == len(replicas):
        raise InvalidInputError(f"{file} has spare replicas only", hint="Take `spare` from those that serve.")
    return tuple(replicas), frozenset(spares)
