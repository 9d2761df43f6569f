"""`textnlp-fast gpu simulate`: what policies of scaling would have done with traffic, and what it would have cost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import FiniteRange, json_option
from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.gpu.scaling.simulator.fluid import Market, Run
    from textnlp_fast.gpu.scaling.simulator.runs import Frontier
    from textnlp_fast.gpu.scaling.simulator.traffic import Traffic

EPILOG = """\b
Examples:
  textnlp-fast gpu simulate
  textnlp-fast gpu simulate --trace rates.csv --scale 0.1 --policy ours,knative,hpa --cold-start 600 --plot week.png
  textnlp-fast gpu simulate --trace requests.jsonl --usd-per-hour 12.5 --policy ours --slo-attainment 0.99
  textnlp-fast gpu simulate --policy all --frontier --days 2
"""

_POSITIVE = FiniteRange(min=0.0, min_open=True)
_FROM_ZERO = FiniteRange(min=0.0)
_SHARE = FiniteRange(min=0.0, max=1.0, min_open=True)


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


_TRAFFIC = _options(
    click.option(
        "--trace",
        default="sample",
        show_default=True,
        metavar="FILE",
        help="Rates or requests as CSV or JSON lines (see the guide); `sample`: made up, with launches.",
    ),
    click.option("--scale", type=_POSITIVE, default=1.0, show_default=True, help="Of a trace's rates."),
    click.option("--days", type=_POSITIVE, help="Only the first.  [default: all; of the sample 14]"),
    click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of what is drawn."),
    click.option(
        "--prompt", type=_POSITIVE, default=1000.0, show_default=True, help="Mean tokens, of rates."
    ),
    click.option("--output", type=_POSITIVE, default=250.0, show_default=True, help="Mean tokens, of rates."),
)
_FLEET = _options(
    click.option(
        "--policy",
        "policies",
        default="ours,knative,static_peak",
        show_default=True,
        metavar="NAMES",
        help="With commas between; `all` for all.",
    ),
    click.option(
        "--slo-attainment",
        type=FiniteRange(min=0.0, max=1.0, min_open=True, max_open=True),
        default=0.999,
        show_default=True,
        help="What ours aims at.",
    ),
    click.option(
        "--target", type=_SHARE, default=0.7, show_default=True, help="The utilisation that others aim at."
    ),
    click.option("--frontier", is_flag=True, help="Each policy at all of its settings instead."),
    click.option(
        "--cold-start",
        type=_FROM_ZERO,
        default=180.0,
        show_default=True,
        help="Seconds from order to service.",
    ),
    click.option(
        "--wait", type=_FROM_ZERO, default=1.0, show_default=True, help="The SLO: seconds in the queue."
    ),
    click.option(
        "--patience", type=_POSITIVE, default=60.0, show_default=True, help="Who waits longer leaves."
    ),
    click.option(
        "--prefill",
        type=_POSITIVE,
        default=7500.0,
        show_default=True,
        help="Tokens/s that a replica takes in.",
    ),
    click.option(
        "--decode",
        type=_POSITIVE,
        default=1000.0,
        show_default=True,
        help="Tokens/s that a replica generates.",
    ),
    click.option("--usd-per-hour", type=_FROM_ZERO, help="What a replica costs."),
    click.option("--spot-usd-per-hour", type=_FROM_ZERO, help="What a spot one costs."),
    click.option("--spot-share", type=_SHARE, help="Share of the replicas that is spot."),
    click.option(
        "--spot-loss", "losses", multiple=True, metavar="HOUR=COUNT", help="Spot ones taken then; repeatable."
    ),
)
_OUTPUT = _options(
    click.option("--plot", type=click.Path(path_type=Path), help="Draw the runs: FILE.png or .svg."),
    json_option,
)


@click.command("simulate", epilog=EPILOG)
@_TRAFFIC
@_FLEET
@_OUTPUT
def command(**chosen: Any) -> None:
    """Try policies of scaling on traffic: requests within the SLO, replica-hours, changes, dollars.

    A replica is paid from its order on and serves a cold start later. Hours are set beside those of an oracle that
    knows what will come. See the guide on what the model leaves out.
    """
    from textnlp_fast.cli.gpu import simulate_output  # noqa: PLC0415
    from textnlp_fast.gpu.scaling.simulator.oracle import oracle_of  # noqa: PLC0415
    from textnlp_fast.gpu.scaling.simulator.runs import policy_names  # noqa: PLC0415

    names = _names(chosen["policies"], policy_names())
    market = _market(chosen)
    if chosen["patience"] < chosen["wait"]:
        raise InvalidInputError(
            "nobody can wait longer than the patience", hint="Raise --patience, or lower --wait."
        )
    if chosen["plot"] is not None:
        if chosen["frontier"]:
            raise InvalidInputError(
                "a frontier has too many runs to be drawn", hint="Leave out --frontier or --plot."
            )
        from textnlp_fast.cli.gpu import simulate_plot  # noqa: PLC0415

        simulate_plot.files_of(chosen["plot"])  # complain before the work, not after it
    traffic = _traffic(chosen)
    oracle = oracle_of(traffic, cold_start_s=chosen["cold_start"])
    if chosen["frontier"]:
        simulate_output.show_frontiers(
            traffic, _frontiers(names, traffic, market, chosen), oracle, market, chosen
        )
        return
    runs = _runs(names, traffic, market, chosen)
    if chosen["plot"] is not None:
        simulate_plot.draw(traffic, runs, oracle, chosen["plot"], priced=market is not None and market.priced)
    simulate_output.show_runs(traffic, runs, oracle, market, chosen)


def _names(text: str, known: tuple[str, ...]) -> list[str]:
    names = list(known) if text == "all" else list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise InvalidInputError(f"no policy is called {name!r}", hint=f"There are {', '.join(known)}.")
    return names


def _market(chosen: dict[str, Any]) -> Market | None:
    from textnlp_fast.gpu.scaling.simulator.fluid import Market  # noqa: PLC0415

    spot = chosen["spot_share"] is not None
    if chosen["spot_usd_per_hour"] is not None and not spot:
        raise InvalidInputError("--spot-usd-per-hour means nothing without --spot-share")
    if chosen["losses"] and not spot:
        raise InvalidInputError("--spot-loss means nothing without --spot-share")
    if spot and (chosen["usd_per_hour"] is None) != (chosen["spot_usd_per_hour"] is None):
        raise InvalidInputError("a part of the fleet has no price", hint="Give both prices, or none.")
    if chosen["usd_per_hour"] is None and not spot:
        return None
    return Market(
        usd_per_hour=chosen["usd_per_hour"] or 0.0,
        spot_usd_per_hour=chosen["spot_usd_per_hour"] or 0.0,
        spot_share=chosen["spot_share"] or 0.0,
        losses=tuple(_loss(text) for text in chosen["losses"]),
    )


def _loss(text: str) -> tuple[float, int]:
    hour, sign, count = text.partition("=")
    try:
        if not sign or not count.isdecimal() or len(count) > 9:
            raise ValueError
        return float(hour) * 3600.0, int(count)
    except ValueError:
        raise InvalidInputError(
            f"{text!r} is no loss of spot replicas",
            hint="Write --spot-loss 30.5=4: four, 30.5 hours after the begin.",
        ) from None


def _traffic(chosen: dict[str, Any]) -> Traffic:
    from textnlp_fast.gpu.scaling.simulator.seasons import made_trace  # noqa: PLC0415
    from textnlp_fast.gpu.scaling.simulator.traces import RequestTrace, read_trace  # noqa: PLC0415
    from textnlp_fast.gpu.scaling.simulator.traffic import ReplicaSpeed, TokenMix  # noqa: PLC0415

    speed = ReplicaSpeed(prefill_tokens_per_s=chosen["prefill"], decode_tokens_per_s=chosen["decode"])
    days = chosen["days"]
    if chosen["trace"] == "sample":
        trace = made_trace(days=days or 14.0, seed=chosen["seed"], name="sample")
    else:
        read = read_trace(Path(chosen["trace"]))
        if isinstance(read, RequestTrace):
            if chosen["scale"] != 1.0:
                raise InvalidInputError(
                    "--scale is for rates: this trace has single requests",
                    hint="Give slower replicas instead: --decode.",
                )
            return (read if days is None else read.first(days)).traffic(speed=speed)
        trace = read
    tokens = TokenMix(prompt_mean=chosen["prompt"], output_mean=chosen["output"])
    return trace.traffic(scale=chosen["scale"], days=days, seed=chosen["seed"], tokens=tokens, speed=speed)


def _setting(name: str, chosen: dict[str, Any]) -> float | None:
    if name in ("static_peak", "oracle"):
        return None
    return float(chosen["slo_attainment"] if name == "ours" else chosen["target"])


def _runs(names: list[str], traffic: Traffic, market: Market | None, chosen: dict[str, Any]) -> list[Run]:
    from textnlp_fast.gpu.scaling.simulator.runs import run_policy  # noqa: PLC0415

    runs = []
    with _progress(len(names)) as tell:
        for name in names:
            run = run_policy(
                name,
                traffic,
                setting=_setting(name, chosen),
                cold_start_s=chosen["cold_start"],
                queue_wait_s=chosen["wait"],
                patience_s=chosen["patience"],
                market=market,
            )
            runs.append(run)
            tell(name)
    return runs


def _frontiers(
    names: list[str], traffic: Traffic, market: Market | None, chosen: dict[str, Any]
) -> list[Frontier]:
    from textnlp_fast.gpu.scaling.simulator.runs import frontier_of, settings_of  # noqa: PLC0415

    frontiers = []
    with _progress(sum(len(settings_of(name)) for name in names)) as tell:
        for name in names:
            frontiers.append(
                frontier_of(
                    name,
                    traffic,
                    cold_start_s=chosen["cold_start"],
                    queue_wait_s=chosen["wait"],
                    patience_s=chosen["patience"],
                    market=market,
                    on_run=lambda setting, run: tell(f"{run.policy} {setting:g}"),
                )
            )
    return frontiers


@contextmanager
def _progress(length: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr that is told of each run as it ends; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(
        length=length, label="simulating", file=sys.stderr, item_show_func=lambda item: item or ""
    ) as bar:
        bar.render_progress()
        yield lambda item: bar.update(1, item)
