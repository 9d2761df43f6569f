"""`textnlp-fast upload`: a file into a bucket, in parts that can be gone on with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from textnlp_fast.cli.arguments import json_option
from textnlp_fast.cli.configured import reach
from textnlp_fast.cli.output import print_json, print_line
from textnlp_fast.cli.transfer_options import TransferVerb, shown_moves, transfer_options, transfer_settings

EPILOG = """\b
Examples:
  textnlp-fast upload model.bin s3://my-bucket/models/model.bin
  textnlp-fast upload model.bin az://container/models/ --limit-mb 200
"""


@click.command("upload", cls=TransferVerb, epilog=EPILOG)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.argument("url", metavar="URL")
@click.option(
    "--digest", help="BLAKE3 digest that FILE must have: then sending begins without reading all of it first."
)
@transfer_options
@json_option
def command(*, file: str, url: str, digest: str | None, as_json: bool, **how: Any) -> None:
    """Make the object at URL out of FILE: s3://, gs://, az:// or a path; one that ends in / takes the file's name.

    Run again after an interrupt or a kill, it goes on where it stood. The object appears when all of it is
    there, with the file's BLAKE3 digest in its metadata. For versions of models there is `push`.
    """
    from textnlp_fast.objectstore.transfers import upload  # noqa: PLC0415
    from textnlp_fast.objectstore.transfers.moving import open_object  # noqa: PLC0415
    from textnlp_fast.telemetry import operation  # noqa: PLC0415

    store, key = open_object(f"{url}{Path(file).name}" if url.endswith("/") else url, **reach())
    with transfer_settings("upload", **how) as settings, operation("upload", repository=store.url) as op:
        report = upload(file, store, key, settings, digest=digest)
        op.count(bytes_written=report.moved_bytes, retries=report.retries)
    if as_json:
        print_json(asdict(report))
        return
    if report.restarted:
        print_line(f"began anew: {report.restarted}")
    moves = shown_moves(report.size, report.moved_bytes, report.resumed_bytes, report.retries, report.seconds)
    print_line(f"uploaded {report.path} to {report.url}: {moves}, digest {report.digest}")
