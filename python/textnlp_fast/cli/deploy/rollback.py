"""`textnlp-fast deploy rollback`: turns back what is under way, or goes to the version before."""

from __future__ import annotations

from pathlib import Path

import click

from textnlp_fast.cli.arguments import json_option, note_option
from textnlp_fast.cli.deploy.rolling import (
    FILE,
    RolloutVerb,
    controller_of,
    kubernetes_options,
    print_record,
    reached_option,
    registry_of,
    replica_options,
)

EPILOG = """\b
Examples:
  textnlp-fast deploy rollback chat.yaml --agents agents.yaml --note "error rate"
  textnlp-fast deploy rollback chat.yaml --to 1.0.0
  textnlp-fast deploy rollback chat.yaml --target k8s
Exit code 0: it went back, or was told to. 1: a replica could not, or what was gone back to failed its checks.
"""


@click.command("rollback", cls=RolloutVerb, epilog=EPILOG)
@click.argument("file", type=FILE)
@kubernetes_options
@replica_options
@click.option(
    "--to", metavar="VERSION", help="An earlier version that it has served, instead of the last one."
)
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
    to: str | None,
    note: str,
    repo: str | None,
    as_json: bool,
) -> None:
    """Turn back the rollout of FILE that is under way; if none is, go to the version that was served before.

    Where another process rolls out, it is told to go back, and this one does not wait for it. On Kubernetes it is not:
    end it first.
    """
    from textnlp_fast.adapter import read_deployment  # noqa: PLC0415
    from textnlp_fast.adapter.rollout.controller import ask_back  # noqa: PLC0415
    from textnlp_fast.errors import ConflictError  # noqa: PLC0415

    deployment = read_deployment(file)
    registry = registry_of(deployment, repo)
    if target == "k8s":
        from textnlp_fast.cli.deploy.on_kubernetes import roll_back_on_kubernetes  # noqa: PLC0415

        context_.exit(
            roll_back_on_kubernetes(
                deployment, registry, to, note, kubeconfig=kubeconfig, context=context, as_json=as_json
            )
        )
    controller = controller_of(deployment, registry, agents=agents, token_file=token_file, gateway=gateway)
    asked = ask_back(registry, deployment.model.name, deployment.name, note=note)
    if asked is None:
        context_.exit(
            print_record(controller.rollback(to=to, note=note), as_json=as_json, is_back_wanted=True)
        )
    try:
        done = controller.go_on()
    except ConflictError:
        click.echo("whoever rolls out was told to go back", err=True)
        context_.exit(print_record(asked, as_json=as_json, is_back_wanted=True))
    context_.exit(print_record(done or asked, as_json=as_json, is_back_wanted=True))
