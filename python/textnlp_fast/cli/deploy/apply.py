"""`textnlp-fast deploy apply`: to a version, and back by itself where that fails."""

from __future__ import annotations

from pathlib import Path

import click

from textnlp_fast.cli.arguments import json_option, note_option
from textnlp_fast.cli.deploy.rolling import (
    FILE,
    RolloutVerb,
    controller_of,
    kubernetes_options,
    print_nothing_to_do,
    print_record,
    reached_option,
    registry_of,
    replica_options,
)

EPILOG = """\b
Examples:
  textnlp-fast deploy apply chat.yaml --agents agents.yaml --gateway /run/textnlp-fast/haproxy.sock
  textnlp-fast deploy apply chat.yaml --version 1.2.0 --note "passed the evaluation"
  textnlp-fast deploy apply chat.yaml --target k8s
Exit code 0: every replica serves the version, now or already. 1: it failed its checks, and the old one serves
again; or, said so, not.
Killed, the command goes on where it was when it is run again, here or elsewhere.
"""


@click.command("apply", cls=RolloutVerb, epilog=EPILOG)
@click.argument("file", type=FILE)
@kubernetes_options
@replica_options
@click.option("--version", metavar="VERSION", help="Instead of the one that the description names.")
@click.option("--again", is_flag=True, help="Also where every replica serves it already; instances only.")
@note_option
@reached_option
@json_option
@click.pass_context
def command(
    context_: click.Context,
    *,
    file: Path,
    target: str,
    kubeconfig: str | None,
    context: str | None,
    agents: Path | None,
    token_file: Path | None,
    gateway: Path | None,
    version: str | None,
    again: bool,
    note: str,
    repo: str | None,
    as_json: bool,
) -> None:
    """Take what FILE describes to its version: rolling, as a canary or blue-green, as FILE says.

    Goes back by itself where a replica or its health check fails. The target in the registry is the description's name.
    """
    from textnlp_fast.adapter import read_deployment  # noqa: PLC0415

    deployment = read_deployment(file)
    registry = registry_of(deployment, repo)
    wanted = version or deployment.model.parsed.version or "latest"
    if target == "k8s":
        from textnlp_fast.cli.deploy.on_kubernetes import apply_on_kubernetes  # noqa: PLC0415

        context_.exit(
            apply_on_kubernetes(
                deployment, registry, wanted, note, kubeconfig=kubeconfig, context=context, as_json=as_json
            )
        )
    controller = controller_of(deployment, registry, agents=agents, token_file=token_file, gateway=gateway)
    if not again and controller.is_at(wanted):
        exact = registry.resolve(deployment.model.name, wanted)
        print_nothing_to_do(deployment, exact, as_json=as_json)
        return
    context_.exit(print_record(controller.apply(wanted, note=note), as_json=as_json))
