"""`textnlp-fast pin`: versions that stay."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    json_option,
    open_registry,
    repository_option,
    version_reference,
)
from textnlp_fast.cli.changes import print_changes

EPILOG = """\b
Examples:
  textnlp-fast pin my-model@1.0.0 --reason "cited in a paper"
  textnlp-fast pin my-model@1.0.0 --off
"""


@click.command("pin", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME@VERSION")
@repository_option
@click.option("--reason", default="", help="Why it must stay.")
@click.option("--off", is_flag=True, help="Take the pin off.")
@json_option
def command(*, reference: str, repo: str | None, reason: str, off: bool, as_json: bool) -> None:
    """Keep a version from being collected, whatever becomes of its stage and aliases."""
    name, version = version_reference(reference)
    registry = open_registry(repo)
    changes = registry.unpin(name, version) if off else registry.pin(name, version, reason)
    print_changes(changes, as_json=as_json)
