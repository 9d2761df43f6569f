"""`textnlp-fast gpu terminate`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import FleetVerb, json_option
from textnlp_fast.cli.gpu.fleet import confirmed, open_fleet, places_option, usd, yes_option
from textnlp_fast.cli.output import print_json, print_line
from textnlp_fast.errors import InvalidInputError


@click.command("terminate", cls=FleetVerb)
@click.argument("instances", nargs=-1, metavar="[INSTANCE]...")
@click.option("--all", "everything", is_flag=True, help="All machines of the fleet.")
@places_option
@yes_option
@json_option
def command(
    *, instances: tuple[str, ...], everything: bool, places: tuple[str, ...], yes: bool, as_json: bool
) -> None:
    """End machines with their disks. Those that have ended already are no mistake.

    Asks first: what is on the disks is gone.
    """
    if bool(instances) == everything:
        raise InvalidInputError("name instances, or --all", hint="`textnlp-fast gpu list` shows them.")
    manager = open_fleet(places)
    listed = {one.instance_id: one for one in manager.list()}
    wanted = tuple(listed) if everything else instances
    alive = [listed[one] for one in wanted if one in listed]
    if alive:
        rate = sum(one.usd_per_hour for one in alive if one.costs.running)
        confirmed(f"End {len(alive)} machines ({usd(rate)} an hour) with their disks?", yes)
    ended = manager.release(wanted)
    if as_json:
        print_json({"terminated": list(ended)})
        return
    for one in ended:
        print_line(f"{one} ended; it cost {usd(listed[one].costs.spent_usd) if one in listed else 'nothing'}")
    if not ended:
        print_line("nothing to end")
