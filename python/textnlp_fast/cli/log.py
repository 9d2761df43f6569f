"""`textnlp-fast log`: a model's versions."""

from __future__ import annotations

from dataclasses import asdict

import click

from textnlp_fast.cli.arguments import json_option, open_repository, repository_option
from textnlp_fast.cli.output import print_json, print_table, show_ratio, show_size

EPILOG = """\b
Example:
  textnlp-fast log my-model --repo s3://my-bucket/models
"""


@click.command("log", epilog=EPILOG)
@click.argument("name")
@repository_option
@json_option
def command(name: str, repo: str | None, as_json: bool) -> None:
    """Show the versions of NAME, the newest first: sizes, parents, dates, messages."""
    rows = open_repository(repo).log(name)[::-1]
    if as_json:
        print_json([{**asdict(row), "ratio": row.ratio} for row in rows])
        return
    print_table(
        "",
        ["version", "parent", "date", "message", "raw", "stored", "ratio"],
        [
            [
                row.version,
                row.parent or "-",
                row.created_at,
                row.message,
                show_size(row.raw_bytes),
                show_size(row.stored_bytes),
                show_ratio(row.ratio),
            ]
            for row in rows
        ],
        left=4,
    )
