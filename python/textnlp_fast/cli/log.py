"""`textnlp-fast log`: a model's versions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_repository, repository_option
from textnlp_fast.cli.output import print_json, print_table, show_ratio, show_size
from textnlp_fast.cli.program import printable

if TYPE_CHECKING:
    from textnlp_fast.contents.windows import DataError
    from textnlp_fast.storage import LogRow

EPILOG = """\b
Example:
  textnlp-fast log my-model --repo s3://my-bucket/models
"""


@click.command("log", cls=StorageVerb, epilog=EPILOG)
@click.argument("name")
@repository_option
@json_option
def command(name: str, repo: str | None, as_json: bool) -> int:
    """Show the versions of NAME, the newest first: sizes, parents, dates, messages.

    Versions that cannot be read are named last; the exit code is then that of the first of them.
    """
    problems: dict[str, DataError] = {}
    rows = open_repository(repo).log(name, problems=problems)[::-1]
    code = next((error.exit_code for error in problems.values()), 0)
    if as_json:
        print_json([{**asdict(row), "ratio": row.ratio} for row in rows])
    else:
        _print(rows)
    for version, error in problems.items():
        click.echo(printable(f"{version} cannot be read: {error.args[0]}"), err=True)
    return code


def _print(rows: list[LogRow]) -> None:
    print_table(
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
        yields=3,
    )
