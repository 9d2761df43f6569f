"""On a machine of a cloud: whether the cloud takes it back."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final, Protocol

from textnlp_fast.errors import InvalidInputError, TextnlpFastError
from textnlp_fast.gpu.health.facts import Event

__all__ = ["TAKEN", "await_notice"]

#: Events after which a machine is gone in minutes or seconds.
TAKEN: Final = frozenset({"spot-interruption", "preempted"})
_MOST_PAUSE_S: Final = 30.0


class _Source(Protocol):
    interval_s: float

    async def read(self) -> Any: ...


async def await_notice(cloud: str, *, endpoint: str | None = None) -> Event:
    """Asks the machine's metadata service until it says so, and gives the event.

    One that does not answer is asked again, at first as often as its cloud says, then every 30 s. Raises
    InvalidInputError for a cloud without one.
    """
    source = _source(cloud, endpoint)
    pause = source.interval_s
    while True:
        try:
            facts = await source.read()
            pause = source.interval_s
        except TextnlpFastError:
            facts = ()
            pause = min(_MOST_PAUSE_S, 2 * max(pause, 0.5))
        for fact in facts:
            if isinstance(fact, Event) and fact.kind in TAKEN:
                return fact
        await asyncio.sleep(pause)


def _source(cloud: str, endpoint: str | None) -> _Source:
    machine = socket.gethostname()
    where: dict[str, Any] = {} if endpoint is None else {"endpoint": endpoint}
    if cloud == "aws":
        from textnlp_fast.gpu.health.sources.aws_metadata import AwsMetadataSource  # noqa: PLC0415

        return AwsMetadataSource(machine, **where)
    if cloud == "gcp":
        from textnlp_fast.gpu.health.sources.gcp_metadata import GcpMetadataSource  # noqa: PLC0415

        return GcpMetadataSource(machine, **where)
    if cloud == "azure":
        from textnlp_fast.gpu.health.sources.azure_events import AzureEventsSource  # noqa: PLC0415

        return AzureEventsSource(machine, **where)
    raise InvalidInputError(
        f"{cloud!r} has no metadata service that is known here", hint="aws, gcp and azure have one."
    )
