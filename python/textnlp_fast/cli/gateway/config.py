"""`textnlp-fast gateway config`: HAProxy's configuration, on stdout."""

from __future__ import annotations

from typing import Any

import click

from textnlp_fast.cli.gateway.plan_options import plan_of, plan_options


@click.command("config")
@plan_options
def command(**options: Any) -> None:
    """Print HAProxy's configuration for these replicas; `run` writes and runs the same."""
    from textnlp_fast.adapter.gateway.haproxy_config import haproxy_config  # noqa: PLC0415

    click.echo(haproxy_config(plan_of(**options)), nl=False)
