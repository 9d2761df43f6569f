"""The options that make a gateway's plan, for the verbs that need one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.adapter.gateway import GatewayPlan

__all__ = ["default_folder", "is_loopback_host", "plan_of", "plan_options"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option(
        "--replica", "replicas", multiple=True, metavar="HOST:PORT", help="An engine. May be repeated."
    ),
    click.option(
        "--listen",
        default="127.0.0.1:8080",
        show_default=True,
        metavar="HOST:PORT",
        help="Where clients ask.",
    ),
    click.option(
        "--slots", type=int, default=16, show_default=True, help="Replicas there may be without a reload."
    ),
    click.option(
        "--balance",
        type=click.Choice(["least_loaded", "round_robin", "affinity"]),
        default="least_loaded",
        show_default=True,
        help="Who gets a request.",
    ),
    click.option(
        "--affinity-header",
        default="x-session-id",
        show_default=True,
        help="What `affinity` goes by: a header.",
    ),
    click.option(
        "--keys", type=_FILE, metavar="FILE", help="SHA-256 of bearer keys that may ask, a line each."
    ),
    click.option(
        "--requests-per-minute", type=int, help="Of one key, or of one address where there are no keys."
    ),
    click.option(
        "--request-limit",
        type=int,
        default=8 << 20,
        show_default=True,
        metavar="BYTES",
        help="Largest request.",
    ),
    click.option(
        "--in-flight", type=int, help="Requests at once to one replica; others wait in the gateway."
    ),
    click.option(
        "--silence",
        type=int,
        default=600,
        show_default=True,
        metavar="S",
        help="Longest time without a byte.",
    ),
    click.option(
        "--health-path", default="/health", show_default=True, help="Answers 200 where a replica is well."
    ),
    click.option("--tls", type=_FILE, metavar="FILE", help="PEM with certificate and key, for clients."),
    click.option(
        "--metrics", default="127.0.0.1:8405", show_default=True, metavar="HOST:PORT", help="For Prometheus."
    ),
    click.option(
        "--agent-port", type=int, default=8406, show_default=True, help="Loopback port of the weights' agent."
    ),
    click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="For the configuration and the runtime socket. Default: a folder of the user's.",
    ),
)


def plan_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def default_folder() -> Path:
    """Where a gateway keeps its configuration and its socket if nobody says."""
    return (
        Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        / f"textnlp-fast-gateway-{os.getuid()}"
    )


def plan_of(
    *,
    replicas: tuple[str, ...],
    listen: str,
    slots: int,
    balance: str,
    affinity_header: str,
    keys: Path | None,
    requests_per_minute: int | None,
    request_limit: int,
    in_flight: int | None,
    silence: int,
    health_path: str,
    tls: Path | None,
    metrics: str,
    agent_port: int,
    folder: Path | None,
) -> GatewayPlan:
    """The plan that the options describe. Raises InvalidInputError; without keys only for this machine alone."""
    from textnlp_fast.adapter.gateway.plan import Endpoint, GatewayPlan, endpoint  # noqa: PLC0415

    where = endpoint(listen)
    if keys is None and not is_loopback_host(where.host):
        raise InvalidInputError(
            f"{listen} is reached from other machines, and there are no keys",
            hint="Give --keys FILE with the SHA-256 of each key that may ask.",
        )
    place = (folder or default_folder()).absolute()
    return GatewayPlan(
        endpoints=tuple(endpoint(one) for one in replicas),
        socket_path=place / "runtime.sock",
        listen=where,
        metrics=endpoint(metrics) if metrics else None,
        agent=Endpoint("127.0.0.1", agent_port) if agent_port else None,
        slots=max(slots, len(replicas)),
        balance=balance,
        affinity_header=affinity_header,
        keys_file=place / "keys" if keys is not None else None,
        requests_per_minute=requests_per_minute,
        request_limit_bytes=request_limit,
        in_flight_per_replica=in_flight,
        health_path=health_path,
        silence_s=silence,
        tls_certificate=tls.absolute() if tls is not None else None,
    )


def is_loopback_host(host: str) -> bool:
    """Whether only this machine reaches an address."""
    from textnlp_fast.gpu.health.addresses import is_loopback  # noqa: PLC0415

    return host == "localhost" or is_loopback(host)
