"""A Kubernetes API server on loopback: `/scale`, pods, and the controllers that make the one follow the other.

Bodies and answers are held against the models of Kubernetes' own Python client, which are made of its OpenAPI document.
Patches are merge patches (RFC 7386) under their own content type, a version that is not the newest is a conflict
(API concepts, "Resource versions"), and pods go in the order in which controllers take them: for a ReplicaSet those
that are not ready, then by deletion cost, then the newest (`ActivePodsWithRanks` in
pkg/controller/controller_utils.go); for a StatefulSet the highest ordinal.
"""

from __future__ import annotations

import copy
import datetime
import itertools
import re
import threading
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client

from fakes.control_plane import Answer, ControlPlane, Request

__all__ = ["KubeFake", "Pod", "Workload"]

_MERGE = "application/merge-patch+json"
COST = "controller.kubernetes.io/pod-deletion-cost"


class ApiError(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass
class Pod:
    """One pod, as JSON; `ready` is its condition."""

    body: dict[str, Any]
    ready: bool = True
    ending: bool = False
    owner: str = "set-1"

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def cost(self) -> int:
        return int(self.body["metadata"].get("annotations", {}).get(COST, 0))


@dataclass
class Workload:
    """What is scaled. `ordered`: its pods have ordinals."""

    path: str
    name: str
    replicas: int
    ordered: bool = False
    selector: str | None = "app=llm"
    version: int = 1
    pods: list[Pod] = field(default_factory=list)
    born_ready: bool = True
    refuses: bool = False
    """Whether its definition has no /scale that takes a number."""


class KubeFake(ControlPlane):
    """The server. With `tokens`, only bearers of one get in; `settle` is what controllers do between two requests."""

    def __init__(self, *, tokens: set[str] | None = None, namespace: str = "prod") -> None:
        super().__init__()
        self.lock = threading.RLock()
        self.tokens = tokens
        self.namespace = namespace
        self.workloads: dict[str, Workload] = {}
        self.page_size = 2
        self.touch = 0
        """So many more times a status changes right after somebody read it, as in a rollout."""
        self.controllers_wait = False
        self._numbers = itertools.count(1)

    def add(self, workload: Workload) -> Workload:
        self.workloads[f"{workload.path}/namespaces/{self.namespace}/{workload.name}"] = workload
        self.settle()
        return workload

    def refusal(self, status: int, reason: str, message: str) -> Any:
        said = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": status}
        return {**said, "message": message, "metadata": {}}

    # --- controllers ------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """The pods of each become as many as they should be."""
        with self.lock:
            for one in self.workloads.values():
                one.pods = [pod for pod in one.pods if not pod.ending]
                before = len(one.pods)
                while len(one.pods) < one.replicas:
                    one.pods.append(self._pod(one))
                for pod in self._victims(one)[: len(one.pods) - one.replicas]:
                    pod.ending = True
                one.version += len(one.pods) != before

    def _victims(self, one: Workload) -> list[Pod]:
        if one.ordered:
            return sorted(one.pods, key=lambda pod: -int(pod.name.rpartition("-")[2]))
        number = {pod.name: place for place, pod in enumerate(one.pods)}
        return sorted(one.pods, key=lambda pod: (pod.ready, pod.cost, -number[pod.name]))

    def _pod(self, one: Workload) -> Pod:
        number = next(self._numbers)
        taken = {pod.name for pod in one.pods}
        name = f"{one.name}-7d9f-{number:04d}x"
        if one.ordered:
            name = next(found for place in range(1000) if (found := f"{one.name}-{place}") not in taken)
        stamp = datetime.datetime.fromtimestamp(1_700_000_000 + number, datetime.timezone.utc)
        meta = {
            "name": name,
            "namespace": self.namespace,
            "uid": f"uid-{number}",
            "resourceVersion": str(number),
            "creationTimestamp": stamp.isoformat().replace("+00:00", "Z"),
            "labels": {"app": "llm"},
        }
        return Pod({"metadata": meta}, ready=one.born_ready)

    # --- requests ---------------------------------------------------------------------------------------------

    def serve(self, request: Request) -> Answer:
        try:
            sent = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self.tokens is not None and sent not in self.tokens:
                raise ApiError(401, "Unauthorized", "Unauthorized")
            if request.method == "PATCH" and request.headers.get("content-type") != _MERGE:
                raise ApiError(
                    415, "UnsupportedMediaType", "the body of the request was in an unknown format"
                )
            with self.lock:
                body = self._handle(request)
                if not self.controllers_wait:
                    self.settle()
        except ApiError as error:
            return Answer(error.status, self.refusal(error.status, error.reason, str(error)))
        return Answer(200, body)

    def _handle(self, request: Request) -> dict[str, Any]:
        found = re.fullmatch(r"/apis?/(.+)/namespaces/([^/]+)/([^/]+)/([^/]+)/scale", request.path)
        if found:
            return self._scale(request, *found.groups())
        found = re.fullmatch(rf"/api/v1/namespaces/{self.namespace}/pods(?:/([^/]+))?", request.path)
        if not found:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if found[1] is None:
            return self._list(request)
        return self._one_pod(request, found[1])

    def _scale(
        self, request: Request, version: str, namespace: str, plural: str, name: str
    ) -> dict[str, Any]:
        one = self.workloads.get(f"{version}/{plural}/namespaces/{namespace}/{name}")
        if one is None:
            raise ApiError(404, "NotFound", f'{plural} "{name}" not found')
        if request.method == "PATCH":
            _check(_merged(self._scale_body(one, name), request.body), "V1Scale", "the patched Scale")
            asked = request.body.get("metadata", {}).get("resourceVersion")
            if asked is not None and asked != str(one.version):
                words = "the object has been modified; please apply your changes to the latest version and try again"
                raise ApiError(
                    409, "Conflict", f'Operation cannot be fulfilled on {plural} "{name}": {words}'
                )
            replicas = request.body.get("spec", {}).get("replicas", one.replicas)
            if replicas < 0:
                raise ApiError(422, "Invalid", "spec.replicas: must be greater than or equal to 0")
            one.version += replicas != one.replicas
            one.replicas = replicas
        elif request.method != "GET":
            raise ApiError(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
            )
        body = self._scale_body(one, name)
        _check(body, "V1Scale", "Scale")
        if request.method == "GET" and self.touch:
            self.touch -= 1
            one.version += 1
        return body

    def _scale_body(self, one: Workload, name: str) -> dict[str, Any]:
        status: dict[str, Any] = {"replicas": len(one.pods)}
        if one.selector is not None:
            status["selector"] = one.selector
        meta = {"name": name, "namespace": self.namespace, "resourceVersion": str(one.version)}
        # Zero is left out, as autoscaling/v1 says.
        spec = {"replicas": one.replicas} if one.replicas else {}
        return {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": meta,
            "spec": spec,
            "status": status,
        }

    def _list(self, request: Request) -> dict[str, Any]:
        pods = [
            pod
            for one in self.workloads.values()
            if one.selector == request.query["labelSelector"]
            for pod in one.pods
        ]
        begin = int(request.query.get("continue", "0"))
        most = min(self.page_size, int(request.query["limit"]))
        meta = {"resourceVersion": "1"}
        if begin + most < len(pods):
            meta["continue"] = str(begin + most)
        items = [_pod_body(pod) for pod in pods[begin : begin + most]]
        body = {"apiVersion": "v1", "kind": "PodList", "metadata": meta, "items": items}
        for item in items:
            _check(item["metadata"], "V1ObjectMeta", "Pod.metadata")
            _check(item["status"], "V1PodStatus", "Pod.status")
        return body

    def _one_pod(self, request: Request, name: str) -> dict[str, Any]:
        pod = next((pod for one in self.workloads.values() for pod in one.pods if pod.name == name), None)
        if pod is None:
            raise ApiError(404, "NotFound", f'pods "{name}" not found')
        uid = pod.body["metadata"]["uid"]
        if request.method == "PATCH":
            asked = request.body["metadata"].get("uid", uid)
            if asked != uid:
                raise ApiError(409, "Conflict", f"Precondition failed: UID in precondition: {asked}")
            merged = _merged(pod.body, request.body)
            _check(merged["metadata"], "V1ObjectMeta", "the patched Pod.metadata")
            pod.body = merged
        elif request.method == "DELETE":
            _check(request.body or {}, "V1DeleteOptions", "DeleteOptions")
            if (request.body or {}).get("preconditions", {}).get("uid", uid) != uid:
                raise ApiError(409, "Conflict", "Precondition failed: UID in precondition")
            pod.ending = True
        return _pod_body(pod)


def _pod_body(pod: Pod) -> dict[str, Any]:
    body = copy.deepcopy(pod.body)
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": pod.owner,
        "uid": pod.owner,
        "controller": True,
    }
    body["metadata"]["ownerReferences"] = [owner]
    if pod.ending:
        body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    ready = {"type": "Ready", "status": "True" if pod.ready else "False"}
    body["status"] = {"phase": "Running", "podIP": "10.1.2.3", "conditions": [ready]}
    return body


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), value)
    return found


def _check(value: Any, kind: str, where: str) -> None:
    """Raises ApiError for what a model of the client does not know: the server's strict field validation."""
    many = re.fullmatch(r"[Ll]ist\[(.+)\]", kind)
    by_name = re.fullmatch(r"[Dd]ict[\[(]str, (.+)[\])]", kind)
    if many:
        for item in value:
            _check(item, many[1], f"{where}[]")
    elif by_name:
        for item in value.values():
            _check(item, by_name[1], where)
    elif hasattr(client, kind):
        model = getattr(client, kind)
        known = {json_name: model.openapi_types[name] for name, json_name in model.attribute_map.items()}
        for key, inner in value.items():
            if key not in known:
                raise ApiError(400, "BadRequest", f"strict decoding error: unknown field {where}.{key}")
            _check(inner, known[key], f"{where}.{key}")
    else:
        wanted = {"str": str, "bytes": str, "int": int, "bool": bool, "datetime": str, "object": object}[kind]
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise ApiError(400, "BadRequest", f"{where}: {value!r} is no {kind}")
