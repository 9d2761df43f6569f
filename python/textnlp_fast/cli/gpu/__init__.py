"""`textnlp-fast gpu`: the fleet, one file a verb."""

from __future__ import annotations

import click

from textnlp_fast.cli.program import Verbs

# One line each; the file of a verb is loaded when it is called.
VERBS: dict[str, str] = {
    "agent": "Read this machine's GPUs, and serve metrics, readings and events.",
    "autoscale": "Let the size of a fleet follow its load.",
    "catalog": "Show and refresh what machines with GPUs cost.",
    "costs": "Show what the fleet costs, has cost, and has saved by spot.",
    "doctor": "Say what of driver, CUDA and packages fits together here, and how to mend the rest.",
    "external-metrics": "Serve Kubernetes' HPAs with what our policy decides.",
    "health": "Say whether machines with GPUs are good, and what to do where they are not.",
    "keda": "Serve KEDA as an external scaler that follows our policy.",
    "launch": "Rent machines, the cheapest that are to be had.",
    "list": "Show the machines of the fleet.",
    "orphans": "Find machines that no launch knows, and launches whose machines are gone.",
    "recommend": "Choose machines for a model: to serve it, for a batch, to fine-tune.",
    "simulate": "Try policies of scaling on traffic, recorded or made.",
    "terminate": "End machines.",
    "why": "Say why a fleet had so many replicas at a time.",
}

EPILOG = """\b
Examples:
  textnlp-fast gpu agent --port 9401
  textnlp-fast gpu catalog show --gpu nvidia-l4 --market spot
  textnlp-fast gpu doctor
  textnlp-fast gpu health --aws i-0123456789abcdef0 --agent node-1=http://127.0.0.1:9401
  textnlp-fast gpu launch --gpu t4 --in aws:us-east-1 --market spot-first --dry-run
  textnlp-fast gpu recommend --model llama-70b/ --rps 50 --ttft 1 --tpot 0.05
  textnlp-fast gpu simulate --policy ours,knative --cold-start 600 --plot fleet.png
"""


@click.command("gpu", cls=Verbs, verbs=VERBS, package=__name__, epilog=EPILOG)
def command() -> None:
    """The GPU fleet: what it costs, what to rent, renting it, and whether it is well."""
