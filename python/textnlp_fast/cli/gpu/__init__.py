"""`textnlp-fast gpu`: the fleet, one file a verb."""

from __future__ import annotations

import click

from textnlp_fast.cli.program import Verbs

# One line each; the file of a verb is loaded when it is called.
VERBS: dict[str, str] = {
    "catalog": "Show and refresh what machines with GPUs cost.",
    "doctor": "Say what of driver, CUDA and packages fits together here, and how to mend the rest.",
}

EPILOG = """\b
Examples:
  textnlp-fast gpu catalog show --gpu nvidia-l4 --market spot
  textnlp-fast gpu doctor
"""


@click.command("gpu", cls=Verbs, verbs=VERBS, package=__name__, epilog=EPILOG)
def command() -> None:
    """The GPU fleet: what it costs, what to rent, renting it, and whether it is well."""
