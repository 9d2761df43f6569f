"""The JSON API's methods that the fake has, and what each takes.

``METHODS`` is held against the discovery document; a parameter that is not in it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from fakes.gcs.state import (
    WRITABLE,
    ApiError,
    Bucket,
    State,
    bucket_resource,
    check_preconditions,
    now,
    object_resource,
)
from fakes.gcs.uploads import Uploads
from fakes.gcs.wire import Answer, json_answer, masked, media_range, parse_json
from faults.server import Request

__all__ = ["COMMON", "METHODS", "Api", "Method"]

COMMON = {"alt", "fields", "prettyPrint", "quotaUser", "uploadType"}
"""Parameters of every method."""
CONDITIONS = {
    *("ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch", "ifMetagenerationNotMatch"),
}
# Told by the client, and without a meaning here, as `projection` is.
IGNORED = {"userProject"}
LARGEST_PAGE = 100  # the real one gives up to 1000, and may always give fewer


@dataclass(frozen=True)
class Method:
    """A method of the API: its name there, and the parameters that the fake obeys."""

    id: str
    http_method: str
    path: str
    parameters: frozenset[str]
    upload: bool = False


def _method(id: str, http_method: str, path: str, *parameters: str, upload: bool = False) -> Method:
    return Method(id, http_method, path, frozenset(parameters) | IGNORED, upload)


METHODS = (
    _method("storage.buckets.insert", "POST", "b", "project", "projection"),
    _method("storage.buckets.get", "GET", "b/{bucket}", "ifMetagenerationMatch", "projection"),
    _method("storage.buckets.delete", "DELETE", "b/{bucket}"),
    _method(
        "storage.objects.insert",
        "POST",
        "b/{bucket}/o",
        "name",
        "kmsKeyName",
        "projection",
        *CONDITIONS,
        upload=True,
    ),
    _method(
        *("storage.objects.list", "GET", "b/{bucket}/o"),
        *("prefix", "delimiter", "startOffset", "endOffset", "maxResults", "pageToken", "projection"),
    ),
    _method("storage.objects.get", "GET", "b/{bucket}/o/{object}", "generation", "projection", *CONDITIONS),
    _method(
        "storage.objects.patch", "PATCH", "b/{bucket}/o/{object}", "generation", "projection", *CONDITIONS
    ),
    _method("storage.objects.delete", "DELETE", "b/{bucket}/o/{object}", "generation", *CONDITIONS),
    _method(
        *("storage.objects.compose", "POST", "b/{destinationBucket}/o/{destinationObject}/compose"),
        *("ifGenerationMatch", "ifMetagenerationMatch", "kmsKeyName"),
    ),
)


class Api:
    """Answers requests; who asks and whether he may is decided before."""

    def __init__(self) -> None:
        self.state = State()
        self.uploads = Uploads(self.state)
        self._handlers: dict[str, Callable[[Request, dict[str, str]], Answer]] = {
            "storage.buckets.insert": self._insert_bucket,
            "storage.buckets.get": self._get_bucket,
            "storage.buckets.delete": self._delete_bucket,
            "storage.objects.insert": lambda request, names: self.uploads.insert(request, names["bucket"]),
            "storage.objects.list": self._list,
            "storage.objects.get": self._get,
            "storage.objects.patch": self._patch,
            "storage.objects.delete": self._delete,
            "storage.objects.compose": self._compose,
        }

    def answer(self, request: Request) -> Answer:
        """Do what is asked, or raise :class:`ApiError`."""
        if request.path.startswith("/upload/") and "upload_id" in request.query:
            if request.method == "DELETE":
                return self.uploads.cancel(request)
            if request.method in {"PUT", "POST"}:
                return self.uploads.proceed(request)
        method, names = route(request)
        unknown = sorted(set(request.query) - method.parameters - COMMON)
        if unknown:
            raise ApiError(
                400, "invalidParameter", f"The fake does not know {', '.join(unknown)} of {method.id}."
            )
        answer = self._handlers[method.id](request, names)
        mask = request.query.get("fields")
        if mask and answer.headers.get("Content-Type", "").startswith("application/json"):
            return json_answer(masked(parse_json(answer.body), mask), answer.status)
        return answer

    # --- buckets --------------------------------------------------------------------------------------------

    def _insert_bucket(self, request: Request, _: dict[str, str]) -> Answer:
        resource = parse_json(request.body)
        name = resource.get("name", "")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", name):
            raise ApiError(400, "invalid", f"Invalid bucket name: '{name}'")
        if "project" not in request.query:
            raise ApiError(400, "required", "Required parameter: project")
        with self.state.lock:
            if name in self.state.buckets:
                raise ApiError(409, "conflict", "Your previous request to create the named bucket succeeded.")
            key = resource.get("encryption", {}).get("defaultKmsKeyName")
            bucket = self.state.buckets[name] = Bucket(name, now(), key)
        return json_answer(bucket_resource(bucket, request.base))

    def _get_bucket(self, request: Request, names: dict[str, str]) -> Answer:
        return json_answer(bucket_resource(self.state.bucket(names["bucket"]), request.base))

    def _delete_bucket(self, _: Request, names: dict[str, str]) -> Answer:
        with self.state.lock:
            if self.state.bucket(names["bucket"]).objects:
                raise ApiError(409, "conflict", "The bucket you tried to delete is not empty.")
            del self.state.buckets[names["bucket"]]
        return Answer(204)

    # --- objects --------------------------------------------------------------------------------------------

    def _list(self, request: Request, names: dict[str, str]) -> Answer:
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        most = min(int(query.get("maxResults", LARGEST_PAGE)), LARGEST_PAGE)
        after = unquote(query.get("pageToken", ""))
        items: list[dict[str, Any]] = []
        folders: list[str] = []
        token, last = None, ""
        with self.state.lock:
            objects = self.state.bucket(names["bucket"]).objects
            for name in sorted(objects, key=str.encode):
                if not name.startswith(prefix) or name < query.get("startOffset", "") or name <= after:
                    continue
                if "endOffset" in query and name >= query["endOffset"]:
                    continue
                if after and delimiter and after.endswith(delimiter) and name.startswith(after):
                    continue
                if len(items) + len(folders) == most:
                    token = last
                    break
                inner = name[len(prefix) :]
                if delimiter and delimiter in inner:
                    last = prefix + inner.partition(delimiter)[0] + delimiter
                    if not folders or folders[-1] != last:
                        folders.append(last)
                else:
                    last = name
                    items.append(object_resource(names["bucket"], objects[name], request.base))
        page: dict[str, Any] = {"kind": "storage#objects"}
        if items:
            page["items"] = items
        if folders:
            page["prefixes"] = folders
        if token is not None:
            page["nextPageToken"] = token
        return json_answer(page)

    def _get(self, request: Request, names: dict[str, str]) -> Answer:
        with self.state.lock:
            stored = self.state.find(names["bucket"], names["object"], request.query)
            check_preconditions(stored, request.query, reading=True)
        if request.query.get("alt") != "media":
            return json_answer(
                object_resource(names["bucket"], stored, request.base), headers={"ETag": stored.etag}
            )
        size = len(stored.data)
        md5 = f",md5={stored.md5}" if stored.md5 else ""
        headers = {
            "Content-Type": stored.fields.get("contentType") or "application/octet-stream",
            "ETag": stored.etag,
            "X-Goog-Generation": str(stored.generation),
            "X-Goog-Metageneration": str(stored.metageneration),
            "X-Goog-Hash": f"crc32c={stored.crc32c}{md5}",
            "X-Goog-Storage-Class": "STANDARD",
            "X-Goog-Stored-Content-Encoding": "identity",
            "X-Goog-Stored-Content-Length": str(size),
        }
        span = media_range(request.headers.get("range", ""), size)
        if span is None:
            return Answer(200, headers, stored.data)
        headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
        return Answer(206, headers, stored.data[span[0] : span[1]])

    def _patch(self, request: Request, names: dict[str, str]) -> Answer:
        changes = parse_json(request.body)
        with self.state.lock:
            stored = self.state.find(names["bucket"], names["object"], request.query)
            check_preconditions(stored, request.query, reading=False)
            stored.fields.update({key: value for key, value in changes.items() if key in WRITABLE})
            stored.metageneration += 1
            stored.updated = now()
            return json_answer(object_resource(names["bucket"], stored, request.base))

    def _delete(self, request: Request, names: dict[str, str]) -> Answer:
        with self.state.lock:
            stored = self.state.find(names["bucket"], names["object"], request.query)
            check_preconditions(stored, request.query, reading=False)
            del self.state.bucket(names["bucket"]).objects[stored.name]
        return Answer(204)

    def _compose(self, request: Request, names: dict[str, str]) -> Answer:
        wanted = parse_json(request.body)
        sources = wanted.get("sourceObjects", [])
        if not 1 <= len(sources) <= 32:
            raise ApiError(400, "invalid", "The number of source components is between 1 and 32.")
        bucket, pieces, components = names["destinationBucket"], [], 0
        with self.state.lock:
            for source in sources:
                pinned = {"generation": str(source["generation"])} if "generation" in source else {}
                stored = self.state.find(bucket, source["name"], pinned)
                conditions = source.get("objectPreconditions", {})
                check_preconditions(
                    stored, {key: str(value) for key, value in conditions.items()}, reading=False
                )
                pieces.append(stored.data)
                components += stored.components or 1
            stored = self.state.store(
                *(bucket, names["destinationObject"], b"".join(pieces), wanted.get("destination", {})),
                *(request.query, components),
            )
        return json_answer(object_resource(bucket, stored, request.base))


def _pattern(method: Method) -> re.Pattern[str]:
    roots = (
        "/upload/storage/v1/|/resumable/upload/storage/v1/"
        if method.upload
        else "/storage/v1/|/download/storage/v1/"
    )
    inner = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", method.path)
    return re.compile(f"(?:{roots}){inner}")


_ROUTES = [(method, _pattern(method)) for method in METHODS]


def route(request: Request) -> tuple[Method, dict[str, str]]:
    """Which method a request is for, and the names in its path."""
    for method, pattern in _ROUTES:
        found = pattern.fullmatch(request.path)
        if found and method.http_method == request.method:
            return method, {name: unquote(value) for name, value in found.groupdict().items()}
    raise ApiError(404, "notFound", f"The fake has no {request.method} {request.path}")
