"""The fake as an HTTP server on loopback, with faults on request."""

from __future__ import annotations

import json
import secrets
import sys
import time
import uuid
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import parse_qsl

from fakes.gcs.api import Api
from fakes.gcs.state import ApiError
from fakes.gcs.wire import Answer, json_answer
from faults.matching import RequestFault
from faults.server import Exchange, FaultyServer, Request

__all__ = ["GcsFake", "GcsFault"]

Kind = Literal[
    "status",  # refused with `code` and `reason`, not done
    "status_after",  # done, and answered with `code`
    "lose_answer",  # done, and the connection is cut
    "lose_request",  # not done, and the connection is cut
    "cut_chunk",  # of a chunk for a resumable session `keep` bytes arrive, then the connection is cut
]

_RECORDED_BYTES = 1 << 16


@dataclass
class GcsFault(RequestFault):
    """A fault of the fake."""

    kind: Kind
    reason: str = "backendError"
    keep: int = 0


class GcsFake(FaultyServer[GcsFault]):
    """The server.

    ``exchanges`` records requests, without long bodies, and their answers. With ``require_tokens`` only who has a token
    of its own ``/token`` endpoint is let in.
    """

    def __init__(self, *, require_tokens: bool = False, port: int = 0) -> None:
        super().__init__(_exchange(self), port=port)
        self.api = Api()
        self.require_tokens = require_tokens
        self.tokens: set[str] = set()
        self.token_requests: list[dict[str, str]] = []
        self.exchanges: list[tuple[Request, Answer]] = []

    def make_bucket(self, *, default_kms_key: str | None = None) -> str:
        """A new, empty bucket."""
        name = f"test-{uuid.uuid4().hex[:16]}"
        resource: dict[str, Any] = {"name": name}
        if default_kms_key:
            resource["encryption"] = {"defaultKmsKeyName": default_kms_key}
        request = Request(
            "POST", "/storage/v1/b", {"project": "test"}, {}, json.dumps(resource).encode(), self.endpoint_url
        )
        assert self.api.answer(request).status == 200
        return name

    def open_uploads(self) -> int:
        """Resumable sessions that were begun and neither finished nor cancelled."""
        return self.api.uploads.open_sessions

    def answer(self, request: Request) -> Answer:
        """What the API says, errors included."""
        try:
            if request.path == "/token":
                return self._issue(request)
            sent = request.headers.get("authorization", "").removeprefix("Bearer ")
            # A session's address is a secret of its own.
            if self.require_tokens and sent not in self.tokens and "upload_id" not in request.query:
                raise ApiError(401, "authError", "Invalid Credentials")
            return self.api.answer(request)
        except ApiError as error:
            if error.status == 304:
                return Answer(304)
            if request.query.get("alt") == "media":
                message = error.body["error"]["message"]
                return Answer(error.status, {"Content-Type": "text/html; charset=UTF-8"}, message.encode())
            return json_answer(error.body, error.status)

    def record(self, request: Request, answer: Answer) -> None:
        """Remember an exchange."""
        kept = (
            replace(request, body=request.body[:_RECORDED_BYTES]),
            replace(answer, body=answer.body[:_RECORDED_BYTES]),
        )
        with self._lock:
            self.exchanges.append(kept)

    def _issue(self, request: Request) -> Answer:
        self.token_requests.append(dict(parse_qsl(request.body.decode())))
        token = secrets.token_urlsafe(16)
        self.tokens.add(token)
        return json_answer(
            {
                "access_token": token,
                "expires_in": 3600,
                "token_type": "Bearer",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            }
        )


def _exchange(fake: GcsFake) -> type[Exchange]:
    class GcsExchange(Exchange):
        wbufsize = 1 << 16

        def serve(self) -> None:
            request = self.read_request(bytes)
            fault = fake.fault_for(self.command, self.path)
            if fault is not None and fault.kind == "lose_request":
                self.cut()
                return
            if fault is not None and fault.kind == "cut_chunk":
                fake.api.uploads.keep(request, fault.keep)
                self.cut()
                return
            if fault is not None and fault.kind == "status":
                answer = json_answer(ApiError(fault.code, fault.reason, "Injected.").body, fault.code)
            else:
                answer = fake.answer(request)
            fake.record(request, answer)
            if fault is not None and fault.meanwhile is not None:
                fault.meanwhile()
            if fault is not None and fault.kind == "lose_answer":
                self.cut()
                return
            if fault is not None and fault.kind == "status_after":
                answer = json_answer(ApiError(fault.code, fault.reason, "Injected.").body, fault.code)
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status not in {204, 304}:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
            self.wfile.flush()

    return GcsExchange


def main() -> None:
    """Run it in a process of its own: ``python -m fakes.gcs.server PORT``; buckets are made by the API."""
    with GcsFake(port=int(sys.argv[1])) as fake:
        print(fake.endpoint_url, flush=True)  # noqa: T201
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
