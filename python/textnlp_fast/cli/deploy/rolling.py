"""What the verbs of rollouts have in common: their options, and what they make of a description."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from textnlp_fast.cli.arguments import AGENT_TOKEN_VARIABLE, StorageVerb, agent_token, open_repository
from textnlp_fast.cli.output import print_json, print_line
from textnlp_fast.cli.program import printable
from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.adapter import Deployment
    from textnlp_fast.adapter.rollout.controller import Controller
    from textnlp_fast.adapter.rollout.records import RolloutRecord
    from textnlp_fast.adapter.rollout.replicas import AgentClient, Replica
    from textnlp_fast.storage import Registry, Repository
    from textnlp_fast.storage.registry.state import Deployment as Noted

__all__ = [
    "FILE",
    "RolloutVerb",
    "client_of",
    "controller_of",
    "kubernetes_options",
    "noted_document",
    "noted_of",
    "print_noted",
    "print_nothing_to_do",
    "print_record",
    "reached_option",
    "record_document",
    "registry_of",
    "replica_options",
    "token_option",
]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
Command = TypeVar("Command", bound=Callable[..., Any])


class RolloutVerb(StorageVerb):
    """A verb on a description: on a terminal it names it before it loads what it takes, which takes a while."""

    def invoke(self, ctx: click.Context) -> Any:
        if sys.stderr.isatty():
            click.echo(printable(f"reading {ctx.params['file']}"), err=True)
        return super().invoke(ctx)


def token_option(command: Command) -> Command:
    """`--token-file`."""
    return click.option(
        "--token-file",
        type=FILE,
        metavar="FILE",
        help=f"The token that agents ask for; {AGENT_TOKEN_VARIABLE} says it, too.",
    )(command)


def reached_option(command: Command) -> Command:
    """`--repo`, where the description names a repository as its machines reach it."""
    return click.option("--repo", metavar="URL", help="The repository as it is reached from here.")(command)


def replica_options(command: Command) -> Command:
    """How replicas and their gateway are reached."""
    for option in (
        click.option(
            "--gateway",
            type=click.Path(path_type=Path),
            metavar="SOCKET",
            help="Runtime socket of the gateway in front.  [default: none; agents close their gates]",
        ),
        token_option,
        click.option(
            "--agents",
            type=FILE,
            metavar="FILE",
            help="Which replicas there are, and where their agents.  [default: gateway.replicas, port 9402]",
        ),
    ):
        command = option(command)
    return command


def kubernetes_options(command: Command) -> Command:
    """Which cluster."""
    for option in (
        click.option("--context", metavar="NAME", help="Of the kubeconfig; k8s only."),
        click.option("--kubeconfig", metavar="FILE", help="k8s only.  [default: that of kubectl]"),
        click.option(
            "--target",
            type=click.Choice(["instances", "k8s"]),
            default="instances",
            show_default=True,
            help="What runs it: replicas with agents, or a Deployment of Kubernetes.",
        ),
    ):
        command = option(command)
    return command


def registry_of(deployment: Deployment, repo: str | None) -> Registry:
    """The registry of the description's repository, as it is reached from here."""
    from textnlp_fast.storage import Registry  # noqa: PLC0415

    return Registry(open_repository(repo or deployment.model.repository))


def _replicas_of(
    deployment: Deployment, agents: Path | None, token_file: Path | None
) -> tuple[tuple[Replica, ...], frozenset[str]]:
    """The replicas and the names of the spare ones; says on stderr how many are about to be asked."""
    from textnlp_fast.adapter.rollout.pool_file import agents_beside, read_pool  # noqa: PLC0415

    if agents is None:
        replicas, spares = agents_beside(deployment.gateway.replicas), frozenset[str]()
    else:
        replicas, spares = read_pool(agents)
    if not replicas:
        raise InvalidInputError(
            "nothing says which replicas there are",
            hint="Pass --agents FILE, or list them in the description, as gateway.replicas.",
        )
    agent_token(token_file)  # a file that is no good is said now
    click.echo(f"asking {len(replicas)} agent{'s' if len(replicas) > 1 else ''}", err=True)
    return replicas, spares


def client_of(deployment: Deployment, *, agents: Path | None, token_file: Path | None) -> AgentClient:
    """Whoever only asks the replicas of a description, or of the file of agents."""
    from textnlp_fast.adapter.rollout.replicas import AgentClient  # noqa: PLC0415

    replicas, _ = _replicas_of(deployment, agents, token_file)
    return AgentClient(replicas, token=lambda: agent_token(token_file))


def controller_of(
    deployment: Deployment,
    registry: Registry,
    *,
    agents: Path | None,
    token_file: Path | None,
    gateway: Path | None,
) -> Controller:
    """Whoever rolls out to the replicas of a description, or of the file of agents."""
    from textnlp_fast.adapter.gateway.runtime import Gateway  # noqa: PLC0415
    from textnlp_fast.adapter.rollout.controller import Controller, Pool  # noqa: PLC0415
    from textnlp_fast.adapter.rollout.traffic import NoGateway  # noqa: PLC0415

    replicas, spares = _replicas_of(deployment, agents, token_file)
    pool = Pool(
        replicas=replicas,
        spares=spares,
        token=lambda: agent_token(token_file),
        traffic=NoGateway() if gateway is None else Gateway(gateway),
        drain_s=deployment.gateway.drain_s,
    )
    return Controller(
        registry,
        deployment.model.name,
        deployment.name,
        pool,
        deployment.rollout,
        told=lambda words: click.echo(printable(words), err=True),
    )


def record_document(record: RolloutRecord) -> dict[str, Any]:
    """A rollout for scripts."""
    terms, state = record.terms, record.state
    return {
        "model": record.model,
        "target": record.target,
        "number": record.number,
        "kind": record.kind,
        "strategy": terms.strategy,
        "from": terms.old,
        "to": terms.new,
        "phase": state.phase,
        "changed": True,
        "direction": state.direction,
        "reason": state.reason,
        "step": state.step,
        "steps": list(terms.steps),
        "by": record.by,
        "holder": record.holder,
        "note": record.note,
        "begun_at": record.begun_at,
        "over": record.closed,
        "serving": list(record.active),
        "spares": list(record.spares),
        "events": [{"at": each.at, "what": each.what} for each in record.events],
    }


def noted_of(repository: Repository, deployment: Deployment) -> Noted | None:
    """What the registry says that the description's target serves; None if it says nothing."""
    from textnlp_fast.storage.registry.references import read_references  # noqa: PLC0415

    return read_references(repository.store, deployment.model.name).deployments.get(deployment.name)


def noted_document(noted: Noted | None) -> dict[str, Any] | None:
    """That, for scripts."""
    if noted is None:
        return None
    return {"version": noted.version, "state": noted.state, "note": noted.note}


def print_noted(deployment: Deployment, noted: Noted | None) -> None:
    """That, in a line."""
    if noted is None:
        print_line(f"registry: {deployment.name} serves nothing")
        return
    why = f" ({noted.note})" if noted.note else ""
    print_line(f"registry: {deployment.name} serves {noted.version}, {noted.state or 'no state noted'}{why}")


def print_nothing_to_do(deployment: Deployment, version: str, *, as_json: bool) -> None:
    """Says that a rollout to a version would change nothing."""
    if as_json:
        where = {"model": deployment.model.name, "target": deployment.name}
        print_json({**where, "from": version, "to": version, "phase": "succeeded", "changed": False})
    else:
        print_line(f"every replica serves {version} already: nothing to do (--again rolls out all the same)")


def print_record(record: RolloutRecord, *, as_json: bool, is_back_wanted: bool = False) -> int:
    """Says how a rollout ended, or how far it is; the exit code that goes with it.

    To have gone back is a success if that is what was asked for.
    """
    state, terms = record.state, record.terms
    if as_json:
        print_json(record_document(record))
    else:
        where = f"rollout {record.number} of {record.model} on {record.target}"
        print_line(f"{where}: {terms.strategy} from {terms.old or 'nothing'} to {terms.new}, {state.phase}")
        if state.reason:
            print_line(f"why: {state.reason}")
        if state.phase == "stuck":
            version = f"--version {terms.old}" if terms.old else "a version that is well"
            print_line(f"next: mend or start again what is named, then `deploy apply` with {version}")
    is_back = is_back_wanted and record.kind != "rollback" and state.phase == "rolled-back"
    return 0 if is_back or state.phase in ("succeeded", "running") else 1
