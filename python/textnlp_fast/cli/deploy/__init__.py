"""`textnlp-fast deploy`: what serves, from one description, one file a verb."""

from __future__ import annotations

import click

from textnlp_fast.cli.program import Verbs

# One line each; the file of a verb is loaded when it is called.
VERBS: dict[str, str] = {
    "plan": "Show what a description comes to: version, machines, price, files, differences.",
    "apply": "Take what runs to a version, and back by itself where that fails.",
    "status": "Show how far a rollout is, and what replicas serve.",
    "rollback": "Turn back a rollout, or go to the version before.",
    "agent": "On a machine: run an engine, and change its version when a rollout says so.",
    "await-notice": "On a machine: wait until its cloud takes it back, then end.",
}

EPILOG = """\b
Examples:
  textnlp-fast deploy plan chat.yaml --target k8s
  textnlp-fast deploy plan chat.yaml --target instances --out out/
  textnlp-fast deploy apply chat.yaml --agents agents.yaml
What serves where is noted by `textnlp-fast deployments`, which starts and stops nothing.
"""


@click.command("deploy", cls=Verbs, verbs=VERBS, package=__name__, epilog=EPILOG)
def command() -> None:
    """Serve a model as one description says: on Kubernetes, KServe, Ray Serve, SkyPilot or plain machines."""
