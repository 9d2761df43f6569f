"""`textnlp-fast gateway run`: HAProxy and the agent of its weights, until it is ended."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from textnlp_fast.cli.arguments import FiniteRange
from textnlp_fast.cli.gateway.plan_options import plan_of, plan_options


@click.command("run")
@plan_options
@click.option(
    "--haproxy", default="haproxy", show_default=True, metavar="PROGRAM", help="HAProxy, 2.6 or newer."
)
@click.option(
    "--drain",
    type=FiniteRange(min=0),
    default=600.0,
    show_default=True,
    metavar="S",
    help="How long streams may go on at the end.",
)
def command(*, haproxy: str, drain: float, keys: Path | None, **options: Any) -> None:
    """Run the gateway. SIGTERM ends it when its streams have ended, a second one at once.

    Replicas are read once a second; SIGKILL leaves HAProxy running, with the weights it has.
    """
    from textnlp_fast.adapter.gateway.haproxy_config import haproxy_config  # noqa: PLC0415
    from textnlp_fast.adapter.gateway.plan import key_digests  # noqa: PLC0415
    from textnlp_fast.adapter.gateway.running import run_gateway  # noqa: PLC0415

    plan = plan_of(keys=keys, **options)
    digests = key_digests(keys.read_text().splitlines()) if keys is not None else None
    asyncio.run(
        run_gateway(
            plan,
            haproxy_config(plan),
            program=haproxy,
            key_digests=digests,
            drain_s=drain,
            ready=lambda: click.echo(
                f"listening on {plan.listen}, runtime socket {plan.socket_path}", err=True
            ),
        )
    )
