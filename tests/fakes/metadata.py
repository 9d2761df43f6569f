"""The metadata services of the clouds, as their documents describe them; what they tell is for tests to set.

AWS: tokens by PUT with a life in seconds, 401 without one, 404 where nothing is planned. Google: `Metadata-Flavor:
Google` both ways or 403, ETags, `wait_for_change` with `last_etag` and `timeout_sec`. Azure: `Metadata: true` or 400,
an `api-version`, events with an incarnation that grows, approval by POST.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fakes.loopback_http import Asked, LoopbackServer, Said


class AwsMetadata:
    """`documents`: path below /latest/meta-data/ -> what is there."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.tokens: set[str] = set()
        self.server = LoopbackServer(self._answer)
        self.url = self.server.url

    def forget_tokens(self) -> None:
        """As when the instance was stopped and started."""
        self.tokens.clear()

    def _answer(self, asked: Asked) -> Said:
        if asked.path == "/latest/api/token":
            life = asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            if asked.method != "PUT" or not life.isdecimal() or not 1 <= int(life) <= 21600:
                return Said(400)
            token = secrets.token_hex(20)
            self.tokens.add(token)
            return Said(200, token.encode(), {"X-aws-ec2-metadata-token-ttl-seconds": life})
        if asked.headers.get("x-aws-ec2-metadata-token") not in self.tokens:
            return Said(401)
        prefix = "/latest/meta-data/"
        document = self.documents.get(asked.path.removeprefix(prefix))
        if not asked.path.startswith(prefix) or document is None:
            return Said(404)
        return Said(200, json.dumps(document).encode())


@dataclass
class GcpMetadata:
    """`values`: key below instance/ -> its text. Setting one by `set` wakes whoever waits for it."""

    values: dict[str, str] = field(
        default_factory=lambda: {"preempted": "FALSE", "maintenance-event": "NONE"}
    )
    etags: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self.server = LoopbackServer(self._answer)
        self.url = self.server.url

    def set(self, key: str, value: str) -> None:
        with self._changed:
            self.values[key] = value
            self.etags[key] = self.etags.get(key, 0) + 1
            self._changed.notify_all()

    def _etag(self, key: str) -> str:
        return f"{self.etags.get(key, 0):016x}"

    def _answer(self, asked: Asked) -> Said:
        google = {"Metadata-Flavor": "Google"}
        if asked.headers.get("metadata-flavor") != "Google":
            return Said(403, b"", google)
        parts = urlsplit(asked.path)
        key = parts.path.removeprefix("/computeMetadata/v1/instance/")
        if key not in self.values:
            return Said(404, b"", google)
        query = parse_qs(parts.query)
        with self._changed:
            if query.get("wait_for_change") == ["true"]:
                end = time.monotonic() + float(query.get("timeout_sec", ["60"])[0])
                last = query.get("last_etag", [self._etag(key)])[0]
                while self._etag(key) == last and time.monotonic() < end:
                    self._changed.wait(max(0.0, end - time.monotonic()))
            return Said(200, self.values[key].encode(), {**google, "ETag": self._etag(key)})


@dataclass
class AzureMetadata:
    """`events`: what is scheduled, as Azure lists it. `approved`: ids that were posted."""

    events: list[dict[str, Any]] = field(default_factory=list)
    approved: list[str] = field(default_factory=list)
    incarnation: int = 1

    def __post_init__(self) -> None:
        self.server = LoopbackServer(self._answer)
        self.url = self.server.url

    def _answer(self, asked: Asked) -> Said:
        parts = urlsplit(asked.path)
        if asked.headers.get("metadata") != "true":
            return Said(400, b'{"error":"Bad request. Required metadata header not specified"}')
        if parts.path != "/metadata/scheduledevents" or parse_qs(parts.query).get("api-version") != [
            "2020-07-01"
        ]:
            return Said(400, b'{"error":"Bad request. api-version is invalid or was not specified"}')
        if asked.method == "POST":
            for one in json.loads(asked.body)["StartRequests"]:
                if one["EventId"] not in {event["EventId"] for event in self.events}:
                    return Said(400)
                self.approved.append(one["EventId"])
            return Said(200)
        return Said(
            200, json.dumps({"DocumentIncarnation": self.incarnation, "Events": self.events}).encode()
        )
