"""`textnlp-fast alias`: names for versions, one file a verb."""

from __future__ import annotations

import click

from textnlp_fast.cli.program import Verbs

VERBS = {
    "set": "Make an alias mean a version.",
    "list": "List the aliases of a model.",
    "delete": "Remove an alias; the version stays.",
}

EPILOG = """\b
Example:
  textnlp-fast alias set my-model@1.2.0 champion
  textnlp-fast pull my-model@champion out/
"""


@click.command("alias", cls=Verbs, verbs=VERBS, package=__name__, epilog=EPILOG)
def command() -> None:
    """Aliases: names that stand wherever a version does, and that can move to another one."""
