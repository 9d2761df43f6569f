"""Findings as a condition of the node, and as a taint that keeps new pods away.

The condition `TextnlpFastGPUHealthy` is True, or False with the worst rule as reason. The taint (NoSchedule) is there
while an action asks for more than a restart of the application. Needs the extra `kubernetes`, and rights to patch
`nodes` and `nodes/status`.
"""

from __future__ import annotations

import asyncio
import datetime
import importlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from textnlp_fast.errors import MissingPackageError
from textnlp_fast.gpu.health.facts import Action, Finding, Severity
from textnlp_fast.gpu.health.rules import action_rank, severity_rank
from textnlp_fast.gpu.health.sinks.outbox import Refused

__all__ = ["CONDITION", "TAINT", "KubernetesSink", "condition_of", "core_v1", "taints_of"]

CONDITION: Final = "TextnlpFastGPUHealthy"
TAINT: Final = "textnlp-fast.io/gpu-unhealthy"
_MOST_MESSAGE: Final = 1000


def core_v1(*, kubeconfig: str | None = None, context: str | None = None) -> Any:
    """CoreV1Api as the cluster or a kubeconfig has it. Raises MissingPackageError."""
    try:
        config = importlib.import_module("kubernetes.config")
        client = importlib.import_module("kubernetes.client")
    except ImportError as error:
        raise MissingPackageError(
            "conditions of nodes need the Kubernetes client",
            hint="Run: pip install 'textnlp-fast[kubernetes]'",
        ) from error
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        config.load_kube_config(kubeconfig, context, client_configuration=configuration)
    return client.CoreV1Api(client.ApiClient(configuration))


def condition_of(findings: list[Finding], at_s: float, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The condition as the API takes it; `before`: as it is now, for when it last changed."""
    serious = [one for one in findings if one.severity is not Severity.INFO]
    now = _rfc3339(at_s)
    if serious:
        worst = max(serious, key=lambda one: (severity_rank(one.severity), action_rank(one.action)))
        reason = "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", worst.rule) if part)
        message = "; ".join(
            f"{one.gpu}: {one.summary}" if one.gpu else one.summary
            for one in sorted(serious, key=lambda one: -severity_rank(one.severity))
        )
        status = "False"
    else:
        reason, message, status = "NothingFound", "nothing is wrong with the GPUs", "True"
    changed = before is None or before.get("status") != status
    return {
        "type": CONDITION,
        "status": status,
        "reason": reason,
        "message": message[:_MOST_MESSAGE],
        "lastHeartbeatTime": now,
        "lastTransitionTime": now
        if changed or before is None
        else str(before.get("lastTransitionTime", now)),
    }


def taints_of(findings: list[Finding], taints: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The node's taints with or without ours; None if they are right as they are."""
    serious = [
        one
        for one in findings
        if one.severity is Severity.CRITICAL and action_rank(one.action) > action_rank(Action.RESTART_APP)
    ]
    mine = [one for one in taints if one.get("key") == TAINT]
    others = [one for one in taints if one.get("key") != TAINT]
    if not serious:
        return others if mine else None
    worst = max(serious, key=lambda one: action_rank(one.action))
    wanted = {"key": TAINT, "value": worst.action.value, "effect": "NoSchedule"}
    if len(mine) == 1 and all(mine[0].get(name) == value for name, value in wanted.items()):
        return None
    return [*others, wanted]


class KubernetesSink:
    """Keeps the condition, and with `taint` the taint, of each machine's node.

    `nodes` maps machines to nodes; a machine that is not in it is its own node.
    """

    wants_open = True

    def __init__(
        self,
        api: Any,
        *,
        nodes: Mapping[str, str] | None = None,
        taint: bool = True,
        name: str = "kubernetes",
        repeats_s: float | None = 300.0,
        timeout_s: float = 20.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.repeats_s: float | None = repeats_s
        self._api = api
        self._nodes = dict(nodes or {})
        self._taint = taint
        self._clock = clock
        self._open: dict[str, dict[tuple[str | None, str], Finding]] = {}

    async def deliver(self, finding: Finding) -> None:
        of_machine = self._open.setdefault(finding.machine, {})
        of_machine.pop((finding.gpu, finding.rule), None)
        if not finding.resolved:
            of_machine[finding.gpu, finding.rule] = finding
        node = self._nodes.get(finding.machine, finding.machine)
        await asyncio.to_thread(self._apply, node, list(of_machine.values()))
        if not of_machine:
            self._open.pop(finding.machine, None)

    async def close(self) -> None:
        """What a node says stays: it is how the node was found last."""

    def _apply(self, node: str, findings: list[Finding]) -> None:
        errors = importlib.import_module("kubernetes.client.exceptions")
        limit_s = self.timeout_s / 4
        try:
            found = self._api.api_client.sanitize_for_serialization(
                self._api.read_node(node, _request_timeout=limit_s)
            )
            conditions = found.get("status", {}).get("conditions") or []
            before = next((one for one in conditions if one.get("type") == CONDITION), None)
            condition = condition_of(findings, self._clock(), before)
            # Conditions are merged by their type: those of others stay.
            self._api.patch_node_status(
                node, {"status": {"conditions": [condition]}}, _request_timeout=limit_s
            )
            taints = taints_of(findings, found.get("spec", {}).get("taints") or []) if self._taint else None
            if taints is not None:
                self._patch_taints(node, found, taints, limit_s)
        except errors.ApiException as error:
            if error.status in (400, 403, 404, 422):
                raise Refused(
                    f"Kubernetes answered {error.status} about node {node}: {error.reason}"
                ) from error
            raise ConnectionError(f"Kubernetes answered {error.status} about node {node}") from error

    def _patch_taints(
        self, node: str, found: Mapping[str, Any], taints: list[dict[str, Any]], limit_s: float
    ) -> None:
        # The list is replaced as a whole: whoever changed the node since it was read must not lose a taint. After the
        # condition was written the version is another, so it is asked for again.
        latest = self._api.api_client.sanitize_for_serialization(
            self._api.read_node(node, _request_timeout=limit_s)
        )
        others = [one for one in latest.get("spec", {}).get("taints") or [] if one.get("key") != TAINT]
        mine = [one for one in taints if one["key"] == TAINT]
        body = {
            "metadata": {"resourceVersion": latest["metadata"]["resourceVersion"]},
            "spec": {"taints": [*others, *mine]},
        }
        self._api.patch_node(node, body, _request_timeout=limit_s)


def _rfc3339(at_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(int(at_s), datetime.timezone.utc)
    return moment.isoformat().replace("+00:00", "Z")
