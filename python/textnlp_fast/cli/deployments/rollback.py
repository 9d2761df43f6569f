"""`textnlp-fast deployments rollback`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, note_option, open_registry, repository_option
from textnlp_fast.cli.deployments.listing import deployment_document, deployment_line
from textnlp_fast.cli.output import print_json, print_line

EPILOG = """\b
Examples:
  textnlp-fast deployments rollback my-model eu-serving --note "error rate"
  textnlp-fast deployments rollback my-model eu-serving --to 1.0.0
"""


@click.command("rollback", cls=StorageVerb, epilog=EPILOG)
@click.argument("name")
@click.argument("target")
@repository_option
@click.option(
    "--to", metavar="VERSION", help="An earlier version that it has served, instead of the last one."
)
@note_option
@json_option
def command(*, name: str, target: str, repo: str | None, to: str | None, note: str, as_json: bool) -> None:
    """Go back to the version that TARGET served before; called again, to the one before that.

    If somebody else changes the target at the same moment, one of the two is refused: nobody goes back twice.
    """
    deployed = open_registry(repo).rollback(name, target, to=to, note=note)
    if as_json:
        print_json(deployment_document(name, target, deployed))
    else:
        print_line(deployment_line(name, target, deployed))
