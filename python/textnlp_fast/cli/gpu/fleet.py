"""What the verbs of the fleet share: where it rents, what a machine looks like, asking before money is spent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from textnlp_fast.cli.gpu.provider_options import parsed_options
from textnlp_fast.cli.output import print_line, print_table
from textnlp_fast.cli.program import printable
from textnlp_fast.errors import InvalidInputError, MissingPackageError, TextnlpFastError

if TYPE_CHECKING:
    from textnlp_fast.gpu.resources import GPUResourceManager
    from textnlp_fast.gpu.resources.fleet import FleetInstance
    from textnlp_fast.gpu.resources.keeping import Problem

__all__ = [
    "confirmed",
    "instance_document",
    "open_fleet",
    "open_known_fleet",
    "places_option",
    "print_instances",
    "rented_places_option",
    "tell",
    "tell_missing_journal",
    "tell_problems",
    "usd",
    "yes_option",
]

_CANNOT_ASK = (InvalidInputError, MissingPackageError)
Command = TypeVar("Command", bound=Callable[..., Any])


def places_option(command: Command) -> Command:
    """`--in PROVIDER:REGION`, any number of times, for what looks where machines are, too."""
    return _places_option("AWS_REGION, and where machines are")(command)


def rented_places_option(command: Command) -> Command:
    """The same, for what rents: where machines are is no reason to rent more there."""
    return _places_option("AWS_REGION")(command)


def _places_option(default: str) -> Callable[[Command], Command]:
    return click.option(
        "--in",
        "places",
        multiple=True,
        metavar="PROVIDER:REGION",
        help=f"As aws:us-east-1, or local; repeatable.  [default: {default}]",
    )


def yes_option(command: Command) -> Command:
    """`--yes`."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)


def open_fleet(places: Sequence[str], options: Sequence[str] = ()) -> GPUResourceManager:
    """A manager to rent with: of these places, or of AWS_REGION's. Raises what keeps one of them from being made."""
    from textnlp_fast.gpu.resources import GPUResourceManager  # noqa: PLC0415

    manager = GPUResourceManager()
    wanted = _named(places, manager)
    chosen = parsed_options(options, {name for name, _ in wanted})
    for name, region in wanted:
        manager.register_provider(name, region, **chosen.get(name, {}))
    return manager


def open_known_fleet(places: Sequence[str]) -> tuple[GPUResourceManager, list[Problem]]:
    """A manager to look and to end with: of these places, and of those that the journal has machines in.

    A place that cannot be made is a problem, and no reason to leave the others alone; it raises where --in names it.
    """
    from textnlp_fast.gpu.resources import GPUResourceManager  # noqa: PLC0415
    from textnlp_fast.gpu.resources.keeping import Problem  # noqa: PLC0415

    manager = GPUResourceManager()
    tell_missing_journal(manager)
    known = dict.fromkeys(
        (record.provider, record.region)
        for record in manager.journal.records()
        # Of launches that did not end well, too: something may have come of them.
        if (record.phase != "launched" and not record.refused)
        or any(one.state.alive for one in record.instances)
    )
    wanted = _named(places, manager, needed=not known)
    problems = []
    for place in dict.fromkeys([*wanted, *known]):
        try:
            manager.register_provider(*place)
        except TextnlpFastError as error:
            if places and place in wanted:
                raise
            problems.append(Problem(place=place, error=error))
    return manager, problems


def _named(
    places: Sequence[str], manager: GPUResourceManager, *, needed: bool = True
) -> Sequence[tuple[str, str]]:
    """The places of --in; without any, AWS_REGION's."""
    wanted = dict.fromkeys(_parsed(place) for place in places)
    if not wanted and manager.settings.aws_region:
        wanted["aws", manager.settings.aws_region] = None
    if needed and not wanted:
        raise InvalidInputError(
            "no place was named", hint="Pass --in aws:us-east-1, for example, or set AWS_REGION."
        )
    return list(wanted)


def _parsed(place: str) -> tuple[str, str]:
    name, _, region = place.partition(":")
    if name == "local" and not region:
        region = "local"
    if not name or not region:
        raise InvalidInputError(
            f"--in {place!r} is not PROVIDER:REGION", hint="Write aws:us-east-1, for example."
        )
    return name, region


def confirmed(question: str, yes: bool) -> None:
    """Asks; Abort if the answer is no, InvalidInputError where there is nobody to ask."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInputError("there is nobody to ask", hint="Pass --yes to do it without being asked.")
    click.confirm(printable(question), abort=True, err=True)


def usd(amount: Any) -> str:
    """Dollars for people."""
    return f"${float(amount):,.2f}" if abs(float(amount)) >= 0.995 else f"${float(amount):.4f}"


def instance_document(one: FleetInstance) -> dict[str, Any]:
    """A machine for scripts."""
    instance = one.instance
    return {
        "instance_id": instance.instance_id,
        "provider": instance.provider,
        "region": instance.region,
        "zone": instance.zone,
        "instance_type": instance.instance_type,
        "gpu_type": one.gpu_type,
        "gpu_count": one.gpu_count,
        "market": str(instance.market),
        "state": str(instance.state),
        "launched_at": instance.launched_at.isoformat(),
        "launch_id": one.launch_id,
        "public_ip": instance.public_ip,
        "private_ip": instance.private_ip,
        "usd_per_hour": one.usd_per_hour,
        "on_demand_usd_per_hour": one.on_demand_usd_per_hour,
        "spent_usd": float(one.costs.spent_usd),
        "recovered": one.recovered,
        "tags": dict(instance.tags),
    }


def print_instances(instances: Iterable[FleetInstance]) -> None:
    """A table of machines; a line where there are none."""
    rows = [
        [
            one.instance_id,
            f"{one.provider}:{one.instance.zone or one.region}",
            one.instance.instance_type,
            f"{one.gpu_count:g} x {one.gpu_type.removeprefix('nvidia-')}",
            str(one.instance.market),
            str(one.instance.state),
            one.instance.public_ip or one.instance.private_ip or "",
            usd(one.usd_per_hour),
            usd(one.costs.spent_usd),
        ]
        for one in instances
    ]
    if not rows:
        print_line("no machines")
        return
    columns = ["Instance", "Where", "Type", "GPUs", "Market", "State", "Address", "Per hour", "Spent"]
    print_table(columns, rows, left=7)


def tell(message: str) -> None:
    """A line on stderr, beside what a verb answers."""
    click.echo(printable(message), err=True)


def tell_missing_journal(manager: GPUResourceManager) -> None:
    """Says on stderr where the journal that was named is not there: "no machines" would be half the truth."""
    state = manager.settings.fleet_state
    if state is not None and "://" not in state and not Path(state).exists():
        tell(
            f"the fleet's journal {state} (TEXTNLP_FAST_FLEET_STATE) is not there: nothing was launched with it yet"
        )


def tell_problems(problems: Iterable[Any]) -> int:
    """Says on stderr which places did not answer; the exit code for it."""
    code = 0
    for problem in problems:
        name, region = problem.place
        said = "cannot be asked" if isinstance(problem.error, _CANNOT_ASK) else "did not answer"
        tell(f"{name} in {region} {said}: {problem.error.args[0]}")
        code = code or problem.error.exit_code
    return code
