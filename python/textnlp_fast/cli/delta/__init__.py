"""`textnlp-fast delta`: patches, one file a verb."""

from __future__ import annotations

import click

from textnlp_fast.cli.program import Verbs

VERBS = {
    "create": "Make a patch from one model to another.",
    "apply": "Make a model from another one and a patch.",
    "inspect": "Show what is in a patch, without its models.",
    "squash": "Make one patch of several that follow each other.",
    "import": "Make a patch of another project's delta.",
    "export": "Write a patch as another project's delta.",
}

EPILOG = """\b
Example:
  textnlp-fast delta create v1.0/ v1.1/ -o changes.tnpatch
  textnlp-fast delta apply changes.tnpatch v1.0/ v1.1-again/
"""


@click.command("delta", cls=Verbs, verbs=VERBS, package=__name__, epilog=EPILOG)
def command() -> None:
    """Patches: what makes one model out of another, in one file that needs no repository."""
