"""Findings as alerts of Prometheus' Alertmanager, by its API v2.

github.com/prometheus/alertmanager, api/v2/openapi.yaml: POST /api/v2/alerts takes a list of alerts with `labels`,
`annotations`, `startsAt`, `endsAt`. An alert is what its labels are; one whose `endsAt` has passed is resolved. So
open findings are sent again and again with an end that lies ahead, and a monitor that dies leaves alerts that end by
themselves.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.health.facts import Finding
from textnlp_fast.gpu.health.http import checked_url, request
from textnlp_fast.gpu.health.sinks.outbox import Refused

__all__ = ["AlertmanagerSink", "alert_of"]

_MOST_KNOWN: Final = 20000
_LIMIT_BYTES: Final = 1 << 16


def alert_of(
    finding: Finding, *, ends_at_s: float, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The alert as the API takes it. `labels` are added to each; ours win."""
    named = {
        **(labels or {}),
        "alertname": "GPUHealth",
        "rule": finding.rule,
        "severity": finding.severity.value,
        "action": finding.action.value,
        "machine": finding.machine,
    }
    if finding.gpu:
        named["gpu"] = finding.gpu
    return {
        "labels": named,
        "annotations": {
            "summary": finding.summary,
            "evidence": finding.evidence,
            "provenance": finding.provenance,
            "count": str(finding.count),
        },
        # A machine's clock may run ahead: an alert that ends before it begins is refused.
        "startsAt": _rfc3339(min(finding.first_at_s, ends_at_s)),
        "endsAt": _rfc3339(ends_at_s),
    }


class AlertmanagerSink:
    """Sends findings to the Alertmanager at `url` (`http://alertmanager:9093`, with its path prefix if it has one)."""

    wants_open = True

    def __init__(
        self,
        url: str,
        *,
        name: str = "alertmanager",
        labels: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        repeats_s: float = 60.0,
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        checked_url(url)
        for label in labels or {}:
            if not label.isidentifier() or not label.isascii():
                raise InvalidInputError(f"{label!r} is no name of a label")
        self.name = name
        self.timeout_s = timeout_s
        self.repeats_s: float | None = repeats_s
        self._repeats_s = repeats_s
        self._url = f"{url.rstrip('/')}/api/v2/alerts"
        self._labels = dict(labels or {})
        self._headers = dict(headers or {})
        self._clock = clock
        # What was last sent: severity and action are labels, so that a worse finding is another alert, and the old
        # one ends.
        self._known: dict[tuple[str, str | None, str], dict[str, Any]] = {}

    async def deliver(self, finding: Finding) -> None:
        now_s = self._clock()
        key = (finding.machine, finding.gpu, finding.rule)
        # Three repetitions may be lost before it ends by itself.
        ends_at_s = now_s if finding.resolved else now_s + 4 * self._repeats_s
        alert = alert_of(finding, ends_at_s=ends_at_s, labels=self._labels)
        alerts = [alert]
        before = self._known.get(key)
        if before is not None and before["labels"] != alert["labels"]:
            alerts.append({**before, "endsAt": _rfc3339(now_s)})
        body = json.dumps(alerts).encode()
        answer = await request(
            "POST",
            self._url,
            headers={"Content-Type": "application/json", **self._headers},
            body=body,
            timeout_s=self.timeout_s,
            limit_bytes=_LIMIT_BYTES,
        )
        if answer.status != 200:
            said = answer.body[:200].decode("utf-8", "replace")
            if answer.status == 400:
                raise Refused(f"Alertmanager answered 400: {said}")
            raise ConnectionError(f"Alertmanager answered {answer.status}: {said}")
        self._known.pop(key, None)
        if not finding.resolved:
            self._known[key] = alert
            if len(self._known) > _MOST_KNOWN:
                self._known.pop(next(iter(self._known)))

    async def close(self) -> None:
        """Nothing is held; what is open ends by itself unless another monitor sends it."""


def _rfc3339(at_s: float) -> str:
    at_s = min(max(at_s, 0.0), 253402300799.0)
    moment = datetime.datetime.fromtimestamp(at_s, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
