"""`textnlp-fast gpu catalog refresh`: new prices from the clouds' own price lists."""

from __future__ import annotations

import sys

import click

from textnlp_fast.cli.arguments import json_option
from textnlp_fast.cli.output import complain_of, print_json, print_line
from textnlp_fast.cli.program import printable

EPILOG = """\b
Examples:
  textnlp-fast gpu catalog refresh --provider azure --region westeurope
  textnlp-fast gpu catalog refresh --provider aws --region us-east-1 --region us-west-2
"""
_SHOWN = 20


@click.command("refresh", epilog=EPILOG)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="aws, azure or gcp; repeatable.  [default: all]",
)
@click.option(
    "--region", "regions", multiple=True, metavar="NAME", help="Repeatable.  [default: the catalogue's]"
)
@click.option("--accept-jumps", is_flag=True, help="Believe prices that changed tenfold, too.")
@json_option
def command(providers: tuple[str, ...], regions: tuple[str, ...], accept_jumps: bool, as_json: bool) -> int:
    """Ask the clouds for prices, and write down those that can be believed.

    AWS and Google Cloud want a login; Azure's list is open to all. Where no answer comes, former prices stay.
    """
    from textnlp_fast.gpu.catalog.refresh import refresh  # noqa: PLC0415

    def tell(what: str) -> None:
        if sys.stderr.isatty():
            click.echo(printable(what), err=True)

    report = refresh(
        providers=providers or None, regions=regions or None, accept_jumps=accept_jumps, tell=tell
    )
    if as_json:
        print_json(
            {
                "path": str(report.path),
                "prices": report.believed,
                "refused": [str(one) for one in report.refused],
                "notes": list(report.notes),
                "new_types": list(report.new_types),
                "failed": {what: str(error.args[0]) for what, error in report.failed.items()},
            }
        )
    else:
        print_line(f"{report.believed} prices written to {report.path}")
        _list("new instance types", report.new_types)
        _list("not believed, the former price stays", [str(one) for one in report.refused])
        _list("not used", report.notes)
    return complain_of(report.failed)


def _list(what: str, lines: list[str] | tuple[str, ...]) -> None:
    if not lines:
        return
    print_line(f"{what}:")
    for line in lines[:_SHOWN]:
        print_line(f"  {line}")
    if len(lines) > _SHOWN:
        print_line(f"  and {len(lines) - _SHOWN} more: --json has them all")
