"""On an EC2 instance itself: interruptions of spot, rebalance recommendations, planned events. IMDSv2 only.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html,
.../rebalance-recommendations.html and .../viewing_scheduled_events.html: 404 where there is nothing to tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from textnlp_fast.errors import AuthenticationError, ProviderUnavailableError
from textnlp_fast.gpu.health.engine import Fact
from textnlp_fast.gpu.health.facts import Event
from textnlp_fast.gpu.health.http import Answer, request

__all__ = ["AwsMetadataSource"]

ENDPOINT: Final = "http://169.254.169.254"
_TOKEN_S: Final = 21600
_LIMIT_BYTES: Final = 1 << 18


class AwsMetadataSource:
    """Asks the instance's metadata service.

    Notices of spot come two minutes ahead: AWS says to look every five seconds.
    """

    reads_gpus = False

    def __init__(
        self,
        machine: str,
        *,
        endpoint: str = ENDPOINT,
        interval_s: float = 5.0,
        timeout_s: float = 4.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"aws metadata {endpoint}"
        self.machines: tuple[str, ...] = (machine,)
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self._endpoint = endpoint.rstrip("/")
        self._clock = clock
        self._token = ""
        self._token_until_s = 0.0
        self._planned: set[str] = set()

    async def read(self) -> Sequence[Fact]:
        at_s = self._clock()
        facts: list[Fact] = []
        action = await self._get("/latest/meta-data/spot/instance-action")
        if action is not None:
            facts.append(
                self._event(
                    "spot-interruption", at_s, f"{_text(action, 'action')} at {_text(action, 'time')}"
                )
            )
        notice = await self._get("/latest/meta-data/events/recommendations/rebalance")
        if notice is not None:
            facts.append(self._event("rebalance", at_s, f"recommended at {_text(notice, 'noticeTime')}"))
        planned = await self._get("/latest/meta-data/events/maintenance/scheduled")
        facts += self._maintenance(planned, at_s)
        return facts

    async def close(self) -> None:
        """Nothing is held."""

    def _maintenance(self, planned: Any, at_s: float) -> list[Event]:
        events = []
        now: set[str] = set()
        for one in planned if isinstance(planned, list) else []:
            if not isinstance(one, dict) or one.get("State") not in (None, "active"):
                continue
            identity = _text(one, "EventId") or _text(one, "Code")
            now.add(identity)
            text = f"{_text(one, 'Code')}, not before {_text(one, 'NotBefore')}: {_text(one, 'Description')}"
            events.append(self._event("maintenance", at_s, text, id=identity))
        events += [self._event("maintenance", at_s, "", id=gone, over="true") for gone in self._planned - now]
        self._planned = now
        return events

    def _event(self, kind: str, at_s: float, text: str, **details: str) -> Event:
        return Event(machine=self.machines[0], kind=kind, at_s=at_s, text=text, source="aws", details=details)

    async def _get(self, path: str) -> Any:
        """The document at a path; None where there is none."""
        answer = await self._once(path)
        if answer.status == 401:  # the token ended early: the instance was stopped and started
            self._token = ""
            answer = await self._once(path)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise ProviderUnavailableError(f"the metadata service answered {answer.status} for {path}")
        return answer.json()

    async def _once(self, path: str) -> Answer:
        if not self._token or time.monotonic() >= self._token_until_s:
            answer = await request(
                "PUT",
                f"{self._endpoint}/latest/api/token",
                headers={"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)},
                timeout_s=self.timeout_s,
                limit_bytes=_LIMIT_BYTES,
            )
            if answer.status != 200:
                raise AuthenticationError(
                    f"the metadata service gave no token: {answer.status}",
                    hint="Is this an EC2 instance, with metadata allowed? In a container raise its hop limit to 2.",
                )
            self._token = answer.body.decode("ascii", "replace").strip()
            self._token_until_s = time.monotonic() + _TOKEN_S / 2
        return await request(
            "GET",
            f"{self._endpoint}{path}",
            headers={"X-aws-ec2-metadata-token": self._token},
            timeout_s=self.timeout_s,
            limit_bytes=_LIMIT_BYTES,
        )


def _text(document: Any, name: str) -> str:
    value = document.get(name) if isinstance(document, dict) else None
    return str(value)[:200] if value is not None else ""
