"""A deployment on Kubernetes: its manifests applied by the server, the Deployment watched, and undone where it fails.

The cluster does the rolling and keeps what it replaced; what is ours is to tell it, to see how it ends,
to bring back the template before, and to note it all in the registry. Killed, the same call looks again and goes on.

API: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and
https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status
"""

from __future__ import annotations

import copy
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from textnlp_fast.adapter.rollout.history import before_now, keep, let_go, one_line, served
from textnlp_fast.adapter.rollout.holding import HeldLease
from textnlp_fast.adapter.rollout.records import lease_key
from textnlp_fast.errors import DeploymentNotFoundError, InvalidInputError, ObjectNotFoundError
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.scaling.actuators.api_server import ApiAccess, ApiServer
from textnlp_fast.storage import Registry

__all__ = ["KubernetesOutcome", "KubernetesRollout", "KubernetesSight", "look"]

_MANAGER: Final = "textnlp-fast"
_LEASE_S: Final = 30.0
_PAGE: Final = 500
#: Where objects of a kind are. Others are applied by nobody here.
_PATHS: Final = {
    ("v1", "ServiceAccount"): "/api/v1/namespaces/{}/serviceaccounts",
    ("v1", "ConfigMap"): "/api/v1/namespaces/{}/configmaps",
    ("v1", "PersistentVolumeClaim"): "/api/v1/namespaces/{}/persistentvolumeclaims",
    ("v1", "Service"): "/api/v1/namespaces/{}/services",
    ("apps/v1", "Deployment"): "/apis/apps/v1/namespaces/{}/deployments",
    ("policy/v1", "PodDisruptionBudget"): "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    ("keda.sh/v1alpha1", "ScaledObject"): "/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects",
    (
        "keda.sh/v1alpha1",
        "TriggerAuthentication",
    ): "/apis/keda.sh/v1alpha1/namespaces/{}/triggerauthentications",
}
_REVISION: Final = "deployment.kubernetes.io/revision"


@dataclass(frozen=True, slots=True)
class KubernetesOutcome:
    """How it ended: `succeeded`, `rolled-back`, or `stuck`, with why."""

    phase: str
    version: str | None
    """What the pods have now; None where that is not known."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KubernetesSight:
    """What the cluster says of a Deployment now."""

    version: str | None
    """Of the template that its pods are to have; None where that names none."""
    progress: str
    is_ready: bool
    """Whether all pods are of that template, and available."""
    problem: str = ""


def look(workload: Mapping[str, Any], api: ApiServer, patience: Patience) -> KubernetesSight | None:
    """How the Deployment of a manifest fares; None if the cluster has none of its name."""
    try:
        found = api.ask("GET", _path_of(workload), until=patience.until())
    except ObjectNotFoundError:
        return None
    is_ready, progress, problem = _progress(found)
    return KubernetesSight(_version_of(found["spec"]["template"]), progress, is_ready, problem)


class KubernetesRollout:
    """Takes one Deployment, and what its manifests have beside it, to a version.

    `manifests` are those of `adapter.targets.kubernetes` for that version. `deadline_s` bounds the wait beyond the
    Deployment's own `progressDeadlineSeconds`.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        target: str,
        manifests: Sequence[Mapping[str, Any]],
        access: Callable[[], ApiAccess],
        *,
        patience: Patience | None = None,
        poll_s: float = 2.0,
        deadline_s: float = 600.0,
        lease_s: float = _LEASE_S,
        told: Callable[[str], None] = lambda words: None,
    ) -> None:
        workloads = [one for one in manifests if one.get("kind") == "Deployment"]
        if len(workloads) != 1:
            raise InvalidInputError("the manifests have no Deployment, or several")
        self._registry = registry
        self._model = model
        self._target = target
        self._manifests = list(manifests)
        self._workload = workloads[0]
        self._patience = patience or Patience()
        self._api = ApiServer(access, patience=self._patience)
        self._poll_s = poll_s
        self._deadline_s = deadline_s
        self._lease_s = lease_s
        self._told = told

    def apply(self, version: str, *, note: str = "") -> KubernetesOutcome:
        """Rolls out, or goes on with it; undoes it where it fails. Returns how it ended.

        Raises ConflictError while another process rolls out to the target, AuthenticationError, InvalidInputError for
        objects that the server refuses (what was applied before them stays), ProviderUnavailableError.
        """
        registry, model, target = self._registry, self._model, self._target
        new = registry.resolve(model, version)
        with self._lease() as lease:
            before = served(registry, model, target)
            registry.deploy(model, new, target, note=one_line(note), state="rolling-out")
            wrong = self._bring(lease)
            if not wrong:
                registry.set_deployment_state(model, target, "healthy")
                return KubernetesOutcome("succeeded", new)
            self._told(f"going back: {wrong}")
            return self._go_back(lease, new, before, wrong)

    def roll_back(self, version: str, *, note: str = "") -> KubernetesOutcome:
        """Goes back to a version that the target has served, or goes on with that. Returns how it ended.

        Where that one does not get ready either, it is left as it is: `stuck`. Raises DeploymentNotFoundError for a
        version that it has not served, and what `apply` raises.
        """
        registry, model, target = self._registry, self._model, self._target
        pin = f"the way back of {target} leads to it"
        with self._lease() as lease:
            if version not in before_now(registry, model, target):
                raise DeploymentNotFoundError(
                    f"{target} of {model} has not served {version} before what it serves now",
                    hint="`textnlp-fast deployments history` shows what it served.",
                )
            # Until the pods run it, the registry has the version that they leave: a call again goes on with the same.
            keep(registry, model, target, version, pin)
            registry.set_deployment_state(model, target, "rolling-back", note=one_line(note))
            wrong = self._bring(lease)
            registry.rollback(model, target, to=version, note=one_line(note))
            state, why = ("failed", one_line(wrong)) if wrong else ("healthy", None)
            registry.set_deployment_state(model, target, state, note=why)
            let_go(registry, model, version, pin)
            return KubernetesOutcome("stuck" if wrong else "succeeded", version, wrong)

    def _lease(self) -> HeldLease:
        registry = self._registry
        holder = f"{registry.actor} on {socket.gethostname()}, process {os.getpid()}"
        key = lease_key(self._model, self._target)
        return HeldLease(
            registry.repository.store, key, holder=holder, seconds=self._lease_s, told=self._told
        )

    def _bring(self, lease: HeldLease) -> str:
        """Applies all manifests and waits; why it failed, empty if it did not."""
        for one in self._manifests:
            lease.check()
            self._apply(one)
        return self._watch(lease)

    def _go_back(self, lease: HeldLease, new: str, before: str | None, wrong: str) -> KubernetesOutcome:
        registry, model, target = self._registry, self._model, self._target
        template = self._template_before(new)
        if template is None:
            why = f"{wrong}; no template of another version is kept"
            registry.set_deployment_state(model, target, "failed", note=one_line(why))
            return KubernetesOutcome("stuck", None, why)
        undone = copy.deepcopy(dict(self._workload))
        undone["spec"]["template"] = template
        lease.check()
        self._apply(undone)
        again = self._watch(lease)
        old = _version_of(template)
        deployed = registry.deployments(model).get(model, {}).get(target)
        if deployed is not None and deployed.version == new and old in deployed.previous:
            registry.rollback(model, target, to=old, note=one_line(wrong))
        elif before is not None and old != new:
            self._told(f"the registry was left as it is: {target} did not serve {old} before")
        if again:
            why = f"{wrong}; and {old} did not become ready again: {again}"
            registry.set_deployment_state(model, target, "failed", note=one_line(why))
            return KubernetesOutcome("stuck", old, why)
        registry.set_deployment_state(model, target, "rolled-back", note=one_line(wrong))
        return KubernetesOutcome("rolled-back", old, wrong)

    # --- requests -------------------------------------------------------------------------------------------

    def _apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """The object as the server has it afterwards. Fields that others manage are taken over: these are ours."""
        query = {"fieldManager": _MANAGER, "force": "true"}
        path = _path_of(manifest, namespace=_namespace_of(self._workload))
        return self._api.ask("PATCH", path, query=query, apply=manifest, until=self._patience.until())

    def _read(self) -> dict[str, Any]:
        return self._api.ask("GET", _path_of(self._workload), until=self._patience.until())

    def _watch(self, lease: HeldLease) -> str:
        """Waits for the Deployment to be as it was applied; why it will not be, empty if it is."""
        spec = self._workload["spec"]
        most_s = float(spec.get("progressDeadlineSeconds", 600)) + self._deadline_s
        end = time.monotonic() + most_s
        said = ""
        while time.monotonic() < end:
            lease.check()
            done, words, failed = _progress(self._read())
            if words != said:
                self._told(words)
                said = words
            if done:
                return ""
            if failed:
                return failed
            time.sleep(self._poll_s)
        return f"not ready within {most_s:.0f} s: {said}"

    def _template_before(self, new: str) -> dict[str, Any] | None:
        """The pod template of the newest ReplicaSet of this Deployment whose version is another."""
        workload = self._read()
        labels = workload["spec"]["selector"].get("matchLabels") or {}
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        path = f"/apis/apps/v1/namespaces/{quote(_namespace_of(self._workload), safe='')}/replicasets"
        query = {"labelSelector": selector, "limit": str(_PAGE)}
        found: list[tuple[int, dict[str, Any]]] = []
        while True:
            page = self._api.ask("GET", path, query=query, until=self._patience.until())
            for one in page.get("items") or []:
                owners = one["metadata"].get("ownerReferences") or []
                mine = any(owner.get("uid") == workload["metadata"].get("uid") for owner in owners)
                revision = str((one["metadata"].get("annotations") or {}).get(_REVISION, ""))
                template = one["spec"]["template"]
                if mine and revision.isdecimal() and _version_of(template) not in (None, new):
                    found.append((int(revision), template))
            if not (page.get("metadata") or {}).get("continue"):
                break
            query["continue"] = page["metadata"]["continue"]
        if not found:
            return None
        template = copy.deepcopy(max(found, key=lambda pair: pair[0])[1])
        # The controller's own, which each ReplicaSet has another of.
        (template["metadata"].get("labels") or {}).pop("pod-template-hash", None)
        template["metadata"].pop("creationTimestamp", None)
        return template


def _namespace_of(manifest: Mapping[str, Any]) -> str:
    return str(manifest["metadata"].get("namespace") or "default")


def _path_of(manifest: Mapping[str, Any], *, namespace: str | None = None) -> str:
    """Where the object is on the server. Raises InvalidInputError for kinds that nobody applies here."""
    kind = (str(manifest.get("apiVersion")), str(manifest.get("kind")))
    if kind not in _PATHS:
        raise InvalidInputError(f"objects of kind {kind[1]} ({kind[0]}) are not applied here")
    where = _PATHS[kind].format(quote(namespace or _namespace_of(manifest), safe=""))
    return f"{where}/{quote(manifest['metadata']['name'], safe='')}"


def _version_of(template: Mapping[str, Any]) -> str | None:
    said = ((template.get("metadata") or {}).get("annotations") or {}).get("textnlp-fast/version")
    return None if said is None else str(said).rpartition("@")[2]


def _progress(workload: Mapping[str, Any]) -> tuple[bool, str, str]:
    """Whether all pods are new and available, how far that is in words, and why it has failed."""
    status = workload.get("status") or {}
    # Zero is left out of what the server says.
    numbers = {
        name: int(status.get(name) or 0) for name in ("replicas", "updatedReplicas", "availableReplicas")
    }
    wanted = int((workload.get("spec") or {}).get("replicas", 1))
    seen = int(status.get("observedGeneration") or 0) >= int(workload["metadata"].get("generation") or 0)
    if not seen:
        return False, "waiting for the cluster to see it", ""
    words = f"{numbers['updatedReplicas']} of {wanted} new, {numbers['availableReplicas']} available"
    for one in status.get("conditions") or []:
        if (
            one.get("type") == "Progressing"
            and one.get("status") == "False"
            and one.get("reason") == "ProgressDeadlineExceeded"
        ):
            return False, words, f"the cluster gave up: {one.get('message') or 'no progress'}"
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
            words += f"; {str(one.get('message') or one.get('reason'))[:200]}"
    done = numbers["updatedReplicas"] == numbers["replicas"] == numbers["availableReplicas"] == wanted
    return done, words, ""
