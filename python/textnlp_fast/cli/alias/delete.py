"""`textnlp-fast alias delete`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, note_option, open_registry, repository_option
from textnlp_fast.cli.changes import print_changes


@click.command("delete", cls=StorageVerb)
@click.argument("name")
@click.argument("alias")
@repository_option
@click.option("--move-protected", is_flag=True, help="Remove it although it is protected.")
@note_option
@json_option
def command(
    *, name: str, alias: str, repo: str | None, move_protected: bool, note: str, as_json: bool
) -> None:
    """Remove the ALIAS of NAME; the version that it means stays."""
    changes = open_registry(repo).delete_alias(name, alias, move_protected=move_protected, note=note)
    print_changes(changes, as_json=as_json)
