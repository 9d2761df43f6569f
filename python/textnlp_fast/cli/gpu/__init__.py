"""`textnlp-fast gpu`: the fleet, one file a verb."""

from __future__ import annotations

import click

from textnlp_fast.cli.program import Verbs

# One line each; the file of a verb is loaded when it is called.
VERBS: dict[str, str] = {
    "agent": "Read this machine's GPUs, and serve metrics, readings and events.",
    "catalog": "Show and refresh what machines with GPUs cost.",
    "doctor": "Say what of driver, CUDA and packages fits together here, and how to mend the rest.",
    "health": "Say whether machines with GPUs are good, and what to do where they are not.",
    "recommend": "Choose machines for a model: to serve it, for a batch, to fine-tune.",
}

EPILOG = """\b
Examples:
  textnlp-fast gpu agent --port 9401
  textnlp-fast gpu catalog show --gpu nvidia-l4 --market spot
  textnlp-fast gpu doctor
  textnlp-fast gpu health --aws i-0123456789abcdef0 --agent node-1=http://127.0.0.1:9401
  textnlp-fast gpu recommend --model llama-70b/ --rps 50 --ttft 1 --tpot 0.05
"""


@click.command("gpu", cls=Verbs, verbs=VERBS, package=__name__, epilog=EPILOG)
def command() -> None:
    """The GPU fleet: what it costs, what to rent, renting it, and whether it is well."""
