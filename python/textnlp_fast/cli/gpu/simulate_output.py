"""How simulated runs are printed: tables for people, JSON for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textnlp_fast.cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from textnlp_fast.gpu.scaling.simulator.fluid import Market, Run
    from textnlp_fast.gpu.scaling.simulator.oracle import Oracle
    from textnlp_fast.gpu.scaling.simulator.runs import Frontier
    from textnlp_fast.gpu.scaling.simulator.traffic import Traffic

__all__ = ["show_frontiers", "show_runs"]


def show_runs(
    traffic: Traffic, runs: list[Run], oracle: Oracle, market: Market | None, chosen: dict[str, Any]
) -> None:
    """A row a policy."""
    if chosen["as_json"]:
        print_json({**_head(traffic, oracle, chosen), "runs": [_run(run, oracle, market) for run in runs]})
        return
    _introduce(traffic, oracle, chosen)
    rows = [
        [
            run.policy,
            f"{100 * run.attainment:.3f} %",
            f"{run.missed:.0f}",
            f"{run.replica_hours:.1f}",
            _multiple(run.replica_hours, oracle),
            str(max(run.ready, default=0)),
            str(run.changes),
            *([f"{run.usd:,.0f}"] if market and market.priced else []),
            *([str(run.lost)] if market and market.spot_share else []),
        ]
        for run in runs
    ]
    columns = "policy,within SLO,missed,replica-hours,x oracle,most,changes"
    columns += ",USD" * bool(market and market.priced) + ",lost" * bool(market and market.spot_share)
    print_table(columns.split(","), rows)


def show_frontiers(
    traffic: Traffic, frontiers: list[Frontier], oracle: Oracle, market: Market | None, chosen: dict[str, Any]
) -> None:
    """A row a policy and setting."""
    if chosen["as_json"]:
        found = [
            {"policy": one.policy, "points": [{**point._asdict(), **_none(market)} for point in one.points]}
            for one in frontiers
        ]
        print_json({**_head(traffic, oracle, chosen), "frontiers": found})
        return
    _introduce(traffic, oracle, chosen)
    rows = []
    for one in frontiers:
        best = set(one.best)
        for point in one.points:
            rows.append(
                [
                    one.policy if point is one.points[0] else "",
                    f"{point.setting:g}",
                    f"{100 * point.attainment:.3f} %",
                    f"{point.replica_hours:.1f}",
                    _multiple(point.replica_hours, oracle),
                    f"{point.changes:.0f}",
                    *([f"{point.usd:,.0f}"] if market and market.priced else []),
                    "" if point in best else "beaten by another setting",
                ]
            )
    columns = "policy,setting,within SLO,replica-hours,x oracle,changes" + ",USD" * bool(
        market and market.priced
    )
    print_table([*columns.split(","), ""], rows)


def _introduce(traffic: Traffic, oracle: Oracle, chosen: dict[str, Any]) -> None:
    seconds = traffic.steps * traffic.step_s
    length = f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds / 3600:.1f} hours"
    print_line(
        f"{traffic.name}: {length}, {sum(traffic.requests):,} requests; cold start {chosen['cold_start']:g} s; "
        f"SLO: {chosen['wait']:g} s in the queue"
    )
    print_line(f"Whoever knew the future would pay for {oracle.replica_hours:.1f} replica-hours.")


def _multiple(hours: float, oracle: Oracle) -> str:
    return f"{hours / oracle.replica_hours:.3f}" if oracle.replica_hours else "-"


def _none(market: Market | None) -> dict[str, None]:
    return {} if market and market.priced else {"usd": None}


def _head(traffic: Traffic, oracle: Oracle, chosen: dict[str, Any]) -> dict[str, Any]:
    return {
        "trace": traffic.name,
        "seconds": traffic.steps * traffic.step_s,
        "requests": sum(traffic.requests),
        "cold_start_s": chosen["cold_start"],
        "queue_wait_s": chosen["wait"],
        "oracle_replica_hours": oracle.replica_hours,
    }


def _run(run: Run, oracle: Oracle, market: Market | None) -> dict[str, Any]:
    return {
        "policy": run.policy,
        "attainment": run.attainment,
        "missed": run.missed,
        "replica_hours": run.replica_hours,
        "x_oracle": run.replica_hours / oracle.replica_hours if oracle.replica_hours else None,
        "most_replicas": max(run.ready, default=0),
        "changes": run.changes,
        "usd": run.usd if market and market.priced else None,
        "lost": run.lost,
    }
