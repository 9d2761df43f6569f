"""Uploads to Azure in blocks, which another process can go on with.

A block's id says what it holds: the file's digest, the part's number and its CRC-32. So the list of uncommitted blocks,
which every process can ask for, is all there is to know; blocks of another file under the same name are told apart, and
never become part of this one.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

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
from textnlp_fast.objectstore.azure import azure_account
from textnlp_fast.objectstore.endpoints import DISBELIEVED, authorities
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
    from textnlp_fast.objectstore.store import OpenArguments
    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["AzureTarget", "azure_errors", "container_client"]

_PART_BYTES: Final = 16 << 20
_MOST_PARTS: Final = 50_000
_CONNECT_TIMEOUT_S: Final = 10.0
_METADATA_KEY: Final = DIGEST_KEY.replace("-", "_")
_FINGERPRINT_DIGITS: Final = 24


def container_client(container: str, opening: OpenArguments) -> Any:
    """Microsoft's client for a container, with the account and the credentials that the environment names, one try a
    call. Raises ``MissingPackageError`` without azure-storage-blob."""
    try:
        blob = cast("Any", importlib.import_module("azure.storage.blob"))
    except ImportError as error:
        raise MissingPackageError(
            "uploads to Azure that can be resumed need azure-storage-blob",
            hint="Run: pip install 'textnlp-fast[azure]'",
        ) from error
    account = azure_account(opening.endpoint_url, allow_http=opening.allow_http)
    credential: Any = account.sas
    if account.key:
        credential = {"account_name": account.name, "account_key": account.key}
    elif not account.sas:
        try:
            identity = cast("Any", importlib.import_module("azure.identity"))
        except ImportError as error:
            raise MissingPackageError(
                "tokens for Azure need azure-identity", hint="Run: pip install 'textnlp-fast[azure]'"
            ) from error
        credential = identity.DefaultAzureCredential()
    return blob.ContainerClient(
        account.endpoint,
        container,
        credential=credential,
        retry_total=0,
        connection_timeout=min(opening.timeout_s, _CONNECT_TIMEOUT_S),
        read_timeout=opening.timeout_s,
        connection_verify=authorities("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") or True,
    )


@contextmanager
def azure_errors(doing: str) -> Iterator[None]:
    """Turns what Microsoft's client says into what the caller can do."""
    errors = cast("Any", importlib.import_module("azure.core.exceptions"))
    try:
        yield
    except errors.HttpResponseError as error:
        raise _meaning(error, f"cannot {doing}: {error.message}") from error
    except errors.AzureError as error:
        kind = UntrustedServerError if DISBELIEVED in str(error) else StorageUnavailableError
        raise kind(f"cannot {doing}: {error}") from error


def _meaning(error: Any, message: str) -> TextnlpFastError:
    status, code = error.status_code or 0, getattr(error, "error_code", "") or ""
    if code == "ContainerNotFound":
        return InvalidInputError(message, hint="Create the container, or check its name and account.")
    if status == 404:
        return MissingObjectError(message)
    if status in {401, 403}:
        return AuthenticationError(message)
    if _was_harmed(code + message) or status in {408, 429, 500, 503}:
        return BackOffError(message)
    if status >= 500 or not status:
        return StorageUnavailableError(message)
    return InvalidInputError(message)


def _was_harmed(answer: str) -> bool:
    """Whether an answer says that a body came with other bytes than its checksum; the last is how Azurite says so."""
    return any(each in answer for each in ("Md5Mismatch", "Crc64Mismatch", "contentMD5 doesn't match"))


class AzureTarget:
    """The blob ``key`` of a container, to be made of blocks. Azure checks the MD5 of each."""

    sequential = False

    def __init__(
        self, container: str, key: str, opening: OpenArguments, sign: Callable[[], str | None]
    ) -> None:
        self.url = f"az://{container}/{key}"
        self._containers = container_client(container, opening)
        self._blob = self._containers.get_blob_client(key)
        self._types = cast("Any", importlib.import_module("azure.storage.blob"))
        self._streams = HttpStreams()
        self._sign = sign

    def part_bytes(self, size: int, wanted: int | None) -> int:
        return max(wanted or _PART_BYTES, -(-size // _MOST_PARTS))

    def needs_crc32c(self) -> bool:
        return False

    def put_whole(self, plan: UploadPlan, body: PartBody, watch: StreamWatch) -> SourceState:
        with azure_errors(f"write {self.url}"):
            answer = self._blob.upload_blob(
                body.read(),
                overwrite=True,
                metadata=_metadata(plan),
                content_settings=self._settings(plan),
                validate_content=True,
            )
        watch.passed(len(body))
        return SourceState(plan.size, str(answer["etag"]), plan.digest)

    def begin(self, plan: UploadPlan) -> str:
        return plan.digest[:_FINGERPRINT_DIGITS]  # blocks need no beginning

    def present(
        self, upload_id: str, plan: UploadPlan, body_of: Callable[[Part], PartBody]
    ) -> Mapping[int, int] | None:
        there = self._blocks(plan)
        if not there and self._made(plan):
            return {part.number: part.length for part in plan.parts}  # committed, and the answer was lost
        return there

    def put(self, upload_id: str, plan: UploadPlan, part: Part, body: PartBody, watch: StreamWatch) -> None:
        block = _block_id(plan, part.number)
        signed = self._sign()
        if signed is None or goes_through_proxy(signed):
            with azure_errors(f"send part {part.number + 1} to {self.url}"):
                self._blob.stage_block(block, body.read(), length=len(body), validate_content=True)
            watch.passed(len(body))
            return
        # A signature covers the blob, not the query that makes the request one about a block of it.
        url = f"{signed}&comp=block&blockid={quote(base64.b64encode(block.encode()).decode(), safe='')}"
        md5 = base64.b64encode(body.md5()).decode()
        headers = {"Content-Length": str(len(body)), "Content-MD5": md5}
        answer = self._streams.request("PUT", url, headers, body=body, watch=watch)
        if answer.status != 201:
            if _was_harmed(answer.body.decode(errors="replace")):
                raise StorageUnavailableError(f"part {part.number + 1} was harmed on the way to {self.url}")
            answer.raise_for(f"cannot send part {part.number + 1} to {self.url}")

    def complete(self, upload_id: str, plan: UploadPlan) -> SourceState:
        made = self._made(plan)
        if made is not None:
            return made
        if len(self._blocks(plan)) != len(plan.crc32):
            raise CorruptDataError(
                f"{self.url}: blocks are missing; another writer may have replaced the blob",
                hint="Run the transfer again: missing parts are sent.",
            )
        blocks = [self._types.BlobBlock(_block_id(plan, part.number)) for part in plan.parts]
        with azure_errors(f"commit the blocks of {self.url}"):
            self._blob.commit_block_list(
                blocks, metadata=_metadata(plan), content_settings=self._settings(plan)
            )
        made = self._made(plan)
        if made is None:
            raise StorageUnavailableError(f"{self.url} is not what was sent: another writer replaced it")
        return made

    def abort(self, upload_id: str) -> None:
        """Uncommitted blocks cannot be deleted. Where the blob has no other content, making and deleting an empty one
        drops them; else they go with the next write, or after a week."""
        with azure_errors(f"drop the blocks of {self.url}"):
            errors = cast("Any", importlib.import_module("azure.core.exceptions"))
            try:
                made = self._blob.upload_blob(b"", overwrite=False)
            except errors.ResourceExistsError:
                if self._blob.exists():
                    return
                made = self._blob.upload_blob(b"", overwrite=True)  # Azurite takes blocks for a blob
            conditions = cast("Any", importlib.import_module("azure.core")).MatchConditions
            self._blob.delete_blob(etag=made["etag"], match_condition=conditions.IfNotModified)

    def close(self) -> None:
        self._streams.close()
        self._containers.close()

    def _settings(self, plan: UploadPlan) -> Any:
        return self._types.ContentSettings(content_type=plan.content_type)

    def _blocks(self, plan: UploadPlan) -> dict[int, int]:
        """The blocks of this very plan that are there, by number, with their sizes."""
        try:
            with azure_errors(f"list the blocks of {self.url}"):
                _, uncommitted = self._blob.get_block_list("uncommitted")
        except MissingObjectError:
            return {}
        numbers = {_block_id(plan, part.number): part for part in plan.parts}
        return {
            numbers[block.id].number: block.size
            for block in uncommitted
            if block.id in numbers and block.size == numbers[block.id].length
        }

    def _made(self, plan: UploadPlan) -> SourceState | None:
        """The blob, if it is the one of the plan."""
        try:
            with azure_errors(f"look at {self.url}"):
                found = self._blob.get_blob_properties()
        except MissingObjectError:
            return None
        digest = found.metadata.get(_METADATA_KEY)
        if found.size != plan.size or digest != plan.digest:
            return None
        return SourceState(plan.size, found.etag, digest)


def _metadata(plan: UploadPlan) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in plan.metadata.items()}


def _block_id(plan: UploadPlan, number: int) -> str:
    """At most 64 characters, all of one length, as Azure wants them."""
    return f"{plan.digest[:_FINGERPRINT_DIGITS]}-{number:06d}-{plan.crc32[number]:08x}"
