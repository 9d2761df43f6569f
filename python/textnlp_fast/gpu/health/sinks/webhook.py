"""Findings as signed messages to a webhook, in the same envelope as the registry's."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from typing import Any, Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.health.facts import Finding
from textnlp_fast.gpu.health.http import checked_url, request
from textnlp_fast.gpu.health.sinks.outbox import Refused
from textnlp_fast.objectstore.endpoints import is_loopback
from textnlp_fast.signed_messages import SIGNATURE_HEADER, sign

__all__ = ["WebhookSink", "message_of"]

_LIMIT_BYTES: Final = 1 << 16
_AGAIN: Final = frozenset({408, 425, 429})


def message_of(finding: Finding) -> tuple[str, str, bytes]:
    """Id, action and body of the message. The id is of the content: a message that comes twice has it twice."""
    action = "finding.resolved" if finding.resolved else "finding.open"
    document: dict[str, Any] = {"action": action, "finding": asdict(finding)}
    plain = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    identity = hashlib.sha256(plain).hexdigest()[:32]
    return identity, action, json.dumps({"id": identity, **document}, separators=(",", ":")).encode()


class WebhookSink:
    """POSTs each finding to `url`, signed with the key that the environment variable `secret_env` holds."""

    repeats_s: float | None = None
    wants_open = False

    def __init__(
        self,
        url: str,
        *,
        secret_env: str,
        name: str = "webhook",
        timeout_s: float = 10.0,
        allow_http: bool = False,
    ) -> None:
        parts = checked_url(url)
        if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname or ""):
            raise InvalidInputError(
                f"{url!r} would send findings in clear", hint="Use https://, or pass allow_http=True."
            )
        if not os.environ.get(secret_env):
            raise InvalidInputError(
                f"the environment has no {secret_env} to sign with",
                hint="Set it to 32 random bytes, as hex or base64.",
            )
        self.name = name
        self.timeout_s = timeout_s
        self._url = url
        self._secret_env = secret_env

    async def deliver(self, finding: Finding) -> None:
        identity, action, body = message_of(finding)
        headers = {
            "Content-Type": "application/json",
            "Textnlp-Fast-Event": action,
            "Textnlp-Fast-Delivery": identity,
            SIGNATURE_HEADER: sign(body, os.environ.get(self._secret_env, "")),
        }
        answer = await request(
            "POST", self._url, headers=headers, body=body, timeout_s=self.timeout_s, limit_bytes=_LIMIT_BYTES
        )
        if 200 <= answer.status < 300:
            return
        if answer.status < 500 and answer.status not in _AGAIN:
            raise Refused(f"{self._url} answered {answer.status}")
        raise ConnectionError(f"{self._url} answered {answer.status}")

    async def close(self) -> None:
        """Nothing is held."""
