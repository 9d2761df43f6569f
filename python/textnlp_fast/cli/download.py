"""`textnlp-fast download`: an object into a file, in parts that can be gone on with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from textnlp_fast.cli.arguments import json_option
from textnlp_fast.cli.configured import reach
from textnlp_fast.cli.output import print_json, print_line
from textnlp_fast.cli.transfer_options import TransferVerb, shown_moves, transfer_options, transfer_settings
from textnlp_fast.cli.waiting import tell_if_waiting_for

EPILOG = """\b
Examples:
  textnlp-fast download s3://my-bucket/models/model.bin model.bin
  textnlp-fast download gs://my-bucket/model.bin . --streams 8
"""


@click.command("download", cls=TransferVerb, epilog=EPILOG)
@click.argument("url", metavar="URL")
@click.argument("file", type=click.Path())
@click.option("--digest", help="BLAKE3 digest that the content must have.")
@transfer_options
@json_option
def command(*, url: str, file: str, digest: str | None, as_json: bool, **how: Any) -> None:
    """Make FILE, or a file in the directory FILE, out of the object at URL: s3://, gs://, az:// or a path.

    Run again after an interrupt or a kill, it goes on where it stood: until then FILE.part and
    FILE.part.journal hold what came. FILE appears when all of it is there and checked.
    """
    from textnlp_fast.objectstore.transfers import download  # noqa: PLC0415
    from textnlp_fast.objectstore.transfers.moving import open_object  # noqa: PLC0415
    from textnlp_fast.telemetry import operation  # noqa: PLC0415

    store, key = open_object(url, **reach())
    tell_if_waiting_for(store.url)
    place = Path(file) / Path(key).name if Path(file).is_dir() else Path(file)
    with transfer_settings("download", **how) as settings, operation("download", repository=store.url) as op:
        report = download(store, key, place, settings, digest=digest)
        op.count(bytes_read=report.moved_bytes, retries=report.retries)
    if as_json:
        print_json(asdict(report))
        return
    if report.restarted:
        print_line(f"began anew: {report.restarted}")
    moves = shown_moves(report.size, report.moved_bytes, report.resumed_bytes, report.retries, report.seconds)
    checked = f"digest {report.digest} verified" if report.digest else "no digest known to check the whole by"
    print_line(f"downloaded {report.url} to {report.path}: {moves}, {checked}")
