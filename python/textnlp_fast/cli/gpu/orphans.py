"""`textnlp-fast gpu orphans`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import FleetVerb, json_option
from textnlp_fast.cli.gpu.fleet import confirmed, open_known_fleet, places_option, tell_problems, yes_option
from textnlp_fast.cli.output import print_json, print_line, print_table


@click.command("orphans", cls=FleetVerb)
@click.option("--terminate", is_flag=True, help="End the machines that no launch knows.")
@places_option
@yes_option
@json_option
def command(*, terminate: bool, places: tuple[str, ...], yes: bool, as_json: bool) -> int:
    """Find machines that carry this fleet's tag and are in no record, and records whose machines are gone.

    The latter are written down as ended. Looks in the places of --in and where the journal has machines; machines of
    other owners are left alone.
    """
    manager, problems = open_known_fleet(places)
    found = manager.orphans()
    code = tell_problems([*problems, *found.problems])
    if terminate and found.strays:
        confirmed(f"End {len(found.strays)} machines that no launch knows?", yes)
        manager.orphans(terminate=True)
    if as_json:
        print_json(
            {
                "strays": [
                    {
                        "instance_id": one.instance_id,
                        "provider": one.provider,
                        "region": one.region,
                        "zone": one.zone,
                        "instance_type": one.instance_type,
                        "launched_at": one.launched_at.isoformat(),
                        "launch_id": one.launch_id,
                        "terminated": terminate,
                    }
                    for one in found.strays
                ],
                "lost": [{"launch_id": launch, "instance_id": one} for launch, one in found.lost],
            }
        )
        return code
    if found.strays:
        rows = [
            [
                one.instance_id,
                f"{one.provider}:{one.zone or one.region}",
                one.instance_type,
                f"{one.launched_at:%Y-%m-%d %H:%M}",
                "ended" if terminate else str(one.state),
            ]
            for one in found.strays
        ]
        print_table(["Known to no launch", "Where", "Type", "Since (UTC)", "State"], rows, left=5)
    for launch, one in found.lost:
        print_line(f"{one} of launch {launch} is gone; written down as ended")
    if not found.strays and not found.lost:
        print_line("none")
    return code
