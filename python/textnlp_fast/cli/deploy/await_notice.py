"""`textnlp-fast deploy await-notice`: on a machine of a cloud, until the cloud takes it back."""

from __future__ import annotations

import asyncio

import click

from textnlp_fast.cli.program import printable

EPILOG = """\b
Example:
  textnlp-fast deploy await-notice --cloud aws && systemctl stop textnlp-fast-chat
Exit code 0: a notice came. The units of plain machines call it.
"""


@click.command("await-notice", epilog=EPILOG)
@click.option(
    "--cloud", type=click.Choice(["aws", "gcp", "azure"]), required=True, help="Whose machine this is."
)
@click.option("--endpoint", metavar="URL", help="Its metadata service, if not where it always is.")
def command(*, cloud: str, endpoint: str | None) -> None:
    """Wait until the cloud's metadata service says that it takes this machine back (spot), then end with code 0.

    A service that does not answer is asked again, as often as its cloud says.
    """
    from textnlp_fast.adapter.noticing import await_notice  # noqa: PLC0415

    notice = asyncio.run(await_notice(cloud, endpoint=endpoint))
    click.echo(printable(f"{notice.kind}: {notice.text}"))
