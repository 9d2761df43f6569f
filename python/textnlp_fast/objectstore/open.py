"""From a place's name to a store."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from obstore.store import MemoryStore

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore.azure import open_azure
from textnlp_fast.objectstore.backend import Backend
from textnlp_fast.objectstore.conditional import Backoff
from textnlp_fast.objectstore.encryption import ServerSideEncryption
from textnlp_fast.objectstore.gcs import open_gcs
from textnlp_fast.objectstore.local import LocalBackend
from textnlp_fast.objectstore.remote import RemoteBackend
from textnlp_fast.objectstore.s3 import open_s3
from textnlp_fast.objectstore.store import ObjectStore, OpenArguments

__all__ = ["local_folder", "open_store"]

# `s3:bucket`, or what pathlib makes of `s3://bucket`: taken for a folder's name it would make that folder.
_LIKE_A_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")

_memory_stores: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


def open_store(
    url: str | os.PathLike[str],
    *,
    region: str | None = None,
    endpoint_url: str | None = None,
    allow_http: bool = False,
    encryption: ServerSideEncryption | None = None,
    timeout_s: float = 60.0,
    retries: int = 5,
) -> ObjectStore:
    """Open the objects at ``url``: a folder's path or ``file://`` URL, ``s3://bucket[/prefix]``,
    ``gs://bucket[/prefix]``, ``az://container[/prefix]``, or ``memory://name``.

    ``timeout_s`` bounds how long the store may stay silent, ``retries`` how often a request is sent again.
    ``region`` (S3), ``endpoint_url``, ``allow_http`` (plain HTTP to another machine) and ``encryption`` are for
    buckets. Endpoints default to what the provider's own tools read: ``AWS_ENDPOINT_URL``,
    ``AZURE_STORAGE_ENDPOINT``, ``STORAGE_EMULATOR_HOST``. Credentials come from the provider's default chain and from
    nowhere else. ``memory://name`` is one store per name and process. Raises ``InvalidInputError`` for a URL that names
    none of these, ``AuthenticationError`` where no credentials can be found and ``MissingPackageError`` where the
    provider's client is not installed.
    """
    if timeout_s <= 0 or retries < 0:
        raise InvalidInputError(
            f"timeout_s={timeout_s} and retries={retries}: the first is positive, the second not negative"
        )
    opening = OpenArguments(region, endpoint_url, allow_http, encryption, timeout_s, retries)
    backend = _backend(os.fspath(url), opening)
    return ObjectStore(backend, Backoff(retries), opening=opening)


def local_folder(place: str) -> Path | None:
    """The folder that a place's name means, a path or a ``file://`` URL; None for a URL of another kind.

    Raises ``InvalidInputError`` for what is neither.
    """
    if not place:
        raise InvalidInputError("the place of a repository is empty")
    if "://" not in place:
        if _LIKE_A_URL.match(place):
            scheme, _, rest = place.partition(":")
            raise InvalidInputError(
                f"{place!r} is neither a URL nor a plain path",
                hint=f"Write {scheme}://{rest.lstrip('/')}, or ./{place} for a folder of that name.",
            )
        return Path(place).expanduser()
    parts = urlsplit(place)
    if parts.scheme != "file":
        return None
    _refuse_extras(parts, place)
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise InvalidInputError(
            f"{place!r} is no file URL of this machine", hint="Write file:///absolute/path."
        )
    return Path(unquote(parts.path))


def _refuse_extras(parts: SplitResult, place: str) -> None:
    if "@" in parts.netloc:
        raise InvalidInputError(
            f"the {parts.scheme}:// URL carries credentials",
            hint="Take them out: credentials come from the environment, a profile or a role only.",
        )
    if parts.query or parts.fragment:
        raise InvalidInputError(f"{place!r}: a repository's URL has no '?' and no '#'")


def _backend(place: str, opening: OpenArguments) -> Backend:
    folder = local_folder(place)
    if folder is not None:
        _refuse_encryption(opening.encryption)
        return LocalBackend(folder, timeout_s=opening.timeout_s)
    parts = urlsplit(place)
    _refuse_extras(parts, place)
    path = parts.path.strip("/")
    if parts.scheme == "s3":
        return open_s3(parts.netloc, path, opening)
    if parts.scheme == "az":
        return open_azure(parts.netloc, path, opening)
    if parts.scheme == "gs":
        return open_gcs(parts.netloc, path, opening)
    if parts.scheme == "memory":
        _refuse_encryption(opening.encryption)
        return _memory(parts.netloc + parts.path)
    raise InvalidInputError(
        f"{parts.scheme}:// is no place this version can store to",
        hint="Use a folder, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory://name.",
    )


def _refuse_encryption(encryption: ServerSideEncryption | None) -> None:
    if encryption is not None:
        raise InvalidInputError(
            "encryption is what a bucket's provider does, and there is no bucket here",
            hint="Leave it out; encrypt the disk below the folder instead.",
        )


def _memory(name: str) -> RemoteBackend:
    with _memory_lock:
        store = _memory_stores.setdefault(name, MemoryStore())
    return RemoteBackend(f"memory://{name}", patient=store, once=store)
