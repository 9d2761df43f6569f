"""`textnlp-fast gpu catalog`: machines with GPUs and their prices, one file a verb."""

from __future__ import annotations

import click

from textnlp_fast.cli.program import Verbs

VERBS = {
    "show": "Show offers, the cheapest first.",
    "refresh": "Ask the clouds for new prices.",
}

EPILOG = """\b
Examples:
  textnlp-fast gpu catalog show --gpu nvidia-l4 --provider aws --market spot
  textnlp-fast gpu catalog refresh --provider aws --region us-east-1
"""


@click.command("catalog", cls=Verbs, verbs=VERBS, package=__name__, epilog=EPILOG)
def command() -> None:
    """Machines with GPUs of AWS, Google Cloud and Azure: what they have, where they are, what they cost."""
