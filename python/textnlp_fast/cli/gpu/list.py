"""`textnlp-fast gpu list`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import FleetVerb, json_option
from textnlp_fast.cli.gpu.fleet import (
    instance_document,
    open_known_fleet,
    places_option,
    print_instances,
    tell_missing_journal,
    tell_problems,
)
from textnlp_fast.cli.output import print_json


@click.command("list", cls=FleetVerb)
@places_option
@click.option("--offline", is_flag=True, help="Show what the journal knows, and ask no cloud.")
@json_option
def command(*, places: tuple[str, ...], offline: bool, as_json: bool) -> int:
    """Show the machines of the fleet that have not ended.

    Looks at the clouds first: what a process launched and did not live to write down is found, what ended is written
    down. A place that does not answer is told of on stderr, and its machines are shown as the journal has them.
    """
    code = 0
    if offline:
        from textnlp_fast.gpu.resources import GPUResourceManager  # noqa: PLC0415

        manager = GPUResourceManager()
        tell_missing_journal(manager)
    else:
        manager, problems = open_known_fleet(places)
        code = tell_problems([*problems, *manager.settle()])
    found = manager.list(refresh=False)
    if as_json:
        print_json({"instances": [instance_document(one) for one in found]})
    else:
        print_instances(found)
    return code
