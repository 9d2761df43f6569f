"""`textnlp-fast ls`: the models of a repository."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_repository, repository_option
from textnlp_fast.cli.output import print_json, print_table

EPILOG = """\b
Example:
  textnlp-fast ls --repo s3://my-bucket/models
"""


@click.command("ls", cls=StorageVerb, epilog=EPILOG)
@repository_option
@json_option
def command(repo: str | None, as_json: bool) -> None:
    """List the models of a repository and their versions."""
    from textnlp_fast.storage.version_manager import latest_of  # noqa: PLC0415

    models = open_repository(repo).models()
    if as_json:
        print_json([{"name": name, "versions": versions} for name, versions in models.items()])
        return
    rows = [[name, latest_of(versions), str(len(versions))] for name, versions in models.items()]
    print_table(["model", "latest", "versions"], rows, left=2, yields=0)
