"""`textnlp-fast deployments`: what serves where, one file a verb."""

from __future__ import annotations

import click

from textnlp_fast.cli.program import Verbs

VERBS = {
    "record": "Note that a target serves a version.",
    "list": "List what serves where.",
    "history": "Show what a target has served.",
    "rollback": "Go back to the version that a target served before.",
    "state": "Note how a deployment fares.",
    "end": "Note that a target serves nothing any more.",
}

EPILOG = """\b
Example:
  textnlp-fast deployments record my-model@1.2.0 eu-serving
  textnlp-fast deployments rollback my-model eu-serving
Nothing is started or stopped here: this is the record that those who do so keep, and act on. What does so is
`textnlp-fast deploy`.
"""


@click.command("deployments", cls=Verbs, verbs=VERBS, package=__name__, epilog=EPILOG)
def command() -> None:
    """Deployments: which version serves where, since when, by whom; and the way back."""
