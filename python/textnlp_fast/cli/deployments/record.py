"""`textnlp-fast deployments record`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    json_option,
    note_option,
    open_registry,
    repository_option,
    version_reference,
)
from textnlp_fast.cli.deployments.listing import deployment_document, deployment_line
from textnlp_fast.cli.output import print_json, print_line

EPILOG = """\b
Examples:
  textnlp-fast deployments record my-model@1.2.0 eu-serving --note "canary went well"
  textnlp-fast deployments record my-model@champion eu-serving --expect 1.1.0
"""


@click.command("record", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME@VERSION")
@click.argument("target")
@repository_option
@note_option
@click.option("--state", default="", help="How it fares: rolling-out, healthy, ...")
@click.option("--expect", metavar="VERSION", help="Refuse unless the target serves this version now.")
@json_option
def command(
    *,
    reference: str,
    target: str,
    repo: str | None,
    note: str,
    state: str,
    expect: str | None,
    as_json: bool,
) -> None:
    """Note that TARGET serves a version from now on. An alias is noted as the version that it means now."""
    name, version = version_reference(reference)
    deployed = open_registry(repo).deploy(name, version, target, note=note, state=state, expected=expect)
    if as_json:
        print_json(deployment_document(name, target, deployed))
    else:
        print_line(deployment_line(name, target, deployed))
