"""`textnlp-fast gpu autoscale`: a fleet that follows its load."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import FiniteRange, FleetVerb, json_option
from textnlp_fast.cli.output import print_line
from textnlp_fast.cli.program import printable
from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError

if TYPE_CHECKING:
    from textnlp_fast.gpu.scaling.autoscaler.manager import GPUAutoscalerManager
    from textnlp_fast.gpu.scaling.autoscaler.period import FleetLoop
    from textnlp_fast.gpu.scaling.autoscaler.records import DecisionRecord
    from textnlp_fast.gpu.scaling.signals.contract import Observer

EPILOG = """\b
Examples:
  textnlp-fast gpu autoscale aws-asg:llm?region=us-east-1 --observe http://10.0.0.5:8000 --once --dry-run
  textnlp-fast gpu autoscale kubernetes:prod/deployment/llm --prometheus http://prometheus:9090 --max 20
  textnlp-fast gpu autoscale aws --store s3://bucket/autoscaler

\b
Runs until it is interrupted; the fleet then stays as it is. Several with one --store share the work: one acts, the
others stand by. Turned off by GPU_AUTOSCALING=false.
Exit codes: 1 the decision of --once could not be carried out, 7 --once found another at work.
"""


@click.command("autoscale", cls=FleetVerb, epilog=EPILOG)
@click.argument("target")
@click.option("--observe", multiple=True, metavar="URL", help="A replica's /metrics; may be repeated.")
@click.option(
    "--prometheus", metavar="URL", help="A Prometheus that scrapes the replicas, in place of --observe."
)
@click.option(
    "--match", "matches", multiple=True, metavar="LABEL=VALUE", help="Which series of it are the fleet's."
)
@click.option("--model", metavar="NAME", help="The served model, where replicas serve several.")
@click.option(
    "--min", "least", type=click.IntRange(0), default=1, show_default=True, help="Replicas at least."
)
@click.option(
    "--max", "most", type=click.IntRange(1), default=10, show_default=True, help="Replicas at most."
)
@click.option(
    "--ttft", "ttft_s", type=FiniteRange(0, min_open=True), help="The SLO: seconds to the first token."
)
@click.option(
    "--capacity",
    "requests_per_s",
    type=FiniteRange(0, min_open=True),
    help="Requests a second that one replica carries; else learned.",
)
@click.option(
    "--period",
    "period_s",
    type=FiniteRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds between decisions.",
)
@click.option("--usd-per-hour", type=FiniteRange(0, min_open=True), help="What one replica costs.")
@click.option(
    "--store", metavar="URL", help="Folder or bucket for lease, state and log.  [default: the fleet's]"
)
@click.option("--name", help="The fleet's name there.  [default: made of the target]")
@click.option("--once", is_flag=True, help="Make one decision, and exit.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; tell the fleet nothing. Needs --once.")
@json_option
def command(
    *,
    target: str,
    observe: tuple[str, ...],
    prometheus: str | None,
    matches: tuple[str, ...],
    model: str | None,
    least: int,
    most: int,
    ttft_s: float | None,
    requests_per_s: float | None,
    period_s: float,
    usd_per_hour: float | None,
    store: str | None,
    name: str | None,
    once: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Let the size of a fleet follow its load.

    TARGET is a fleet, such as aws-asg:NAME?region=us-east-1, or a provider, of which plain machines are then rented.
    Without --observe and --prometheus, port 8000 of each ready replica is asked for its /metrics.
    """
    from textnlp_fast.gpu.scaling.autoscaler import GPUAutoscalerManager  # noqa: PLC0415
    from textnlp_fast.gpu.scaling.policy import ReplicaCapacity, ScalingPolicy  # noqa: PLC0415

    if dry_run and not once:
        raise InvalidInputError("--dry-run says what one decision would do", hint="Add --once.")
    policy = ScalingPolicy(
        min_instances=least,
        max_instances=most,
        ttft_s=ttft_s,
        period_s=period_s,
        usd_per_hour=usd_per_hour,
        capacity=ReplicaCapacity(requests_per_s=requests_per_s),
    )
    manager = GPUAutoscalerManager(
        policy=policy, observer=_observer(observe, prometheus, matches, model, policy), store=store
    )
    if once:
        return asyncio.run(_once(manager, target, name, dry_run, as_json))
    return asyncio.run(_until_interrupted(manager, target, name, as_json))


def _observer(
    urls: tuple[str, ...], prometheus: str | None, matches: tuple[str, ...], model: str | None, policy: Any
) -> Observer:
    from textnlp_fast.cli.arguments import notes  # noqa: PLC0415
    from textnlp_fast.gpu.scaling.signals.prometheus_server import PrometheusObserver  # noqa: PLC0415
    from textnlp_fast.gpu.scaling.signals.replicas import ReplicaScraper  # noqa: PLC0415

    if prometheus is None:
        if matches:
            raise InvalidInputError("--match is for --prometheus", hint="Name the server: --prometheus URL.")
        return ReplicaScraper(urls, slo=policy, model=model)
    if urls:
        raise InvalidInputError("--observe and --prometheus are two ways to the same", hint="Leave one out.")
    return PrometheusObserver(prometheus, slo=policy, model=model, matchers=notes(matches, "--match"))


async def _once(
    manager: GPUAutoscalerManager, target: str, name: str | None, dry_run: bool, as_json: bool
) -> int:
    loop = manager.prepared(target, name=name, dry_run=dry_run)
    if dry_run:
        # Nothing is written, so nobody needs to be kept out.
        await loop.take_over(0)
        record = await loop.period(lambda: True)
    else:
        record = await manager.runner(loop).once()
    if record is None:
        raise ProviderUnavailableError(
            "; ".join(alert.text for alert in loop.alerts) or "nothing could be decided"
        )
    _show(record, loop, as_json=as_json)
    return 0 if record.outcome in ("told", "dry run") else 1


async def _until_interrupted(
    manager: GPUAutoscalerManager, target: str, name: str | None, as_json: bool
) -> int:
    ended = asyncio.Event()
    events = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        events.add_signal_handler(number, ended.set)
    manager.on_decision(lambda loop, record: _show(record, loop, as_json=as_json))
    try:
        async with manager:
            await manager.start_autoscaling(target, name=name)
            for one in manager.status():
                if one.trouble and not as_json:
                    print_line(f"{one.role}: {printable(one.trouble)}")
            await ended.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            events.remove_signal_handler(number)
    return 0


def _show(record: DecisionRecord, loop: FleetLoop, *, as_json: bool) -> None:
    if as_json:
        print_line(json.dumps({"fleet": loop.book.name, **asdict(record)}))
        return
    from textnlp_fast.gpu.scaling.autoscaler.explaining import sentences_of  # noqa: PLC0415

    for line in sentences_of(record):
        print_line(printable(line))
