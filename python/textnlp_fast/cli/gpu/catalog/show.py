"""`textnlp-fast gpu catalog show`: offers that pass the filters, the cheapest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import FiniteRange, json_option
from textnlp_fast.cli.output import print_json, print_line, print_table, without_empty

if TYPE_CHECKING:
    from textnlp_fast.gpu.types import Offer

EPILOG = """\b
Examples:
  textnlp-fast gpu catalog show --gpu nvidia-t4 --region us-east-1
  textnlp-fast gpu catalog show --min-gpus 8 --market spot --max-usd-per-hour 30 --json
"""
_SHOWN = 30


@click.command("show", epilog=EPILOG)
@click.option("--provider", "providers", multiple=True, metavar="NAME", help="aws, gcp or azure; repeatable.")
@click.option("--region", "regions", multiple=True, metavar="NAME", help="Repeatable.")
@click.option("--gpu", "gpu_types", multiple=True, metavar="TYPE", help="As nvidia-l4; repeatable.")
@click.option("--type", "types", multiple=True, metavar="NAME", help="An instance type; repeatable.")
@click.option("--market", "markets", multiple=True, type=click.Choice(["on-demand", "spot"]))
@click.option("--min-gpus", type=FiniteRange(min=0), help="GPUs of one machine, at least.")
@click.option("--max-usd-per-hour", type=FiniteRange(min=0), help="Price of one machine, at most.")
@click.option("--fresh", is_flag=True, help="Leave out prices that are stale.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Rows to show; 0 shows all.  [default: {_SHOWN}; all as JSON]",
)
@json_option
def command(
    providers: tuple[str, ...],
    regions: tuple[str, ...],
    gpu_types: tuple[str, ...],
    types: tuple[str, ...],
    markets: tuple[str, ...],
    min_gpus: float | None,
    max_usd_per_hour: float | None,
    fresh: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show what can be rented and at what price, the cheapest first."""
    from textnlp_fast.gpu.catalog import Catalog  # noqa: PLC0415

    offers = Catalog.load().offers(
        providers=providers or None,
        regions=regions or None,
        gpu_types=gpu_types or None,
        instance_types=types or None,
        markets=markets or None,
        min_gpus=min_gpus,
        max_usd_per_hour=max_usd_per_hour,
        include_stale=not fresh,
    )
    if limit is None:
        limit = 0 if as_json else _SHOWN
    shown = offers[:limit] if limit else offers
    if as_json:
        print_json([_document(offer) for offer in shown])
        return
    _print(shown)
    if len(shown) < len(offers):
        print_line(f"{len(offers) - len(shown)} more: narrow it down, or pass --limit 0.")
    stale = sum(offer.stale for offer in shown)
    if stale:
        print_line(
            f"{stale} of {len(shown)} prices are stale: `textnlp-fast gpu catalog refresh` asks for new ones."
        )


def _print(offers: list[Offer]) -> None:
    if not offers:
        print_line("No offer passes these filters.")
        return
    columns = [
        "provider",
        "type",
        "gpu",
        "region",
        "zone",
        "market",
        "gpus",
        "vcpus",
        "GiB",
        "USD/h",
        "as of",
        "stale",
    ]
    rows = [
        [
            offer.instance_type.provider,
            offer.instance_type.name,
            offer.instance_type.gpu_type.value,
            offer.region,
            offer.zone or "",
            offer.market.value,
            f"{offer.instance_type.gpu_count:.3g}",
            str(offer.instance_type.vcpus),
            f"{offer.instance_type.memory_gib:g}",
            f"{offer.usd_per_hour:.4f}",
            offer.as_of.isoformat(),
            "stale" if offer.stale else "",
        ]
        for offer in offers
    ]
    kept, rows = without_empty(columns, rows, keep=4)
    print_table(kept, rows, left=kept.index("market") + 1, yields=1)


def _document(offer: Offer) -> dict[str, Any]:
    kind = {**vars(offer.instance_type), "gpu_type": offer.instance_type.gpu_type.value}
    return {
        "provider": kind.pop("provider"),
        "instance_type": kind.pop("name"),
        **kind,
        "region": offer.region,
        "zone": offer.zone,
        "market": offer.market.value,
        "usd_per_hour": offer.usd_per_hour,
        "as_of": offer.as_of.isoformat(),
        "source": offer.source,
        "stale": offer.stale,
    }
