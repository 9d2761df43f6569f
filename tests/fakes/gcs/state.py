"""Buckets and objects of the fake, and the preconditions on them."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

import google_crc32c

__all__ = [
    "ApiError",
    "Bucket",
    "State",
    "Stored",
    "bucket_resource",
    "check_preconditions",
    "object_resource",
]

# Of an object's resource, what a writer may set.
WRITABLE = (
    *(
        "cacheControl",
        "contentDisposition",
        "contentEncoding",
        "contentLanguage",
        "contentType",
        "customTime",
    ),
    *("metadata", "storageClass"),
)


class ApiError(Exception):
    """An answer that is an error, as the JSON API words it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "error": {
                "code": status,
                "message": message,
                "errors": [{"message": message, "domain": "global", "reason": reason}],
            }
        }


@dataclass
class Stored:
    """One generation of an object."""

    name: str
    data: bytes
    generation: int
    fields: dict[str, Any]
    kms_key: str | None
    components: int | None = None
    metageneration: int = 1
    created: str = ""
    updated: str = ""

    def __post_init__(self) -> None:
        self.created = self.updated = now()
        self.crc32c = crc32c(self.data)
        # A composed object has no MD5.
        self.md5 = None if self.components else base64.b64encode(hashlib.md5(self.data).digest()).decode()

    @property
    def etag(self) -> str:
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()


@dataclass
class Bucket:
    """A bucket; only its last generations of objects are kept."""

    name: str
    created: str
    default_kms_key: str | None = None
    objects: dict[str, Stored] = field(default_factory=dict)


class State:
    """All buckets. ``lock`` is held for each request's decision, never while bodies move."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.buckets: dict[str, Bucket] = {}
        self._generation = 0

    def next_generation(self) -> int:
        """Microseconds, as the real ones are, and never twice the same."""
        self._generation = max(self._generation + 1, time.time_ns() // 1000)
        return self._generation

    def bucket(self, name: str) -> Bucket:
        try:
            return self.buckets[name]
        except KeyError:
            raise ApiError(404, "notFound", "The specified bucket does not exist.") from None

    def find(self, bucket: str, name: str, query: Mapping[str, str]) -> Stored:
        """The object, of the generation that the query names if it names one."""
        stored = self.bucket(bucket).objects.get(name)
        if stored is None or int(query.get("generation", stored.generation)) != stored.generation:
            raise ApiError(404, "notFound", f"No such object: {bucket}/{name}")
        return stored

    def store(
        self,
        bucket: str,
        name: str,
        data: bytes,
        resource: Mapping[str, Any],
        query: Mapping[str, str],
        components: int | None = None,
    ) -> Stored:
        """Write an object if the preconditions hold and the digests it came with are right."""
        with self.lock:
            place = self.bucket(bucket)
            check_preconditions(place.objects.get(name), query, reading=False)
            check_digests(data, resource)
            stored = Stored(
                name,
                data,
                self.next_generation(),
                {key: value for key, value in resource.items() if key in WRITABLE},
                query.get("kmsKeyName") or resource.get("kmsKeyName") or place.default_kms_key,
                components,
            )
            place.objects[name] = stored
            return stored


def check_digests(data: bytes, resource: Mapping[str, Any]) -> None:
    """Refuse data that differs from the digests in its own description."""
    for key, actual in (
        ("crc32c", crc32c(data)),
        ("md5Hash", base64.b64encode(hashlib.md5(data).digest()).decode()),
    ):
        claimed = resource.get(key)
        if claimed is not None and claimed != actual:
            raise ApiError(
                400, "invalid", f'Provided {key} "{claimed}" doesn\'t match calculated {key} "{actual}".'
            )


def check_preconditions(stored: Stored | None, query: Mapping[str, str], *, reading: bool) -> None:
    """Raise 412, or 304 for a read, where a precondition does not hold; an absent object has generation 0."""
    generation = stored.generation if stored else 0
    metageneration = stored.metageneration if stored else 0
    for name, actual in (("Generation", generation), ("Metageneration", metageneration)):
        wanted = query.get(f"if{name}Match")
        if wanted is not None and _number(wanted) != actual:
            raise ApiError(
                412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."
            )
        unwanted = query.get(f"if{name}NotMatch")
        if unwanted is not None and _number(unwanted) == actual:
            status = 304 if reading else 412
            raise ApiError(
                status, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."
            )


def object_resource(bucket: str, stored: Stored, base: str) -> dict[str, Any]:
    """What the API says of an object."""
    path = f"{base}/storage/v1/b/{bucket}/o/{quote(stored.name, safe='')}"
    resource = {
        "kind": "storage#object",
        "id": f"{bucket}/{stored.name}/{stored.generation}",
        "selfLink": path,
        "mediaLink": f"{path.replace('/storage/v1', '/download/storage/v1')}?generation={stored.generation}&alt=media",
        "name": stored.name,
        "bucket": bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        "storageClass": "STANDARD",
        "size": str(len(stored.data)),
        "crc32c": stored.crc32c,
        "etag": stored.etag,
        "timeCreated": stored.created,
        "updated": stored.updated,
        **stored.fields,
    }
    if stored.md5:
        resource["md5Hash"] = stored.md5
    if stored.components:
        resource["componentCount"] = stored.components
    if stored.kms_key:
        resource["kmsKeyName"] = f"{stored.kms_key}/cryptoKeyVersions/1"
    return resource


def bucket_resource(bucket: Bucket, base: str) -> dict[str, Any]:
    """What the API says of a bucket."""
    resource: dict[str, Any] = {
        "kind": "storage#bucket",
        "id": bucket.name,
        "name": bucket.name,
        "selfLink": f"{base}/storage/v1/b/{bucket.name}",
        "projectNumber": "1",
        "location": "US",
        "locationType": "multi-region",
        "storageClass": "STANDARD",
        "metageneration": "1",
        "etag": "CAE=",
        "timeCreated": bucket.created,
        "updated": bucket.created,
    }
    if bucket.default_kms_key:
        resource["encryption"] = {"defaultKmsKeyName": bucket.default_kms_key}
    return resource


def crc32c(data: bytes) -> str:
    """As the API spells it: base64 of four bytes, big-endian."""
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def now() -> str:
    """RFC 3339 with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ApiError(400, "invalid", f"Invalid value: {text}") from None
