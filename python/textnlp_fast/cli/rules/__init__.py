"""`textnlp-fast rules`: the registry's rules, one file a verb."""

from __future__ import annotations

import click

from textnlp_fast.cli.program import Verbs

VERBS = {
    "show": "Show stages, moves, roles and webhooks.",
    "set": "Replace the rules by those of a file.",
    "redeliver": "Send again what webhooks did not take.",
}

EPILOG = """\b
Example:
  textnlp-fast rules show --json > rules.json
  textnlp-fast rules set rules.json
"""


@click.command("rules", cls=Verbs, verbs=VERBS, package=__name__, epilog=EPILOG)
def command() -> None:
    """Rules of a repository's registry: which stages there are, who may move what, who hears of it."""
