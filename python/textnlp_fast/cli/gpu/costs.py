"""`textnlp-fast gpu costs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import FleetVerb, json_option
from textnlp_fast.cli.gpu.fleet import usd
from textnlp_fast.cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from textnlp_fast.gpu.resources.ledger import Costs


@click.command("costs", cls=FleetVerb)
@json_option
def command(*, as_json: bool) -> None:
    """Show what the fleet costs an hour now, what it has cost, and what spot has saved.

    Computed from the journal, at the prices of the catalogue when each machine was launched; asks no cloud. Disks and
    traffic are billed apart.
    """
    from textnlp_fast.gpu.resources import GPUResourceManager  # noqa: PLC0415

    report = GPUResourceManager().costs()
    if as_json:
        print_json(
            {
                "at": report.at.isoformat(),
                "total": _document(report.total),
                "budget": {
                    "usd_per_hour": report.budget.usd_per_hour,
                    "total_usd": report.budget.total_usd,
                },
                "launches": [
                    {
                        "launch_id": record.launch_id,
                        "provider": record.provider,
                        "region": record.region,
                        "instance_type": record.instance_type,
                        "market": str(record.market),
                        "created_at": record.created_at.isoformat(),
                        **_document(costs),
                    }
                    for record, costs in report.launches
                ],
            }
        )
        return
    if report.launches:
        rows = [
            [
                record.launch_id,
                f"{record.provider}:{record.zone or record.region}",
                record.instance_type,
                str(record.market),
                f"{record.created_at:%Y-%m-%d %H:%M}",
                str(costs.running),
                usd(costs.usd_per_hour),
                usd(costs.spent_usd),
                usd(costs.saved_usd),
            ]
            for record, costs in report.launches
        ]
        columns = [
            "Launch",
            "Where",
            "Type",
            "Market",
            "Began (UTC)",
            "Running",
            "Per hour",
            "Spent",
            "Saved",
        ]
        print_table(columns, rows, left=5)
    total = report.total
    print_line(
        f"{usd(total.usd_per_hour)} an hour now, {usd(total.spent_usd)} spent, {usd(total.saved_usd)} saved by spot"
    )
    if report.budget.usd_per_hour is not None:
        print_line(f"budget: {usd(report.budget.usd_per_hour)} an hour")
    if report.budget.total_usd is not None:
        print_line(f"budget: {usd(report.budget.total_usd)} in all")


def _document(costs: Costs) -> dict[str, Any]:
    return {
        "running": costs.running,
        "usd_per_hour": float(costs.usd_per_hour),
        "spent_usd": float(costs.spent_usd),
        "saved_usd": float(costs.saved_usd),
    }
