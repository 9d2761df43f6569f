"""Uploads that were begun and neither completed nor aborted: they cost storage and no listing of objects shows them.

* **S3** lists them, whoever began them: this package, its stores' own multipart puts that were killed, other tools.
* **Azure** lists blobs that have blocks and were never committed, often without a time: then one counts as begun when
  this machine's journal says, else just now. Blocks beside a committed blob are not listed. All blocks go by themselves
  a week after the last of them.
* **Google Cloud Storage** lists none; it drops a session a week after its last byte. Known are those of this machine,
  from the journals of its uploads.
* **A folder** holds the unfinished files of uploads into it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore.open import local_folder, open_store
from textnlp_fast.objectstore.store import ObjectStore
from textnlp_fast.objectstore.transfers.moving import upload_target
from textnlp_fast.objectstore.transfers.settings import TransferSettings
from textnlp_fast.objectstore.transfers.upload_journal import journals

if TYPE_CHECKING:
    from textnlp_fast.objectstore.store import OpenArguments

__all__ = ["OpenUpload", "abort_upload", "find_uploads"]


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An unfinished upload to the object ``key`` of the store at ``place``.

    ``begun_at`` is in seconds since 1970; ``size`` are the bytes it holds, where the provider says.
    """

    place: str
    key: str
    upload_id: str = field(repr=False)  # Google's lets whoever knows it write
    begun_at: float
    size: int | None = None


def find_uploads(
    place: ObjectStore | str | os.PathLike[str],
    *,
    older_than_s: float,
    state_folder: str | os.PathLike[str] | None = None,
) -> list[OpenUpload]:
    """Unfinished uploads to keys below ``place``, a store or its URL, that began at least ``older_than_s`` ago.

    One that is young may be at work: give it at least as long as the longest upload takes. ``state_folder`` as in
    ``TransferSettings``. Raises what listing a store raises; a store in memory has none.
    """
    if older_than_s < 0:
        raise InvalidInputError(f"older_than_s is {older_than_s}; it is not negative")
    store = open_store(place) if isinstance(place, str | os.PathLike) else place
    newest = time.time() - older_than_s
    folder = local_folder(store.url)
    if folder is not None:
        found = _in_folder(folder, store.url)
    elif urlsplit(store.url).scheme == "s3":
        found = _in_s3(store.url, store.opening)
    elif urlsplit(store.url).scheme == "az":
        journaled = _in_journals(store.url, TransferSettings(state_folder=state_folder).uploads_folder)
        found = _in_azure(store.url, store.opening, {upload.key: upload for upload in journaled})
    else:
        found = _in_journals(store.url, TransferSettings(state_folder=state_folder).uploads_folder)
    return sorted(
        (upload for upload in found if upload.begun_at <= newest), key=lambda upload: upload.begun_at
    )


def abort_upload(
    upload: OpenUpload,
    store: ObjectStore | None = None,
    *,
    state_folder: str | os.PathLike[str] | None = None,
) -> None:
    """Removes an unfinished upload and what it holds, and this machine's journal of it; no error if it is gone.

    ``store``: the one it was found in, for the way it was opened; by default the one at its place. ``state_folder`` as
    in :func:`find_uploads`.
    """
    folder = local_folder(upload.place)
    if folder is not None:
        part = folder / ".tmp" / upload.upload_id
        part.unlink(missing_ok=True)
        part.with_name(f"{part.name}.journal").unlink(missing_ok=True)
        return
    with upload_target(store or open_store(upload.place), upload.key) as target:
        target.abort(upload.upload_id)
    for path, journal in journals(TransferSettings(state_folder=state_folder).uploads_folder):
        if journal.upload_id == upload.upload_id and journal.url.endswith(f"/{upload.key}"):
            path.unlink(missing_ok=True)


def _in_folder(folder: Path, url: str) -> Iterator[OpenUpload]:
    for part in sorted((folder / ".tmp").glob("upload-*.part")):
        with suppress(FileNotFoundError):  # finished just now
            status = part.stat()
            yield OpenUpload(url, "", part.name, status.st_mtime, status.st_blocks * 512)


def _in_s3(url: str, opening: OpenArguments) -> Iterator[OpenUpload]:
    from textnlp_fast.objectstore.transfers.s3_target import s3_client, s3_errors  # noqa: PLC0415

    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    prefix = f"{prefix}/" if prefix else ""
    client = s3_client(opening)
    try:
        with s3_errors(f"list the uploads to {url}"):
            pages = client.get_paginator("list_multipart_uploads").paginate(
                Bucket=parts.netloc, Prefix=prefix
            )
            for page in pages:
                for row in page.get("Uploads", []):
                    key = row["Key"].removeprefix(prefix)
                    yield OpenUpload(url, key, row["UploadId"], row["Initiated"].timestamp())
    finally:
        client.close()


def _in_azure(url: str, opening: OpenArguments, known: Mapping[str, OpenUpload]) -> Iterator[OpenUpload]:
    from textnlp_fast.objectstore.transfers.azure_target import azure_errors, container_client  # noqa: PLC0415

    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    prefix = f"{prefix}/" if prefix else ""
    with container_client(parts.netloc, opening) as client, azure_errors(f"list the uploads to {url}"):
        for blob in client.list_blobs(name_starts_with=prefix, include=["uncommittedblobs"]):
            if blob.size:
                continue
            committed, blocks = client.get_blob_client(blob.name).get_block_list("all")
            if committed or not blocks:
                continue
            key = blob.name.removeprefix(prefix)
            since = blob.creation_time or blob.last_modified
            begun_at = since.timestamp() if since else time.time()
            upload_id = known[key].upload_id if key in known else ""
            yield OpenUpload(
                url,
                key,
                upload_id,
                known[key].begun_at if key in known else begun_at,
                sum(block.size for block in blocks),
            )


def _in_journals(url: str, folder: Path) -> Iterator[OpenUpload]:
    base = f"{url.rstrip('/')}/"
    for _, journal in journals(folder):
        if journal.url.startswith(base) and journal.upload_id:
            yield OpenUpload(url, journal.url.removeprefix(base), journal.upload_id, journal.begun_at)
