"""`textnlp-fast alias set`."""

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
from textnlp_fast.cli.changes import print_changes

EPILOG = """\b
Examples:
  textnlp-fast alias set my-model@1.2.0 champion
  textnlp-fast alias set my-model@1.3.0 champion --expect 1.2.0     (only if nobody moved it meanwhile)
  textnlp-fast alias set my-model@1.2.0 live --protect
"""


@click.command("set", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME@VERSION")
@click.argument("alias")
@repository_option
@click.option(
    "--protect/--unprotect", default=None, help="Whether it moves only when asked to by --move-protected."
)
@click.option("--move-protected", is_flag=True, help="Move it although it is protected.")
@click.option("--expect", metavar="VERSION", help="Refuse unless it means this version now.")
@note_option
@json_option
def command(
    *,
    reference: str,
    alias: str,
    repo: str | None,
    protect: bool | None,
    move_protected: bool,
    expect: str | None,
    note: str,
    as_json: bool,
) -> None:
    """Make ALIAS mean a version from now on, wherever it meant another one before."""
    name, version = version_reference(reference)
    changes = open_registry(repo).set_alias(
        name, alias, version, protect=protect, move_protected=move_protected, expected=expect, note=note
    )
    print_changes(changes, as_json=as_json)
