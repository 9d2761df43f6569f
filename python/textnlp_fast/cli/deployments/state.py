"""`textnlp-fast deployments state`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_registry, repository_option
from textnlp_fast.cli.deployments.listing import deployment_document, deployment_line
from textnlp_fast.cli.output import print_json, print_line


@click.command("state", cls=StorageVerb)
@click.argument("name")
@click.argument("target")
@click.argument("state")
@repository_option
@click.option("--note", default=None, help="Why, for the history.")
@json_option
def command(*, name: str, target: str, state: str, repo: str | None, note: str | None, as_json: bool) -> None:
    """Note how the deployment of NAME to TARGET fares: healthy, failed, or what you call it."""
    deployed = open_registry(repo).set_deployment_state(name, target, state, note=note)
    if as_json:
        print_json(deployment_document(name, target, deployed))
    else:
        print_line(deployment_line(name, target, deployed))
