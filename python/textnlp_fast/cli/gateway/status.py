"""`textnlp-fast gateway status`: replicas of a running gateway, as a table; and what one may change."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from textnlp_fast.cli.arguments import FiniteRange, json_option
from textnlp_fast.cli.gateway.plan_options import default_folder


@click.command("status")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="As `run` had it.")
@click.option("--add", metavar="HOST:PORT", help="Put a replica into a free slot.")
@click.option("--remove", metavar="HOST:PORT", help="Drain a replica and free its slot.")
@click.option("--drain", metavar="HOST:PORT", help="Send a replica no new requests.")
@click.option("--resume", metavar="HOST:PORT", help="Send a replica requests again.")
@click.option(
    "--deadline",
    type=FiniteRange(min=0),
    default=600.0,
    show_default=True,
    metavar="S",
    help="For --drain and --remove.",
)
@json_option
def command(
    *,
    folder: Path | None,
    add: str | None,
    remove: str | None,
    drain: str | None,
    resume: str | None,
    deadline: float,
    as_json: bool,
) -> None:
    """Show the replicas of a running gateway, after changes if any were asked for."""
    from textnlp_fast.adapter.gateway import Gateway  # noqa: PLC0415

    gateway = Gateway((folder or default_folder()).absolute() / "runtime.sock")
    if add:
        gateway.add(add)
    if drain:
        gateway.drain(drain, deadline)
    if resume:
        gateway.resume(resume)
    if remove:
        gateway.remove(remove, deadline_s=deadline)
    slots = [one for one in gateway.slots() if one.address is not None]
    if as_json:
        rows = [asdict(one) | {"address": str(one.address)} for one in slots]
        click.echo(json.dumps({"replicas": rows}, indent=2))
        return
    click.echo(f"{'REPLICA':<28} {'STATE':<9} {'WEIGHT':>6} {'IN FLIGHT':>9} {'QUEUED':>6}")
    for one in slots:
        state = "draining" if one.is_draining else "up" if one.is_up else "down"
        click.echo(f"{one.address!s:<28} {state:<9} {one.weight:>6} {one.in_flight:>9} {one.queued:>6}")
