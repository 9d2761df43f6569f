"""Multipart uploads to S3, which another process can go on with: boto3 signs and understands, our sockets send."""

from __future__ import annotations

import base64
import importlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from textnlp_fast.errors import (
    AuthenticationError,
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    MissingPackageError,
    StorageUnavailableError,
    TextnlpFastError,
    UntrustedServerError,
)
from textnlp_fast.objectstore.endpoints import DISBELIEVED, authorities, check_endpoint
from textnlp_fast.objectstore.s3 import ENDPOINT_VARIABLES
from textnlp_fast.objectstore.transfers.http_stream import HttpStreams, goes_through_proxy
from textnlp_fast.objectstore.transfers.part_body import PartBody
from textnlp_fast.objectstore.transfers.protocol import (
    DIGEST_KEY,
    BackOffError,
    Part,
    SourceState,
    UploadPlan,
)

if TYPE_CHECKING:
    from textnlp_fast.objectstore.encryption import ServerSideEncryption
    from textnlp_fast.objectstore.store import OpenArguments
    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["S3Target", "s3_client", "s3_errors"]

_PART_BYTES: Final = 16 << 20
_LEAST_PART_BYTES: Final = 5 << 20
_MOST_PARTS: Final = 10_000
_CONNECT_TIMEOUT_S: Final = 10.0
_LOST: Final = {"NoSuchUpload", "404"}
_PATIENCE: Final = {
    "SlowDown",
    "RequestTimeout",
    "Throttling",
    "ServiceUnavailable",
    "InternalError",
    "503",
    "429",
}
_BAD_BYTES: Final = {"BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest"}
_REFUSED: Final = {
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "403",
    "401",
}


def s3_client(opening: OpenArguments) -> Any:
    """boto3's client with its default chain of credentials, one try a call.

    Raises ``MissingPackageError`` without boto3, ``AuthenticationError`` where no credentials are found.
    """
    try:
        boto3 = cast("Any", importlib.import_module("boto3"))
        config = cast("Any", importlib.import_module("botocore.config"))
    except ImportError as error:
        raise MissingPackageError(
            "uploads to S3 that can be resumed need boto3", hint="Run: pip install 'textnlp-fast[aws]'"
        ) from error
    endpoint = opening.endpoint_url or next(filter(None, map(os.environ.get, ENDPOINT_VARIABLES)), None)
    if endpoint:
        check_endpoint(endpoint, allow_http=opening.allow_http)
    with s3_errors("set up a client for S3"):
        return boto3.client(
            "s3",
            region_name=opening.region,
            endpoint_url=endpoint,
            verify=authorities("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
            config=config.Config(
                connect_timeout=min(opening.timeout_s, _CONNECT_TIMEOUT_S),
                read_timeout=opening.timeout_s,
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=64,
                # Each part carries its own CRC, over TLS or within the machine: signing its SHA-256 as well would
                # cost more than all the rest.
                s3={"payload_signing_enabled": False},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


@contextmanager
def s3_errors(doing: str) -> Iterator[None]:
    """Turns what boto3 says into what the caller can do."""
    errors = cast("Any", importlib.import_module("botocore.exceptions"))
    try:
        yield
    except errors.ClientError as error:
        raise _meaning(error.response, f"cannot {doing}: {error}") from error
    except (errors.NoCredentialsError, errors.PartialCredentialsError, errors.ProfileNotFound) as error:
        raise AuthenticationError(f"cannot {doing}: {error}") from error
    except (errors.ConnectTimeoutError, errors.ReadTimeoutError) as error:
        raise BackOffError(f"cannot {doing}: {error}") from error
    except (errors.HTTPClientError, errors.ConnectionError) as error:
        kind = UntrustedServerError if DISBELIEVED in str(error) else StorageUnavailableError
        raise kind(f"cannot {doing}: {error}") from error
    except errors.BotoCoreError as error:
        raise InvalidInputError(f"cannot {doing}: {error}") from error


def _meaning(response: Mapping[str, Any], message: str) -> TextnlpFastError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return InvalidInputError(message, hint="Create the bucket, or check its name, region and endpoint.")
    if code in _LOST or status == 404:
        return MissingObjectError(message)
    if code in _BAD_BYTES:
        return StorageUnavailableError(message)  # harmed on the way: it may be sent again
    if code in _REFUSED or status in {401, 403}:
        return AuthenticationError(message)
    if code in _PATIENCE or status in {408, 429, 503}:
        return BackOffError(message)
    if status >= 500 or not status:
        return StorageUnavailableError(message)
    return InvalidInputError(message)


class S3Target:
    """The object ``key`` of a bucket, to be made of parts.

    Each part is sent with its CRC-32, which S3 checks and keeps: what ListParts says of a part is compared with the
    file's own CRC (or MD5, where the server keeps no CRC) before the part is believed to be there. A server that has
    not shown that it keeps CRCs, as older gateways of Ceph do not, gets the MD5 as well, which all of them check.
    """

    sequential = False

    def __init__(self, bucket: str, key: str, opening: OpenArguments) -> None:
        self.url = f"s3://{bucket}/{key}"
        self._place = {"Bucket": bucket, "Key": key}
        self._encryption = _encryption(opening.encryption)
        self._client = s3_client(opening)
        self._streams = HttpStreams()
        self._watching: dict[int, StreamWatch] = {}
        self._lock = threading.Lock()
        self._keeps_crcs = False
        if not goes_through_proxy(self._client.meta.endpoint_url):
            for operation in ("UploadPart", "PutObject"):
                self._client.meta.events.register(f"before-send.s3.{operation}", self._send)

    def part_bytes(self, size: int, wanted: int | None) -> int:
        return max(wanted or _PART_BYTES, _LEAST_PART_BYTES, -(-size // _MOST_PARTS))

    def needs_crc32c(self) -> bool:
        return False

    def put_whole(self, plan: UploadPlan, body: PartBody, watch: StreamWatch) -> SourceState:
        with self._watched(body, watch) as sent, s3_errors(f"write {self.url}"):
            answer = self._client.put_object(
                **self._place,
                Body=sent,
                ContentLength=len(body),
                ContentType=plan.content_type,
                ChecksumCRC32=_crc_text(plan.crc32[0] if plan.crc32 else 0),
                ContentMD5=_md5_text(body),
                Metadata=plan.metadata,
                **self._encryption,
            )
        return SourceState(plan.size, answer["ETag"], plan.digest)

    def begin(self, plan: UploadPlan) -> str:
        with s3_errors(f"begin an upload to {self.url}"):
            answer = self._client.create_multipart_upload(
                **self._place,
                ChecksumAlgorithm="CRC32",
                ContentType=plan.content_type,
                Metadata=plan.metadata,
                **self._encryption,
            )
        self._keeps_crcs = answer.get("ChecksumAlgorithm") == "CRC32"
        return str(answer["UploadId"])

    def present(
        self, upload_id: str, plan: UploadPlan, body_of: Callable[[Part], PartBody]
    ) -> Mapping[int, int] | None:
        try:
            rows = self._rows(upload_id)
        except MissingObjectError:
            # Completed already, and the answer was lost?
            return {part.number: part.length for part in plan.parts} if self._made(plan) else None
        parts = plan.parts
        there: dict[int, int] = {}
        for number, row in rows.items():
            if number >= len(parts) or row["Size"] != parts[number].length:
                continue
            crc = row.get("ChecksumCRC32")
            if crc is not None:
                self._keeps_crcs = True
                right = crc == _crc_text(plan.crc32[number])
            else:
                right = row["ETag"].strip('"') == body_of(parts[number]).md5().hex()
            if right:
                there[number] = parts[number].length
        return there

    def put(self, upload_id: str, plan: UploadPlan, part: Part, body: PartBody, watch: StreamWatch) -> None:
        with self._watched(body, watch) as sent, s3_errors(f"send part {part.number + 1} to {self.url}"):
            self._client.upload_part(
                **self._place,
                UploadId=upload_id,
                PartNumber=part.number + 1,
                Body=sent,
                ContentLength=len(body),
                ChecksumCRC32=_crc_text(plan.crc32[part.number]),
                **({} if self._keeps_crcs else {"ContentMD5": _md5_text(body)}),
            )

    def complete(self, upload_id: str, plan: UploadPlan) -> SourceState:
        try:
            rows = self._rows(upload_id)
            if len(rows) != len(plan.crc32):
                raise CorruptDataError(
                    f"{self.url}: the provider has {len(rows)} parts of {len(plan.crc32)}",
                    hint="Run the transfer again: missing parts are sent.",
                )
            parts = [
                {"PartNumber": number + 1, "ETag": row["ETag"]}
                | ({"ChecksumCRC32": row["ChecksumCRC32"]} if "ChecksumCRC32" in row else {})
                for number, row in sorted(rows.items())
            ]
            with s3_errors(f"complete the upload to {self.url}"):
                self._client.complete_multipart_upload(
                    **self._place, UploadId=upload_id, MultipartUpload={"Parts": parts}
                )
        except MissingObjectError:
            pass  # an answer that was lost: it may have been made already
        made = self._made(plan)
        if made is None:
            raise StorageUnavailableError(f"{self.url} is not what was sent: another writer replaced it")
        return made

    def abort(self, upload_id: str) -> None:
        try:
            with s3_errors(f"abort the upload to {self.url}"):
                self._client.abort_multipart_upload(**self._place, UploadId=upload_id)
        except MissingObjectError:
            return

    def close(self) -> None:
        self._streams.close()
        self._client.close()

    def _rows(self, upload_id: str) -> dict[int, Any]:
        """What the provider says of its parts, by number from 0."""
        with s3_errors(f"list the parts of the upload to {self.url}"):
            pages = self._client.get_paginator("list_parts").paginate(**self._place, UploadId=upload_id)
            return {row["PartNumber"] - 1: row for page in pages for row in page.get("Parts", [])}

    def _made(self, plan: UploadPlan) -> SourceState | None:
        """The object, if it is the one of the plan."""
        try:
            with s3_errors(f"look at {self.url}"):
                head = self._client.head_object(**self._place)
        except MissingObjectError:
            return None
        digest = head["Metadata"].get(DIGEST_KEY)
        if head["ContentLength"] != plan.size or digest != plan.digest:
            return None
        return SourceState(plan.size, head["ETag"], digest)

    @contextmanager
    def _watched(self, body: PartBody, watch: StreamWatch) -> Iterator[_Readable]:
        """What boto3 is given to send, and what watches over it being sent."""
        sent = _Readable(body)
        with self._lock:
            self._watching[id(sent)] = watch
        try:
            yield sent
        finally:
            with self._lock:
                del self._watching[id(sent)]

    def _send(self, request: Any, **_: Any) -> Any:
        """Takes the place of boto3's own sending, signed request in hand."""
        sent = request.body
        if not isinstance(sent, _Readable):
            return None
        watch = self._watching[id(sent)]
        headers = {
            str(name): value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
            if name.lower() not in {"expect", "transfer-encoding", "content-length"}
        }
        headers["Content-Length"] = str(len(sent))
        answer = self._streams.request(request.method, request.url, headers, body=sent.body, watch=watch)
        awsrequest = cast("Any", importlib.import_module("botocore.awsrequest"))
        return awsrequest.AWSResponse(request.url, answer.status, dict(answer.headers), _Raw(answer.body))


class _Readable:
    """A part as boto3 takes one: something to read from. It reads only where a proxy makes it send by itself."""

    def __init__(self, body: PartBody) -> None:
        self.body = body
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        left = len(self.body) - self._place
        data = bytearray(left if size is None or size < 0 else min(left, size))
        self.body.read_into(self._place, memoryview(data))
        self._place += len(data)
        return bytes(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, len(self.body))[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def __len__(self) -> int:
        return len(self.body)


class _Raw:
    """An answer's body as botocore reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body


def _encryption(wanted: ServerSideEncryption | None) -> dict[str, Any]:
    if wanted is None:
        return {}
    if wanted.kms_key is None:
        return {"ServerSideEncryption": "AES256"}
    fields: dict[str, Any] = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": wanted.kms_key}
    return fields | ({"BucketKeyEnabled": True} if wanted.bucket_key else {})


def _crc_text(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def _md5_text(body: PartBody) -> str:
    return base64.b64encode(body.md5()).decode()
