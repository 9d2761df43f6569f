"""Any resource of Kubernetes with a `/scale`: Deployment, StatefulSet, LeaderWorkerSet, or a CRD.

The number is set by a merge patch that names the version it was read at. Pods that have to go are marked by an
annotation. A ReplicaSet takes pods away by their deletion cost, after those that are not ready; a StatefulSet and a
LeaderWorkerSet take the highest ordinal: who goes is chosen so that it is whom the controller takes.

API: https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/ (Scale v1); order:
https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-down
"""

from __future__ import annotations

import datetime
import functools
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

from textnlp_fast.errors import ConflictError, InvalidInputError, ObjectNotFoundError
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.scaling.actuators.api_server import ApiServer, access
from textnlp_fast.gpu.scaling.actuators.contract import Drain
from textnlp_fast.gpu.scaling.actuators.groups import GroupView, Member, mark_of
from textnlp_fast.gpu.scaling.actuators.reconciling import GroupActuator

__all__ = ["DRAINING_ANNOTATION", "KubernetesScale"]

DRAINING_ANNOTATION: Final = "textnlp-fast.io/draining-since"
_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_LOWEST_COST: Final = "-2147483647"
_KNOWN: Final = {
    "deployment": ("apps/v1/deployments", "cost"),
    "replicaset": ("apps/v1/replicasets", "cost"),
    "statefulset": ("apps/v1/statefulsets", "ordinal"),
    "leaderworkerset": ("leaderworkerset.x-k8s.io/v1/leaderworkersets", "ordinal"),
}
_PAGE: Final = 500
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_RESOURCE: Final = re.compile(
    r"(?:[a-z0-9][-a-z0-9.]*/)?v[0-9]+(?:(?:alpha|beta)[0-9]+)?/[a-z][a-z0-9]*", re.ASCII
)


class KubernetesScale(GroupActuator):
    """One resource. `resource`: deployment, replicaset, statefulset, leaderworkerset, or GROUP/VERSION/PLURAL.

    Without `drain` the number is set at once, and pods that go end as they do in Kubernetes: by SIGTERM, their
    `preStop` and their grace. With it they are drained first; for a resource whose order of going is not known, that
    is refused. In a pod the service account is used, elsewhere a kubeconfig; `server` and `token` say it otherwise.
    """

    kind = "kubernetes"

    def __init__(
        self,
        *,
        namespace: str,
        resource: str,
        name: str,
        drain: Drain | None = None,
        drain_s: float = 600.0,
        give_up_s: float | None = None,
        server: str | None = None,
        token: str | None = None,
        kubeconfig: str | None = None,
        kube_context: str | None = None,
        timeout_s: float = 20.0,
        deadline_s: float = 60.0,
        retries: int = 5,
        first_pause_s: float = 0.3,
        clock: Callable[[], float] = time.time,
    ) -> None:
        patience = Patience(
            timeout_s=timeout_s, deadline_s=deadline_s, retries=retries, first_pause_s=first_pause_s
        )
        super().__init__(patience=patience, drain=drain, drain_s=drain_s, give_up_s=give_up_s, clock=clock)
        plural, self._taken_by = _resource(resource)
        for what, word in (("namespace", namespace), ("name", name)):
            if not isinstance(word, str) or not _NAME.fullmatch(word):
                raise InvalidInputError(f"{word!r:.100} is no {what} in Kubernetes")
        self.chooses = drain is not None
        if self.chooses and self._taken_by == "unknown":
            raise InvalidInputError(
                f"nobody knows which pod goes when a {plural} gets smaller, so that none can be drained before",
                hint="Leave out `drain`, and drain in the pods' preStop hook.",
            )
        group, _, rest = plural.rpartition("/")[0].rpartition("/")
        root = f"/apis/{group}/{rest}" if group else f"/api/{rest}"
        self._what = f"{plural.rpartition('/')[2]} {name!r} in {namespace}"
        self._scale = f"{root}/namespaces/{namespace}/{plural.rpartition('/')[2]}/{name}/scale"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        find = functools.partial(
            access, server=server, token=token, kubeconfig=kubeconfig, kube_context=kube_context
        )
        self._api = ApiServer(find, patience=patience)

    def _look(self, until: float) -> GroupView:
        scale = self._scale_now(until)
        selector = (scale.get("status") or {}).get("selector")
        if not selector:
            raise InvalidInputError(
                f"the scale of {self._what} names no selector, so that its pods are not known",
                hint="Set labelSelectorPath in the resource's definition.",
            )
        return GroupView(
            told=int((scale.get("spec") or {}).get("replicas") or 0),
            members=tuple(_member(one) for one in self._list_pods(selector, until) if not _finished(one)),
            version=scale["metadata"].get("resourceVersion"),
        )

    def _scale_now(self, until: float) -> dict[str, Any]:
        try:
            return self._api.ask("GET", self._scale, until=until)
        except ObjectNotFoundError as error:
            raise ObjectNotFoundError(f"there is no {self._what}", hint=error.hint) from error

    def _list_pods(self, selector: str, until: float) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query = {"labelSelector": selector, "limit": str(_PAGE)}
        while True:
            page = self._api.ask("GET", self._pods, query=query, until=until)
            found += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            query = {**query, "continue": token}

    def _tell(self, view: GroupView, told: int, until: float) -> None:
        patch = {"metadata": {"resourceVersion": view.version}, "spec": {"replicas": told}}
        self._api.ask("PATCH", self._scale, patch=patch, until=until)

    def _mark(self, members: Sequence[Member], at_s: float, until: float) -> None:
        annotations = {DRAINING_ANNOTATION: str(int(at_s)), _COST: _LOWEST_COST}
        for one in members:
            try:
                patch = {"metadata": {"uid": one.version, "annotations": annotations}}
                self._api.ask("PATCH", self._pod(one), patch=patch, until=until)
            except (ObjectNotFoundError, ConflictError):
                continue  # gone since, or another of the same name

    def _victims(self, view: GroupView, surplus: int, count: int) -> list[Member]:
        if self._taken_by == "ordinal":
            return sorted(view.staying, key=_ordinal, reverse=True)[:surplus]
        return super()._victims(view, surplus, count)

    def _endable(self, view: GroupView, empty: Sequence[Member]) -> list[Member]:
        there = [one for one in view.members if one.present]
        if self._taken_by == "ordinal":
            # A StatefulSet takes its highest ordinal and no other.
            ids = {one.member_id for one in empty}
            found = []
            for one in sorted(there, key=_ordinal, reverse=True):
                if one.member_id not in ids:
                    break
                found.append(one)
            return found
        # While a rollout runs, the number is shared out between two ReplicaSets, and marks decide within each alone.
        return list(empty) if len({one.owner for one in there}) <= 1 else []

    def _renewable(self, view: GroupView, empty: Sequence[Member]) -> list[Member]:
        # Above it are pods that stay: more were wanted again while it drained. Its place is kept, with a new pod.
        highest = max((_ordinal(one) for one in view.staying), default=-1)
        return [one for one in empty if _ordinal(one) < highest] if self._taken_by == "ordinal" else []

    def _renew(self, member: Member, until: float) -> None:
        self._delete(member, until)

    def _may_lower(self, view: GroupView, told: int) -> bool:
        # A StatefulSet that lost a pod makes it again: told less before that, it would take one from the top.
        return self._taken_by != "ordinal" or all(_ordinal(one) < told for one in view.members)

    def _end(self, member: Member, *, told: int, shrink: bool, until: float) -> None:
        scale = self._scale_now(until)
        if int((scale.get("spec") or {}).get("replicas") or 0) != told:
            raise ConflictError(f"{self._what} was scaled by somebody else")
        version = scale["metadata"].get("resourceVersion")
        self._tell(GroupView(told=told, members=(), version=version), told - 1, until)
        if self._taken_by == "cost":
            # A pod that was not ready may have gone in its place: then this one is replaced.
            self._delete(member, until)

    def _delete(self, member: Member, until: float) -> None:
        body = {"preconditions": {"uid": member.version}}
        try:
            self._api.ask("DELETE", self._pod(member), body=body, until=until)
        except (ObjectNotFoundError, ConflictError):
            return  # it is gone, or another of its name is there

    def _pod(self, member: Member) -> str:
        return f"{self._pods}/{quote(member.member_id, safe='')}"


def _resource(resource: object) -> tuple[str, str]:
    """Group, version and plural, and in which way its controller takes pods away."""
    known = _KNOWN.get(resource.lower().removesuffix("s")) if isinstance(resource, str) else None
    if known is not None:
        return known
    if not isinstance(resource, str) or not _RESOURCE.fullmatch(resource):
        raise InvalidInputError(
            f"{resource!r:.100} is no resource that can be scaled",
            hint=f"Write {', '.join(_KNOWN)}, or GROUP/VERSION/PLURAL.",
        )
    return resource, next((how for plural, how in _KNOWN.values() if plural == resource), "unknown")


def _ordinal(member: Member) -> int:
    return int(member.member_id.rpartition("-")[2]) if re.search(r"-\d+$", member.member_id) else -1


def _finished(pod: dict[str, Any]) -> bool:
    """Whether its controller counts it no more."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _member(pod: dict[str, Any]) -> Member:
    meta, status = pod["metadata"], pod.get("status") or {}
    state: Literal["starting", "ready", "leaving"] = "starting"
    if meta.get("deletionTimestamp"):
        state = "leaving"
    elif any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ()):
        state = "ready"
    owner = next((one["uid"] for one in meta.get("ownerReferences") or () if one.get("controller")), None)
    return Member(
        member_id=meta["name"],
        state=state,
        marked_at_s=mark_of((meta.get("annotations") or {}).get(DRAINING_ANNOTATION)),
        created_at_s=_seconds(meta.get("creationTimestamp")),
        owner=owner,
        address=status.get("podIP"),
        version=meta.get("uid"),
    )


def _seconds(stamp: str | None) -> float:
    if not stamp:
        return 0.0
    return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
