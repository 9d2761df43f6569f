"""`textnlp-fast gateway`: one OpenAI-compatible address in front of many engines."""

from __future__ import annotations

import click

from textnlp_fast.cli.program import Verbs

VERBS: dict[str, str] = {
    "config": "Print HAProxy's configuration for replicas.",
    "run": "Run HAProxy, and the agent that weighs replicas by their queues.",
    "status": "Show who is behind a running gateway, and change it.",
}

EPILOG = """\b
Examples:
  textnlp-fast gateway run --replica 10.0.0.5:8000 --replica 10.0.0.6:8000 --listen 0.0.0.0:8080 --keys keys.sha256
  textnlp-fast gateway status
  textnlp-fast gateway status --add 10.0.0.7:8000
"""


@click.command("gateway", cls=Verbs, verbs=VERBS, package=__name__, epilog=EPILOG)
def command() -> None:
    """One address in front of many engines: HAProxy, weighted by their queues and caches."""
