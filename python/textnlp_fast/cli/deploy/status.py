"""`textnlp-fast deploy status`: how far a rollout is, and what replicas serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import json_option, open_repository
from textnlp_fast.cli.deploy.rolling import (
    FILE,
    RolloutVerb,
    client_of,
    kubernetes_options,
    noted_document,
    noted_of,
    print_noted,
    print_record,
    reached_option,
    record_document,
    replica_options,
)
from textnlp_fast.cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from textnlp_fast.adapter.rollout.records import RolloutRecord
    from textnlp_fast.adapter.rollout.state import Sight
    from textnlp_fast.storage.registry.state import Deployment as Noted

EPILOG = """\b
Examples:
  textnlp-fast deploy status chat.yaml
  textnlp-fast deploy status chat.yaml --agents agents.yaml --json
  textnlp-fast deploy status chat.yaml --target k8s
"""
_MOST_EVENTS = 12


@click.command("status", cls=RolloutVerb, epilog=EPILOG)
@click.argument("file", type=FILE)
@kubernetes_options
@replica_options
@reached_option
@json_option
def command(
    *,
    file: Path,
    target: str,
    kubeconfig: str | None,
    context: str | None,
    agents: Path | None,
    token_file: Path | None,
    gateway: Path | None,
    repo: str | None,
    as_json: bool,
) -> None:
    """Show the last rollout of FILE, under way or over; with agents, also what each replica says that it serves.

    On Kubernetes: what the registry says that is served, and what the cluster says.
    """
    from textnlp_fast.adapter import read_deployment  # noqa: PLC0415
    from textnlp_fast.adapter.rollout.records import read_record  # noqa: PLC0415

    deployment = read_deployment(file)
    # No registry: nothing is changed, and whoever asks needs no name.
    repository = open_repository(repo or deployment.model.repository)
    if target == "k8s":
        from textnlp_fast.cli.deploy.on_kubernetes import show_on_kubernetes  # noqa: PLC0415

        show_on_kubernetes(deployment, repository, kubeconfig=kubeconfig, context=context, as_json=as_json)
        return
    store = repository.store
    record, _ = read_record(store, deployment.model.name, deployment.name)
    seen: dict[str, Sight] = {}
    if agents is not None or deployment.gateway.replicas:
        client = client_of(deployment, agents=agents, token_file=token_file)
        seen = {name: sight for name, (sight, _) in client.look(client.replicas).items()}
    noted = noted_of(repository, deployment)
    others = _others(noted, record, seen)
    if as_json:
        print_json(
            {
                "registry": noted_document(noted),
                "agree": None if others is None else not others,
                "rollout": None if record is None else record_document(record),
                "replicas": [_row(name, record, seen.get(name)) for name in _names(record, seen)],
            }
        )
        return
    if record is None:
        print_line(f"nothing was ever rolled out to {deployment.name}")
    else:
        print_record(record, as_json=False)
    print_noted(deployment, noted)
    _show(record, seen)
    if others:
        serve = ", ".join(f"{name} {seen[name].serving or 'nothing'}" for name in others)
        print_line(f"they differ from the registry: {serve}; `deploy apply --again` takes all to one version")


def _others(noted: Noted | None, record: RolloutRecord | None, seen: dict[str, Sight]) -> list[str] | None:
    """Replicas in service that serve another version than the registry says; None while nobody can tell."""
    is_over = record is None or record.closed
    if noted is None or not is_over or not any(sight.reachable for sight in seen.values()):
        return None
    active = seen.keys() if record is None else record.active
    return [
        name
        for name in active
        if name in seen and seen[name].reachable and seen[name].serving != noted.version
    ]


def _names(record: RolloutRecord | None, seen: dict[str, Sight]) -> list[str]:
    told = () if record is None else (*record.active, *record.spares)
    return list(dict.fromkeys((*told, *seen)))


def _row(name: str, record: RolloutRecord | None, sight: Sight | None) -> dict[str, object]:
    held = None if record is None else record.state.replicas.get(name)
    spare = record is not None and name in record.spares
    return {
        "replica": name,
        "spare": spare,
        "place": None if held is None else held.place,
        "weight": None if held is None else held.weight,
        "reachable": None if sight is None else sight.reachable,
        "serving": None if sight is None else sight.serving,
        "prepared": None if sight is None else sight.prepared,
        "ready": None if sight is None or not sight.reachable else sight.ready,
        "problem": (held.lost if held is not None else "")
        or ("" if sight is None else sight.error or sight.why),
    }


def _show(record: RolloutRecord | None, seen: dict[str, Sight]) -> None:
    rows = [_row(name, record, seen.get(name)) for name in _names(record, seen)]
    if rows:
        words = [
            [
                str(row["replica"]) + (" (spare)" if row["spare"] else ""),
                "" if row["place"] is None else f"{row['place']}, {row['weight']} %",
                "?" if row["serving"] is None else str(row["serving"]),
                "" if row["prepared"] is None else str(row["prepared"]),
                {None: "", True: "yes", False: "no"}[row["ready"]],  # type: ignore[index]
                str(row["problem"]),
            ]
            for row in rows
        ]
        print_table(["replica", "traffic", "serves", "prepared", "ready", "problem"], words, left=6, yields=5)
    for event in [] if record is None else record.events[-_MOST_EVENTS:]:
        print_line(f"{event.at}  {event.what}")
