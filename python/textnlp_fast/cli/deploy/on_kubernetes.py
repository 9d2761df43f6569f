"""`textnlp-fast deploy apply|status|rollback --target k8s`."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.adapter.planning import make_plan
from textnlp_fast.adapter.rollout.history import before_now
from textnlp_fast.adapter.rollout.kubernetes import KubernetesOutcome, KubernetesRollout, look
from textnlp_fast.adapter.targets.kubernetes import manifests
from textnlp_fast.cli.deploy.rolling import noted_document, noted_of, print_noted
from textnlp_fast.cli.output import print_json, print_line
from textnlp_fast.cli.program import printable
from textnlp_fast.errors import DeploymentNotFoundError, InvalidInputError
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.scaling.actuators.api_server import ApiServer, access

if TYPE_CHECKING:
    from textnlp_fast.adapter import Deployment
    from textnlp_fast.storage import Registry, Repository

__all__ = ["apply_on_kubernetes", "roll_back_on_kubernetes", "show_on_kubernetes"]


def apply_on_kubernetes(
    deployment: Deployment,
    registry: Registry,
    version: str,
    note: str,
    *,
    kubeconfig: str | None,
    context: str | None,
    as_json: bool,
) -> int:
    """Applies the manifests of a version and waits; the exit code. Raises InvalidInputError for what is no rolling."""
    exact = registry.resolve(deployment.model.name, version)
    rollout = _rollout(deployment, registry, exact, kubeconfig, context)
    return _print_outcome(deployment, rollout.apply(exact, note=note), as_json=as_json)


def roll_back_on_kubernetes(
    deployment: Deployment,
    registry: Registry,
    to: str | None,
    note: str,
    *,
    kubeconfig: str | None,
    context: str | None,
    as_json: bool,
) -> int:
    """Applies the manifests of the version before, or of `to`, and waits; the exit code."""
    name, target = deployment.model.name, deployment.name
    before = before_now(registry, name, target)
    if not before and to is None:
        raise DeploymentNotFoundError(
            f"{target} of {name} served no other version before that is still there",
            hint="Take it to another version: textnlp-fast deploy apply --target k8s --version VERSION",
        )
    exact = registry.resolve(name, to) if to else before[0]
    rollout = _rollout(deployment, registry, exact, kubeconfig, context)
    return _print_outcome(deployment, rollout.roll_back(exact, note=note), as_json=as_json)


def show_on_kubernetes(
    deployment: Deployment,
    repository: Repository,
    *,
    kubeconfig: str | None,
    context: str | None,
    as_json: bool,
) -> None:
    """Prints what the registry says that the target serves, and what the cluster says."""
    deployed = noted_of(repository, deployment)
    # Only names of objects are asked for: which version they are made for does not matter.
    wanted = deployed.version if deployed is not None else deployment.model.parsed.version or "latest"
    exact = repository.resolve(replace(deployment.model.parsed, version=wanted))[1]
    workload = next(
        each for each in _manifests(deployment, repository, exact) if each["kind"] == "Deployment"
    )
    patience = Patience()
    api = ApiServer(functools.partial(access, kubeconfig=kubeconfig, kube_context=context), patience=patience)
    sight = look(workload, api, patience)
    noted = None if deployed is None else deployed.version
    there = None if sight is None else sight.version
    if as_json:
        cluster: dict[str, Any] | None = None
        if sight is not None:
            cluster = {
                "version": sight.version,
                "progress": sight.progress,
                "ready": sight.is_ready,
                "problem": sight.problem,
            }
        print_json({"registry": noted_document(deployed), "cluster": cluster, "agree": noted == there})
        return
    print_noted(deployment, deployed)
    if sight is None:
        print_line("cluster: there is no such Deployment")
    else:
        print_line(f"cluster: {there or 'no version of ours'}, {sight.problem or sight.progress}")
    if noted != there:
        print_line("they differ: `deploy apply --target k8s --version VERSION` takes both to one version")


def _manifests(deployment: Deployment, repository: Repository, version: str) -> list[dict[str, Any]]:
    model = replace(deployment.model, reference=f"{deployment.model.name}@{version}")
    return list(manifests(make_plan(replace(deployment, model=model), repository)))


def _rollout(
    deployment: Deployment, registry: Registry, version: str, kubeconfig: str | None, context: str | None
) -> KubernetesRollout:
    if deployment.rollout.strategy != "rolling":
        raise InvalidInputError(
            f"a Deployment of Kubernetes rolls, and rollout.strategy is {deployment.rollout.strategy}",
            hint="Set rollout.strategy: rolling. Canaries are for replicas with agents (`--target instances`).",
        )
    return KubernetesRollout(
        registry,
        deployment.model.name,
        deployment.name,
        _manifests(deployment, registry.repository, version),
        functools.partial(access, kubeconfig=kubeconfig, kube_context=context),
        told=lambda words: click.echo(printable(words), err=True),
    )


def _print_outcome(deployment: Deployment, outcome: KubernetesOutcome, *, as_json: bool) -> int:
    if as_json:
        print_json({"phase": outcome.phase, "version": outcome.version, "reason": outcome.reason})
    else:
        print_line(f"{deployment.name}: {outcome.phase}, {outcome.version or 'unknown version'}")
        if outcome.reason:
            print_line(f"why: {outcome.reason}")
    return 0 if outcome.phase == "succeeded" else 1
