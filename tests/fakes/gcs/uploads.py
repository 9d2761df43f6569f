"""Uploads of the fake: media, multipart, and resumable sessions that outlive connections."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fakes.gcs.state import ApiError, State, Stored, check_preconditions, object_resource
from fakes.gcs.wire import Answer, content_range, json_answer, parse_json, split_related
from faults.server import Request

__all__ = ["Session", "Uploads"]

QUANTUM = 256 << 10
"""Every chunk but the last is a multiple of this; what else came is not kept."""


@dataclass
class Session:
    """A resumable upload that has begun."""

    bucket: str
    name: str
    resource: dict[str, Any]
    query: dict[str, str]
    total: int | None
    data: bytearray = field(default_factory=bytearray)
    stored: Stored | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class Uploads:
    """The upload endpoints; ``sessions`` are those that nobody finished or cancelled, and the finished ones."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.sessions: dict[str, Session] = {}

    @property
    def open_sessions(self) -> int:
        """How many were begun and neither finished nor cancelled."""
        return sum(session.stored is None for session in self.sessions.values())

    def insert(self, request: Request, bucket: str) -> Answer:
        """``storage.objects.insert`` in any of its protocols, up to the answer or to the session's address."""
        kind = request.query.get("uploadType", "")
        if kind == "media":
            resource: dict[str, Any] = {"contentType": request.headers.get("content-type")}
            data = request.body
        elif kind == "multipart":
            resource, content_type, data = split_related(request)
            resource.setdefault("contentType", content_type)
        elif kind == "resumable":
            return self._begin(request, bucket)
        else:
            raise ApiError(400, "invalid", f"Invalid upload type: {kind!r}")
        name = request.query.get("name") or resource.get("name")
        if not name:
            raise ApiError(400, "required", "Required object name")
        stored = self._state.store(bucket, name, data, resource, request.query)
        return json_answer(object_resource(bucket, stored, request.base))

    def _begin(self, request: Request, bucket: str) -> Answer:
        resource = parse_json(request.body)
        name = request.query.get("name") or resource.get("name")
        if not name:
            raise ApiError(400, "required", "Required object name")
        with self._state.lock:
            check_preconditions(self._state.bucket(bucket).objects.get(name), request.query, reading=False)
            resource.setdefault(
                "contentType", request.headers.get("x-upload-content-type", "application/octet-stream")
            )
            length = request.headers.get("x-upload-content-length")
            upload_id = secrets.token_urlsafe(24)
            self.sessions[upload_id] = Session(
                bucket, name, resource, dict(request.query), int(length) if length else None
            )
        location = (
            f"{request.base}/upload/storage/v1/b/{quote(bucket)}/o?uploadType=resumable&upload_id={upload_id}"
        )
        return Answer(200, {"Location": location, "X-GUploader-UploadID": upload_id})

    def proceed(self, request: Request) -> Answer:
        """A chunk for a session, or the question how far it is."""
        session = self._session(request)
        with session.lock:
            if session.stored is not None:
                return json_answer(object_resource(session.bucket, session.stored, request.base))
            header = request.headers.get("content-range")
            first: int | None
            if header is None:
                first, total = 0, len(request.body)  # all of it at once
            else:
                first, last, total = content_range(header)
                if first is not None and last is not None and last - first + 1 != len(request.body):
                    raise ApiError(400, "badRequest", "Content-Range and Content-Length differ.")
            if total is not None:
                if session.total not in {None, total}:
                    raise ApiError(400, "badRequest", "The total size differs from the one given before.")
                session.total = total
            if first is not None:
                self._append(session, first, request.body, final=total == first + len(request.body))
            if session.total is not None and len(session.data) == session.total:
                return self._finish(request, session)
            headers = {"X-Range-MD5": ""}
            if session.data:
                headers["Range"] = f"bytes=0-{len(session.data) - 1}"
            return Answer(308, headers)

    def keep(self, request: Request, size: int) -> None:
        """As if the connection broke after ``size`` bytes of this chunk: whole quanta of them stay."""
        session = self._session(request)
        with session.lock:
            first, _, _ = content_range(request.headers.get("content-range", "bytes 0-0/*"))
            if first is not None and session.stored is None:
                self._append(session, first, request.body[: size - size % QUANTUM], final=True)

    def _append(self, session: Session, first: int, body: bytes, *, final: bool) -> None:
        if first > len(session.data):
            raise ApiError(400, "badRequest", f"Bytes from {len(session.data)} are missing.")
        if not final and len(body) % QUANTUM:
            raise ApiError(
                400, "badRequest", f"A chunk that is not the last is a multiple of {QUANTUM} bytes."
            )
        known = len(session.data) - first
        session.data += memoryview(body)[known:]  # what is there already is not taken again

    def _finish(self, request: Request, session: Session) -> Answer:
        resource = dict(session.resource)
        for digest in request.headers.get("x-goog-hash", "").split(","):
            name, _, value = digest.strip().partition("=")
            if name in {"crc32c", "md5"}:
                resource["crc32c" if name == "crc32c" else "md5Hash"] = value
        stored = self._state.store(session.bucket, session.name, bytes(session.data), resource, session.query)
        session.stored = stored
        session.data.clear()
        return json_answer(object_resource(session.bucket, stored, request.base))

    def cancel(self, request: Request) -> Answer:
        self._session(request)
        del self.sessions[request.query["upload_id"]]
        return Answer(499)

    def _session(self, request: Request) -> Session:
        session = self.sessions.get(request.query.get("upload_id", ""))
        if session is None:
            raise ApiError(404, "notFound", "No such upload session.")
        return session
