"""`textnlp-fast deployments end`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, note_option, open_registry, repository_option
from textnlp_fast.cli.changes import print_changes


@click.command("end", cls=StorageVerb)
@click.argument("name")
@click.argument("target")
@repository_option
@note_option
@json_option
def command(*, name: str, target: str, repo: str | None, note: str, as_json: bool) -> None:
    """Note that TARGET serves NAME no more. Its versions may then be collected; its history stays."""
    print_changes(open_registry(repo).end_deployment(name, target, note=note), as_json=as_json)
