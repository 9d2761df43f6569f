"""Deployments on a loopback API server: server-side apply, ReplicaSets that keep what was, a controller that rolls.

Bodies are held against the models of Kubernetes' own Python client, as those of `fakes.kube_api` are.
Of server-side apply it does what one manager sees who forces: the fields that are applied are the object's.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from typing import Any

from fakes.control_plane import Answer, Request
from fakes.kube_api import ApiError, KubeFake, _check

__all__ = ["DeploymentsFake"]

_KINDS = {
    "serviceaccounts": "V1ServiceAccount",
    "configmaps": "V1ConfigMap",
    "persistentvolumeclaims": "V1PersistentVolumeClaim",
    "services": "V1Service",
    "poddisruptionbudgets": "V1PodDisruptionBudget",
    "deployments": "V1Deployment",
}


class DeploymentsFake(KubeFake):
    """The server. Pods of a version in `broken` never get ready."""

    def __init__(self, namespace: str) -> None:
        super().__init__(tokens={"good"}, namespace=namespace)
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.sets: list[dict[str, Any]] = []
        self.broken: set[str] = set()
        self.looks = 0
        """How often the Deployment was read since it was applied last."""
        self.lock_all = threading.RLock()

    def serve(self, request: Request) -> Answer:
        try:
            if request.headers.get("authorization") != "Bearer good":
                raise ApiError(401, "Unauthorized", "Unauthorized")
            with self.lock_all:
                return Answer(200, self._route(request))
        except ApiError as error:
            return Answer(error.status, self.refusal(error.status, error.reason, str(error)))

    def _route(self, request: Request) -> dict[str, Any]:
        found = re.fullmatch(r"/apis?/(.+)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?", request.path)
        if found is None or found[2] != self.namespace:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        version, _, plural, name = found.groups()
        if plural == "replicasets" and name is None:
            return self._list(request)
        if plural not in _KINDS:
            raise ApiError(404, "NotFound", f"no resource {plural}")
        if request.method == "PATCH":
            return self._apply(request, version, plural, name)
        if (plural, name) not in self.objects:
            raise ApiError(404, "NotFound", f'{plural} "{name}" not found')
        if plural == "deployments":
            self.looks += 1
        return self._body(plural, name)

    def _apply(self, request: Request, version: str, plural: str, name: str) -> dict[str, Any]:
        assert request.headers.get("content-type") == "application/apply-patch+yaml", (
            "the media type of apply"
        )
        assert request.query.get("fieldManager"), "fieldManager is required for apply patch"
        body = request.body
        if (body.get("apiVersion"), body["metadata"].get("name")) != (version, name):
            raise ApiError(400, "BadRequest", "the object does not fit the address")
        if "managedFields" in body["metadata"]:
            raise ApiError(400, "BadRequest", "metadata.managedFields must be nil")
        _check(
            {key: value for key, value in body.items() if key not in ("apiVersion", "kind")},
            _KINDS[plural],
            plural,
        )
        before = self.objects.get((plural, name))
        number = 1
        kept = copy.deepcopy(body)
        if plural == "deployments":
            kept["spec"].setdefault("replicas", 1 if before is None else before["spec"]["replicas"])
            number = (
                1 if before is None else before["metadata"]["generation"] + (before["spec"] != kept["spec"])
            )
        kept["metadata"] |= {"uid": f"uid-{name}", "generation": number}
        self.objects[plural, name] = kept
        if plural == "deployments":
            self.looks = 0
            self._roll(kept)
        return self._body(plural, name)

    def _roll(self, workload: dict[str, Any]) -> None:
        """A ReplicaSet for each template there was; an old one that comes again gets a new revision."""
        template = copy.deepcopy(workload["spec"]["template"])
        text = json.dumps(template, sort_keys=True)
        top = max((one["revision"] for one in self.sets), default=0) + 1
        same = next((one for one in self.sets if one["text"] == text), None)
        if same is not None:
            if same["revision"] != top - 1:
                same["revision"] = top
            return
        self.sets.append({"text": text, "revision": top, "template": template})

    def _body(self, plural: str, name: str) -> dict[str, Any]:
        body = copy.deepcopy(self.objects[plural, name])
        if plural != "deployments":
            return body
        version = body["spec"]["template"]["metadata"]["annotations"]["textnlp-fast/version"].rpartition("@")[
            2
        ]
        wanted, generation = body["spec"]["replicas"], body["metadata"]["generation"]
        new = min(wanted, max(0, self.looks - 2))
        broken = version in self.broken
        # Zero is left out, and the controller sees an object a little later than it was written.
        status: dict[str, Any] = {
            "observedGeneration": generation if self.looks > 1 else max(1, generation - 1)
        }
        if self.looks > 1:
            available = wanted - 1 if broken else wanted
            numbers = {"replicas": wanted + (new < wanted), "updatedReplicas": 1 if broken else new}
            status |= numbers | {"availableReplicas": available}
        progressing = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}
        if broken and self.looks > 4:
            progressing |= {"status": "False", "reason": "ProgressDeadlineExceeded"}
            progressing |= {"message": f'ReplicaSet "{name}-1" has timed out progressing.'}
        status["conditions"] = [progressing]
        body["status"] = status
        _check(status, "V1DeploymentStatus", "status")
        return body

    def _list(self, request: Request) -> dict[str, Any]:
        name = next(name for plural, name in self.objects if plural == "deployments")
        items = []
        for one in self.sets:
            template = copy.deepcopy(one["template"])
            template["metadata"]["labels"]["pod-template-hash"] = f"hash{one['revision']}"
            owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": f"uid-{name}"}
            meta = {
                "name": f"{name}-{one['revision']}",
                "annotations": {"deployment.kubernetes.io/revision": str(one["revision"])},
                "ownerReferences": [owner],
            }
            spec = {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}
            _check({"metadata": meta, "spec": spec}, "V1ReplicaSet", "ReplicaSet")
            items.append({"metadata": meta, "spec": spec})
        # Of somebody else, with the same labels.
        other = copy.deepcopy(items[0])
        other["metadata"]["ownerReferences"][0]["uid"] = "uid-of-another"
        other["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "99"
        items.insert(0, other)
        begin = int(request.query.get("continue", "0"))
        meta_of_list = {"continue": str(begin + 1)} if begin + 1 < len(items) else {}
        return {"kind": "ReplicaSetList", "metadata": meta_of_list, "items": items[begin : begin + 1]}
