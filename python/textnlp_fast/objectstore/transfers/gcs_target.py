"""Google Cloud Storage: resumable sessions, which another process can go on with, and ranges of one generation.

A session takes its bytes in order and says how many it has; its URL is all that is needed to go on. Google checks the
whole against the CRC-32C that the session began with.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from textnlp_fast.errors import (
    AuthenticationError,
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    StorageUnavailableError,
    UntrustedServerError,
)
from textnlp_fast.objectstore.endpoints import DISBELIEVED, check_endpoint
from textnlp_fast.objectstore.google_client import google_client
from textnlp_fast.objectstore.transfers.http_stream import HttpStreams
from textnlp_fast.objectstore.transfers.part_body import PartBody
from textnlp_fast.objectstore.transfers.protocol import (
    BackOffError,
    Part,
    SourceState,
    UploadPlan,
    state_of,
)
from textnlp_fast.objectstore.transfers.range_reading import read_range

if TYPE_CHECKING:
    from textnlp_fast.objectstore.store import OpenArguments
    from textnlp_fast.objectstore.transfers.http_stream import Answer
    from textnlp_fast.objectstore.transfers.protocol import Take
    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["GcsSource", "GcsTarget"]

_PART_BYTES: Final = 16 << 20
_QUANTUM_BYTES: Final = 256 << 10
_GONE: Final = {404, 410}


class _GoogleObject:
    """One object, Google's client for it, and the sockets for its bytes."""

    def __init__(
        self, bucket: str, key: str, opening: OpenArguments, quiet: Callable[[], StreamWatch]
    ) -> None:
        self.url = f"gs://{bucket}/{key}"
        self._google = google_client(replace(opening, retries=0))
        self._bucket = bucket
        self._key = key
        self._quiet = quiet
        self._kms_key = opening.encryption.kms_key if opening.encryption else None
        self._allow_http = opening.allow_http
        self._streams = HttpStreams()

    def close(self) -> None:
        self._streams.close()
        self._google.client.close()

    def _blob(self) -> Any:
        return self._google.client.bucket(self._bucket).blob(self._key, kms_key_name=self._kms_key)

    def _look(self) -> SourceState:
        blob = self._blob()
        with self._errors(f"look at {self.url}"):
            blob.reload(projection="noAcl", retry=None, timeout=self._google.timeout_s)
        return state_of(int(blob.size), str(blob.generation), blob.metadata or {})

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        modules = self._google.modules
        try:
            yield
        except modules.errors as error:
            message = f"cannot {doing}: {error}"
            if "bucket does not exist" in str(error):
                raise InvalidInputError(message, hint="Create the bucket, or check its name.") from error
            if isinstance(error, modules.api.NotFound):
                raise MissingObjectError(message, hint="Check the name.") from error
            if DISBELIEVED in str(error):
                raise UntrustedServerError(message) from error
            if self._google.is_transient(error):
                raise BackOffError(message) from error
            if isinstance(
                error, modules.auth_errors.GoogleAuthError | modules.api.Forbidden | modules.api.Unauthorized
            ):
                raise AuthenticationError(
                    message, hint="Log in with `gcloud auth application-default login`."
                ) from error
            raise StorageUnavailableError(message) from error


class GcsSource(_GoogleObject):
    """An object to read, by ranges of one generation."""

    def look(self) -> SourceState:
        return self._look()

    def read(
        self, state: SourceState, offset: int, length: int, buffer: memoryview, take: Take, watch: StreamWatch
    ) -> None:
        url = (
            f"{self._google.client.api_endpoint}/download/storage/v1/b/{quote(self._bucket, safe='')}"
            f"/o/{quote(self._key, safe='')}?alt=media&generation={state.identity}"
        )
        headers: dict[str, str] = {}
        with self._errors("get a token"):
            # Fetches a token where the one there is has run out.
            self._google.client._credentials.before_request(
                self._google.modules.transport.Request(), "GET", url, headers
            )
        read_range(self._streams, (url, headers), self.url, offset, length, buffer, take, watch)


class GcsTarget(_GoogleObject):
    """An object to be made by a resumable session, whose URL is the upload's id."""

    sequential = True

    def __init__(
        self, bucket: str, key: str, opening: OpenArguments, quiet: Callable[[], StreamWatch]
    ) -> None:
        super().__init__(bucket, key, opening, quiet)
        self._committed: int | None = None
        """How many bytes the session has; ``None`` where it has to be asked."""

    def part_bytes(self, size: int, wanted: int | None) -> int:
        wanted = wanted or _PART_BYTES
        return max(_QUANTUM_BYTES, wanted - wanted % _QUANTUM_BYTES)

    def needs_crc32c(self) -> bool:
        return True

    def put_whole(self, plan: UploadPlan, body: PartBody, watch: StreamWatch) -> SourceState:
        blob = self._described(plan)
        with self._errors(f"write {self.url}"):
            blob.upload_from_string(
                body.read(), content_type=plan.content_type, retry=None, timeout=self._google.timeout_s
            )
        watch.passed(len(body))
        return SourceState(plan.size, str(blob.generation), plan.digest)

    def begin(self, plan: UploadPlan) -> str:
        with self._errors(f"begin an upload to {self.url}"):
            session = self._described(plan).create_resumable_upload_session(
                content_type=plan.content_type,
                size=plan.size,
                timeout=self._google.timeout_s,
                checksum=None,  # it is in the description, whole
                retry=None,
            )
        parts = urlsplit(str(session))  # which the answer chose
        check_endpoint(f"{parts.scheme}://{parts.netloc}", allow_http=self._allow_http)
        self._committed = 0
        return str(session)

    def present(
        self, upload_id: str, plan: UploadPlan, body_of: Callable[[Part], PartBody]
    ) -> Mapping[int, int] | None:
        committed = self._ask(upload_id, plan)
        if committed is None:
            return None
        self._committed = committed
        there: dict[int, int] = {}
        for part in plan.parts:
            have = min(part.length, max(0, committed - part.offset))
            if have:
                there[part.number] = have
        return there

    def put(self, upload_id: str, plan: UploadPlan, part: Part, body: PartBody, watch: StreamWatch) -> None:
        if self._committed is None:
            self._committed = self._ask(upload_id, plan)
            if self._committed is None:
                raise CorruptDataError(
                    f"the session of {self.url} is gone", hint="Run the transfer again: it begins anew."
                )
        committed, self._committed = self._committed, None
        end = part.offset + part.length
        if committed >= end:
            self._committed = committed
            return
        if committed < part.offset:
            raise CorruptDataError(f"the session of {self.url} lost bytes", hint="Run the transfer again.")
        headers = {
            "Content-Length": str(end - committed),
            "Content-Range": f"bytes {committed}-{end - 1}/{plan.size}",
        }
        answer = self._streams.request(
            "PUT", upload_id, headers, body=body, body_from=committed - part.offset, watch=watch
        )
        have = self._progress(answer, plan)
        if have is None or have < end:
            self._committed = have
            raise StorageUnavailableError(f"{self.url} took {have} bytes, not {end}")
        self._committed = have

    def complete(self, upload_id: str, plan: UploadPlan) -> SourceState:
        if self._ask(upload_id, plan) != plan.size:
            raise CorruptDataError(f"the session of {self.url} is not complete", hint="Run it again.")
        made = self._look()
        if (made.size, made.digest) != (plan.size, plan.digest):
            raise StorageUnavailableError(f"{self.url} is not what was sent: another writer replaced it")
        return made

    def abort(self, upload_id: str) -> None:
        answer = self._streams.request("DELETE", upload_id, {"Content-Length": "0"}, watch=self._quiet())
        if answer.status not in {200, 204, 499, *_GONE}:
            answer.raise_for(f"cannot cancel the upload to {self.url}")

    def _described(self, plan: UploadPlan) -> Any:
        blob = self._blob()
        blob.metadata = plan.metadata
        if plan.crc32c is not None:
            blob.crc32c = base64.b64encode(plan.crc32c.to_bytes(4, "big")).decode()
        return blob

    def _ask(self, upload_id: str, plan: UploadPlan) -> int | None:
        """How many bytes the session has; ``None`` if it is gone."""
        headers = {"Content-Length": "0", "Content-Range": f"bytes */{plan.size}"}
        answer = self._streams.request("PUT", upload_id, headers, watch=self._quiet())
        return self._progress(answer, plan)

    def _progress(self, answer: Answer, plan: UploadPlan) -> int | None:
        if answer.status in {200, 201}:
            made = json.loads(answer.body or b"{}")
            if int(made.get("size", plan.size)) != plan.size:
                raise CorruptDataError(f"{self.url} was made with {made['size']} bytes, not {plan.size}")
            return plan.size
        if answer.status in _GONE:
            return None
        if answer.status != 308:
            answer.raise_for(f"cannot go on with the upload to {self.url}")
        found = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("range", ""))
        return int(found[1]) + 1 if found else 0
