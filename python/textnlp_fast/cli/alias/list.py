"""`textnlp-fast alias list`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_registry, repository_option
from textnlp_fast.cli.output import print_json, print_table


@click.command("list", cls=StorageVerb)
@click.argument("name")
@repository_option
@json_option
def command(*, name: str, repo: str | None, as_json: bool) -> None:
    """List the aliases of NAME and the versions that they mean."""
    aliases = open_registry(repo).references(name).aliases
    if as_json:
        print_json(
            [
                {"alias": alias, "version": each.version, "protected": each.protected}
                for alias, each in sorted(aliases.items())
            ]
        )
        return
    rows = [
        [alias, each.version, "protected" if each.protected else ""]
        for alias, each in sorted(aliases.items())
    ]
    print_table(["alias", "version", ""], rows, left=3)
