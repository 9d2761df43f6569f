"""`textnlp-fast deployments history`."""

from __future__ import annotations

from itertools import islice

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_registry, repository_option
from textnlp_fast.cli.changes import print_history


@click.command("history", cls=StorageVerb)
@click.argument("name")
@click.argument("target", required=False)
@repository_option
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Changes to show.")
@json_option
def command(*, name: str, target: str | None, repo: str | None, limit: int, as_json: bool) -> None:
    """Show what TARGET, or every target of NAME, has served: the newest first, back to the beginning."""
    changes = list(islice(open_registry(repo).deployment_history(name, target), limit))
    print_history(changes, as_json=as_json)
