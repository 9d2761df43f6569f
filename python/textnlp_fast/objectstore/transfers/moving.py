"""From a file's and an object's names to a transfer between the two."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from textnlp_fast.errors import AuthenticationError, InvalidInputError, StorageUnavailableError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore.keys import check_file_key, check_foreign_key
from textnlp_fast.objectstore.open import local_folder, open_store
from textnlp_fast.objectstore.store import ObjectStore
from textnlp_fast.objectstore.transfers.digests import file_digest
from textnlp_fast.objectstore.transfers.downloading import DownloadReport, download_file
from textnlp_fast.objectstore.transfers.file_copy import FileSource
from textnlp_fast.objectstore.transfers.first_look import check_digest, checked_digest
from textnlp_fast.objectstore.transfers.http_stream import goes_through_proxy
from textnlp_fast.objectstore.transfers.progress import Meter
from textnlp_fast.objectstore.transfers.settings import TransferSettings
from textnlp_fast.objectstore.transfers.signed_source import SignedSource
from textnlp_fast.objectstore.transfers.store_source import StoreSource
from textnlp_fast.objectstore.transfers.uploading import UploadReport, upload_file
from textnlp_fast.objectstore.transfers.watch import StreamWatch, Watch

if TYPE_CHECKING:
    from textnlp_fast.objectstore.transfers.protocol import RangeSource, UploadTarget

__all__ = ["download", "open_object", "source_of", "split_url", "upload", "upload_target"]

_BUCKETS: Final = frozenset({"s3", "gs", "az"})
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~/-]+", re.ASCII)
_URL_LIFE_S: Final = 3600.0


def split_url(url: str | os.PathLike[str]) -> tuple[str, str]:
    """The place of a store, as ``open_store`` takes it, and the key of an object.

    Of a bucket's URL the key is all that follows the bucket, letter by letter; of a path, its last segment.
    """
    text = os.fspath(url)
    scheme, mark, rest = text.partition("://")
    if mark and scheme.lower() in _BUCKETS:
        # As the providers' own tools read it: nothing is decoded, and '?', '#' and '%' stand for themselves.
        bucket, _, key = rest.partition("/")
        if not key or key.endswith("/"):
            raise InvalidInputError(f"{text!r} names no object", hint=f"Write {scheme}://bucket/key.")
        return f"{scheme.lower()}://{bucket}", key
    folder = local_folder(text) if mark else None
    if folder is not None:
        text = str(folder)
    base, slash, name = text.rpartition("/")
    if not name or (not slash and "://" in text) or base.endswith(":/"):
        raise InvalidInputError(f"{text!r} names no object", hint="Write s3://bucket/key, or a file's path.")
    if not slash:
        return ".", name
    return base or "/", name


def download(
    store: ObjectStore,
    key: str,
    destination: str | os.PathLike[str],
    settings: TransferSettings | None = None,
    *,
    digest: str | None = None,
) -> DownloadReport:
    """Makes ``destination`` a file with the object's bytes; run again after a kill, it goes on.

    ``digest``: what the caller knows of the content (BLAKE3, hexadecimal digits). Errors as in ``download_file``.
    """
    settings = settings or TransferSettings()
    source = source_of(store, key, settings)
    try:
        return download_file(source, destination, settings, digest=digest)
    finally:
        source.close()


def upload(
    path: str | os.PathLike[str],
    store: ObjectStore,
    key: str,
    settings: TransferSettings | None = None,
    *,
    digest: str | None = None,
) -> UploadReport:
    """Makes the object ``key`` out of a file; run again after a kill, it goes on.

    An object of that key is replaced, in one step. ``digest`` and errors as in ``upload_file``.
    """
    settings = settings or TransferSettings()
    store = _of_any_key(store, key)
    folder = local_folder(store.url)
    if folder is not None:
        return _copy_into(folder, key, path, settings, checked_digest(digest))
    if urlsplit(store.url).scheme == "memory":
        return _keep(store, key, path, checked_digest(digest))
    with upload_target(store, key, settings) as target:
        return upload_file(path, target, settings, digest=digest)


def source_of(store: ObjectStore, key: str, settings: TransferSettings) -> RangeSource:
    """Where to read an object from: the quickest way there is to this store."""
    store = _of_any_key(store, key)
    folder = local_folder(store.url)
    if folder is not None:
        return FileSource(folder / key)
    if urlsplit(store.url).scheme == "gs":
        from textnlp_fast.objectstore.transfers.gcs_target import GcsSource  # noqa: PLC0415

        return GcsSource(*_bucket_and_key(store, key), store.opening, _quiet(settings))
    first = _signed(store, "GET", key)
    if first is None or goes_through_proxy(first):
        return StoreSource(store, key)

    is_s3 = urlsplit(store.url).scheme == "s3"

    def sign(method: str) -> str:
        # S3 signs the method; Azure what may be done, which for both is to read.
        url = store.signed_url("HEAD" if method == "HEAD" and is_s3 else "GET", key, lifetime_s=_URL_LIFE_S)
        if url is None:
            raise StorageUnavailableError(f"{store.url} signs no URLs any more")
        return url

    return SignedSource(f"{store.url.rstrip('/')}/{key}", sign, _quiet(settings))


def _of_any_key(store: ObjectStore, key: str) -> ObjectStore:
    """The store, which takes keys that a repository would not; raises ``InvalidInputError`` if none can have this."""
    if local_folder(store.url) is not None:
        check = check_file_key
    else:
        prefix = urlsplit(store.url).path.strip("/")

        def check(key: str) -> str:
            return check_foreign_key(key, prefix)

    check(key)
    return store.with_keys(check)


def _quiet(settings: TransferSettings) -> Callable[[], StreamWatch]:
    """Watches for small questions, which count for nothing."""
    return lambda: Watch(settings, Meter(0, 0)).stream()


def _signed(store: ObjectStore, method: Literal["GET", "PUT"], key: str) -> str | None:
    """A signed URL; ``None`` where these credentials may not or cannot make one."""
    if urlsplit(store.url).scheme == "az" and not _PLAIN.fullmatch(_bucket_and_key(store, key)[1]):
        # Azure signs the name as it is and obstore its percent-encoding: only where both are the same do they agree.
        return None
    try:
        return store.signed_url(method, key, lifetime_s=_URL_LIFE_S)
    except (AuthenticationError, InvalidInputError):
        if urlsplit(store.url).scheme != "az":  # a token that may read, and not delegate
            raise
        return None


def _bucket_and_key(store: ObjectStore, key: str) -> tuple[str, str]:
    parts = urlsplit(store.url)
    return parts.netloc, f"{parts.path.strip('/')}/{key}".lstrip("/")


@contextmanager
def upload_target(
    store: ObjectStore, key: str, settings: TransferSettings | None = None
) -> Iterator[UploadTarget]:
    """Where parts of an object of a bucket go to, by the provider's own client, until the block ends."""
    store = _of_any_key(store, key)
    scheme = urlsplit(store.url).scheme
    bucket, whole_key = _bucket_and_key(store, key)
    target: UploadTarget
    if scheme == "s3":
        from textnlp_fast.objectstore.transfers.s3_target import S3Target  # noqa: PLC0415

        target = S3Target(bucket, whole_key, store.opening)
    elif scheme == "az":
        from textnlp_fast.objectstore.transfers.azure_target import AzureTarget  # noqa: PLC0415

        target = AzureTarget(bucket, whole_key, store.opening, lambda: _signed(store, "PUT", key))
    elif scheme == "gs":
        from textnlp_fast.objectstore.transfers.gcs_target import GcsTarget  # noqa: PLC0415

        target = GcsTarget(bucket, whole_key, store.opening, _quiet(settings or TransferSettings()))
    else:
        raise InvalidInputError(f"there are no resumable uploads to {scheme}://")
    try:
        yield target
    finally:
        target.close()


def _copy_into(
    folder: Path, key: str, path: str | os.PathLike[str], settings: TransferSettings, digest: str | None
) -> UploadReport:
    """An upload into a folder: the file becomes the object by one rename, and lies in ``.tmp`` until then."""
    local = Path(path).expanduser().absolute()
    if not local.is_file():
        raise InvalidInputError(f"{local} is no file", hint="Give the name of one file.")
    # What a store's folder lists are its own files: a link is none, and its target may lie anywhere.
    if (folder / key).is_symlink():
        raise InvalidInputError(f"{folder / key} is a link", hint="Name the file that it leads to.")
    part_path = folder / ".tmp" / f"upload-{blake3_hex(os.fsencode(key))[:32]}.part"
    report = download_file(FileSource(local), folder / key, settings, digest=digest, part_path=part_path)
    return UploadReport(
        (folder / key).as_uri(),
        str(local),
        report.size,
        report.moved_bytes,
        report.resumed_bytes,
        report.digest or file_digest(folder / key),
        "",
        report.restarted,
        report.retries,
        report.seconds,
    )


def _keep(store: ObjectStore, key: str, path: str | os.PathLike[str], digest: str | None) -> UploadReport:
    """An upload into this process's memory."""
    started = time.monotonic()
    local = Path(path).expanduser().absolute()
    if not local.is_file():
        raise InvalidInputError(f"{local} is no file", hint="Give the name of one file.")
    try:
        data = local.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {local}: {error.strerror}") from error
    found = blake3_hex(data)
    check_digest(local, found, digest)
    store.put_object(key, data)
    return UploadReport(
        f"{store.url}/{key}",
        str(local),
        len(data),
        len(data),
        0,
        found,
        store.head(key).etag,
        None,
        0,
        time.monotonic() - started,
    )


def open_object(url: str | os.PathLike[str], **arguments: str | bool | None) -> tuple[ObjectStore, str]:
    """The store and the key that a URL or a path names; ``arguments`` as for ``open_store``."""
    place, key = split_url(url)
    return open_store(place, **arguments), key  # type: ignore[arg-type]  # the caller's names are open_store's
