"""`textnlp-fast gpu why`: what the autoscaler decided, and why."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import click

from textnlp_fast.cli.arguments import FleetVerb, json_option
from textnlp_fast.cli.output import print_json, print_line
from textnlp_fast.cli.program import printable

EPILOG = """\b
Examples:
  textnlp-fast gpu why --store s3://bucket/autoscaler --at 14:02
  textnlp-fast gpu why --fleet aws-asg-llm-us-east-1 --at 2026-01-31T14:02:00+01:00 --json
"""


@click.command("why", cls=FleetVerb, epilog=EPILOG)
@click.option("--store", metavar="URL", help="Where the autoscaler keeps its log.  [default: the fleet's]")
@click.option("--fleet", metavar="NAME", help="Which fleet; may be left out where there is one.")
@click.option("--at", metavar="TIME", help="14:02 (UTC), or a date and time.  [default: now]")
@json_option
def command(*, store: str | None, fleet: str | None, at: str | None, as_json: bool) -> None:
    """Say why a fleet had so many replicas at a time: what was observed, what decided, what came of it."""
    from textnlp_fast.gpu.scaling.autoscaler import GPUAutoscalerManager  # noqa: PLC0415

    told = asyncio.run(GPUAutoscalerManager(store=store).explain(at, name=fleet))
    if as_json:
        print_json(
            {**asdict(told.record), "demand_later": told.demand_later, "sentences": list(told.sentences)}
        )
        return
    for line in told.sentences:
        print_line(printable(line))
