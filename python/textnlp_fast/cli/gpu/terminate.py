"""`textnlp-fast gpu terminate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import FleetVerb, json_option
from textnlp_fast.cli.gpu.fleet import (
    confirmed,
    open_known_fleet,
    places_option,
    tell_problems,
    usd,
    yes_option,
)
from textnlp_fast.cli.output import print_json, print_line
from textnlp_fast.errors import InvalidInputError, TextnlpFastError

if TYPE_CHECKING:
    from textnlp_fast.gpu.resources.fleet import FleetInstance


@click.command("terminate", cls=FleetVerb)
@click.argument("instances", nargs=-1, metavar="[INSTANCE]...")
@click.option("--all", "everything", is_flag=True, help="All machines of the fleet.")
@places_option
@yes_option
@json_option
def command(
    *, instances: tuple[str, ...], everything: bool, places: tuple[str, ...], yes: bool, as_json: bool
) -> int:
    """End machines with their disks. Those that have ended already are no mistake.

    Asks first: what is on the disks is gone. A place that does not answer is told of on stderr, and the machines of the
    others are ended all the same.
    """
    if bool(instances) == everything:
        raise InvalidInputError("name instances, or --all", hint="`textnlp-fast gpu list` shows them.")
    from textnlp_fast.gpu.resources.keeping import Problem  # noqa: PLC0415

    manager, problems = open_known_fleet(places)
    problems += manager.settle()
    listed = {one.instance_id: one for one in manager.list(refresh=False)}
    wanted = tuple(listed) if everything else instances
    alive = [listed[one] for one in wanted if one in listed]
    if alive:
        rate = sum(one.usd_per_hour for one in alive if one.costs.running)
        confirmed(f"End {len(alive)} machines ({usd(rate)} an hour) with their disks?", yes)
    # Ids that are not listed first: one that no launch has is a mistake, and then nothing is ended.
    ended = list(manager.release([one for one in wanted if one not in listed]))
    problems = [one for one in problems if everything or one.place in {_place(it) for it in alive}]
    for place in dict.fromkeys(_place(one) for one in alive):
        if place not in manager.places:
            continue
        try:
            ended += manager.release([one for one in alive if _place(one) == place])
        except TextnlpFastError as error:
            problems = [*(one for one in problems if one.place != place), Problem(place=place, error=error)]
    code = tell_problems(problems)
    if as_json:
        print_json({"terminated": ended})
        return code
    for one in ended:
        print_line(f"{one} ended; it cost {usd(listed[one].costs.spent_usd) if one in listed else 'nothing'}")
    if not ended:
        print_line("nothing was ended" if code else "nothing to end")
    return code


def _place(one: FleetInstance) -> tuple[str, str]:
    return one.provider, one.region
