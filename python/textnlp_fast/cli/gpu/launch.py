"""`textnlp-fast gpu launch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import FleetVerb, Number, json_option, notes
from textnlp_fast.cli.configured import setting
from textnlp_fast.cli.gpu.fleet import (
    confirmed,
    instance_document,
    open_fleet,
    print_instances,
    rented_places_option,
    tell,
    usd,
    yes_option,
)
from textnlp_fast.cli.output import print_json, print_line, print_table
from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.gpu.resources.candidates import Candidate, Plan
    from textnlp_fast.gpu.resources.requests import AcquireRequest

EPILOG = """\b
Examples:
  textnlp-fast gpu launch --gpu nvidia-t4 --gpus 2 --in aws:us-east-1
  textnlp-fast gpu launch --gpu l4 --gpu a10g --market spot-first --max-usd-per-hour 1.2 --dry-run
  textnlp-fast gpu launch --gpu t4 --in azure:westeurope --option azure.subnet=net/default \\
      --option azure.ssh_public_key=@~/.ssh/id_ed25519.pub
  textnlp-fast gpu launch --gpu h100 --gpus 8 --in aws:us-east-1 --in aws:us-west-2 --key train-42 --yes
"""
_LARGEST_USER_DATA = 1 << 20


@click.command("launch", cls=FleetVerb, epilog=EPILOG)
@click.option(
    "--gpu",
    "gpu_types",
    multiple=True,
    metavar="TYPE",
    default=setting("default_gpu_type", (), lambda name: (name,) if name else ()),
    show_default="DEFAULT_GPU_TYPE",
    help="As nvidia-t4; repeatable: any of them will do.",
)
@click.option("--gpus", type=Number(), default=1, show_default=True, help="GPUs of each machine, at least.")
@click.option("--instances", type=int, default=1, show_default=True, help="Machines.")
@click.option("--min-instances", type=int, help="Take fewer, down to this.  [default: all or none]")
@click.option("--spread", is_flag=True, help="Let the machines come from several places.")
@click.option(
    "--market",
    type=click.Choice(["on-demand", "spot", "spot-first"]),
    default=setting("enable_spot_instances", "on-demand", lambda on: "spot-first" if on else "on-demand"),
    show_default="spot-first with ENABLE_SPOT_INSTANCES, else on-demand",
)
@click.option(
    "--type", "types", multiple=True, metavar="NAME", help="Instance types to take only; repeatable."
)
@click.option("--zone", "zones", multiple=True, metavar="NAME", help="Zones to take only; repeatable.")
@click.option("--max-usd-per-hour", type=Number(), help="Cap on the price of one machine.")
@click.option("--expected-hours", type=Number(), default=1.0, show_default=True, help="For the total budget.")
@click.option("--image", help="The provider's name of an image.  [default: one with NVIDIA's driver]")
@click.option("--disk-gib", type=int, default=100, show_default=True)
@click.option("--user-data", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@click.option("--key", help="Name of the request: asked for again, it is the same machines.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="PROVIDER.NAME=VALUE",
    help="What a provider is made with, as azure.subnet=net/default; @FILE takes a file's text. Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be tried, in which order, and why.")
@rented_places_option
@yes_option
@json_option
def command(
    *,
    gpu_types: tuple[str, ...],
    gpus: float,
    types: tuple[str, ...],
    zones: tuple[str, ...],
    user_data: Path | None,
    tags: tuple[str, ...],
    options: tuple[str, ...],
    dry_run: bool,
    places: tuple[str, ...],
    yes: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Rent machines with GPUs.

    The cheapest that fits is tried first, what failed lately last. Before anything is asked of a cloud it is written to
    the journal: a launch that is cut off is found again, and happens once. Asks before it spends money.
    """
    manager = open_fleet(places, options)
    request = manager.request(
        gpu_types=gpu_types,
        gpu_count=gpus,
        instance_types=types or None,
        zones=zones or None,
        user_data=None if user_data is None else _read(user_data),
        tags=notes(tags, "--tag"),
        **chosen,
    )
    plan = manager.plan(request)
    if dry_run:
        _show(plan, request, as_json)
        return
    first = plan.candidates[0]
    dearest = max(one.usd_per_hour for one in plan.candidates)
    question = f"Launch {request.instances} x {first.name} at {usd(first.usd_per_hour)} an hour each"
    if dearest > first.usd_per_hour:
        question += f", or what else fits at up to {usd(dearest)}"
    confirmed(f"{question}?", yes)
    found = manager.acquire(request)
    if len(found) > request.instances:
        tell(
            f"the key {request.key!r} holds {len(found)} machines, and {request.instances} was asked for: "
            "`textnlp-fast gpu terminate` ends those that are too many"
        )
    if as_json:
        print_json({"instances": [instance_document(one) for one in found]})
    else:
        print_instances(found)


def _show(plan: Plan, request: AcquireRequest, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "instances": request.instances,
                "candidates": [_document(one) for one in plan.candidates],
                "rejected": [{"what": what, "why": why} for what, why in plan.rejected],
            }
        )
        return
    rows = [
        [
            str(place),
            f"{one.place.provider}:{one.place.zone or one.place.region}",
            " or ".join(other.place.instance_type for other in (one, *one.alternatives)),
            f"{one.instance_type.gpu_count:g} x {one.instance_type.gpu_type.value.removeprefix('nvidia-')}",
            str(one.place.market),
            _price(one),
            _why_last(one),
        ]
        for place, one in enumerate(plan.candidates, 1)
    ]
    print_table(["", "Where", "Type", "GPUs", "Market", "Per hour", ""], rows, left=5)
    for what, why in plan.rejected:
        print_line(f"not tried: {what}: {why}")
    print_line(f"nothing was launched; {request.instances} would be, from the first place that has them")


def _price(one: Candidate) -> str:
    most = f" to {usd(one.most_usd_per_hour)}" if one.alternatives else ""
    return usd(one.usd_per_hour) + most + (" (old price)" if one.stale else "")


def _why_last(one: Candidate) -> str:
    if one.failure is None:
        return ""
    times = f"{one.failure.times} times, " if one.failure.times > 1 else ""
    return f"tried last: {one.failure.kind} {times}until {one.failure.until:%H:%M} UTC"


def _document(one: Candidate) -> dict[str, Any]:
    listed = one.on_demand_usd_per_hour
    return {
        "provider": one.place.provider,
        "region": one.place.region,
        "zone": one.place.zone,
        "instance_type": one.place.instance_type,
        "alternatives": [other.place.instance_type for other in one.alternatives],
        "gpu_type": str(one.instance_type.gpu_type),
        "gpu_count": one.instance_type.gpu_count,
        "market": str(one.place.market),
        "usd_per_hour": float(one.usd_per_hour),
        "on_demand_usd_per_hour": None if listed is None else float(listed),
        "stale": one.stale,
        "failure": None
        if one.failure is None
        else {
            "kind": one.failure.kind,
            "why": one.failure.why,
            "times": one.failure.times,
            "until": one.failure.until.isoformat(),
        },
    }


def _read(path: Path) -> str:
    data = path.read_bytes()
    if len(data) > _LARGEST_USER_DATA:
        raise InvalidInputError(f"{path} has {len(data)} bytes: no cloud takes so much user data")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path} is not UTF-8") from None
