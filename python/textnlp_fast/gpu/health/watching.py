"""Which sources tell of which machines: what `start_monitoring` was asked for, as sources."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.health.sources import Source
from textnlp_fast.gpu.health.sources.dcgm import DcgmSource, DcgmXids
from textnlp_fast.gpu.providers.contract import Provider

__all__ = ["Wanted", "checked_machines", "sources_for"]

_MOST_NAME: Final = 256
_MOST_MACHINES: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to watch, as the caller said it."""

    provider: str | Provider
    machines: tuple[str, ...]
    region: str | None = None
    endpoint_url: str | None = None
    agents: Mapping[str, str] = field(default_factory=dict)
    dcgm: Mapping[str, str] = field(default_factory=dict)
    on_machine: bool = False
    metadata_url: str | None = None
    interval_s: float | None = None
    sources: Sequence[Source] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    client: Any = None


def checked_machines(instance_ids: Sequence[str]) -> tuple[str, ...]:
    """The ids, each once. Raises InvalidInputError for none, too many, or what is no id."""
    if isinstance(instance_ids, str) or not isinstance(instance_ids, Collection) or not instance_ids:
        raise InvalidInputError(
            "there is nothing to monitor", hint='Give a list of ids: ["i-0123456789abcdef0"].'
        )
    if len(instance_ids) > _MOST_MACHINES:
        raise InvalidInputError(f"{len(instance_ids)} machines are too many for one monitor")
    for one in instance_ids:
        if not isinstance(one, str) or not one or len(one) > _MOST_NAME or not one.isprintable():
            raise InvalidInputError(f"{one!r:.100} is no id of a machine")
    return tuple(dict.fromkeys(instance_ids))


def sources_for(
    wanted: Wanted, *, clock: Callable[[], float], xids: Callable[[str], DcgmXids]
) -> list[Source]:
    """The sources.

    Raises InvalidInputError where nothing would tell of a machine, MissingPackageError without an SDK.
    """
    for what, table in (("agents", wanted.agents), ("dcgm", wanted.dcgm)):
        strangers = sorted(set(table) - set(wanted.machines))
        if strangers:
            raise InvalidInputError(f"{what} names {strangers[0]!r}, which is not to be monitored")
    if wanted.on_machine and len(wanted.machines) != 1:
        raise InvalidInputError("on_machine is for the one machine that this runs on")
    faster: dict[str, Any] = {} if wanted.interval_s is None else {"interval_s": wanted.interval_s}
    found: list[Source] = list(wanted.sources)
    found += _of_provider(wanted, clock, faster)
    for machine, url in wanted.dcgm.items():
        found.append(
            DcgmSource(
                machine, url, headers=wanted.headers, xids=xids(f"{machine} {url}"), clock=clock, **faster
            )
        )
    if wanted.agents:
        from textnlp_fast.gpu.health.sources.agent import AgentSource  # noqa: PLC0415

        found += [
            AgentSource(machine, url, headers=wanted.headers, clock=clock, **faster)
            for machine, url in wanted.agents.items()
        ]
    told = {machine for source in found for machine in source.machines}
    untold = [machine for machine in wanted.machines if machine not in told]
    if untold:
        raise InvalidInputError(
            f"nothing tells of {untold[0]!r}",
            hint="Name its agent (agents=) or dcgm-exporter (dcgm=), or pass a Provider that knows it.",
        )
    return found


def _of_provider(wanted: Wanted, clock: Callable[[], float], faster: Mapping[str, Any]) -> list[Source]:
    provider = wanted.provider
    if isinstance(provider, Provider):
        from textnlp_fast.gpu.health.sources.provider_states import ProviderStatesSource  # noqa: PLC0415

        found: list[Source] = [ProviderStatesSource(provider, wanted.machines, clock=clock, **faster)]
        return found + _metadata(provider.name, wanted, clock)
    if provider == "aws":
        from textnlp_fast.gpu.health.sources.ec2 import Ec2Source, ec2_client  # noqa: PLC0415

        client = wanted.client or ec2_client(wanted.region, endpoint_url=wanted.endpoint_url)
        source = Ec2Source(wanted.machines, client, region=wanted.region or "", clock=clock, **faster)
        return [source, *_metadata(provider, wanted, clock)]
    if provider == "local":
        from textnlp_fast.gpu.health.sources.local import LocalSource  # noqa: PLC0415

        if len(wanted.machines) != 1:
            raise InvalidInputError("`local` is one machine: this one")
        # The machine itself is only looked at where nothing else tells of it.
        if wanted.machines[0] in wanted.dcgm or wanted.machines[0] in wanted.agents or wanted.sources:
            return []
        return [LocalSource(wanted.machines[0], clock=clock, **faster)]
    if not provider or not provider.isprintable():
        raise InvalidInputError(f"{provider!r} is no provider")
    return _metadata(provider, wanted, clock)


def _metadata(provider: str, wanted: Wanted, clock: Callable[[], float]) -> list[Source]:
    if not wanted.on_machine:
        return []
    machine = wanted.machines[0]
    where: dict[str, Any] = {} if wanted.metadata_url is None else {"endpoint": wanted.metadata_url}
    if provider == "aws":
        from textnlp_fast.gpu.health.sources.aws_metadata import AwsMetadataSource  # noqa: PLC0415

        return [AwsMetadataSource(machine, clock=clock, **where)]
    if provider == "gcp":
        from textnlp_fast.gpu.health.sources.gcp_metadata import GcpMetadataSource  # noqa: PLC0415

        return [GcpMetadataSource(machine, clock=clock, **where)]
    if provider == "azure":
        from textnlp_fast.gpu.health.sources.azure_events import AzureEventsSource  # noqa: PLC0415

        return [AzureEventsSource(machine, clock=clock, **where)]
    raise InvalidInputError(f"{provider!r} has no metadata service that is known here")
