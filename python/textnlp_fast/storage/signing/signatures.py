"""Signatures of versions: made, kept beside the manifest, and asked for before anything of a version is used."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from textnlp_fast.contents.documents import Broken
from textnlp_fast.contents.entries import FileEntry, file_document
from textnlp_fast.contents.inventory import READ_BYTES, LocalFile, check_unchanged, file_entry, take_inventory
from textnlp_fast.contents.working import thread_count
from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    ObjectExistsError,
    SignatureRequiredError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.audit import record
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.pull import pull_model
from textnlp_fast.storage.signing.bundles import MAX_BUNDLE_BYTES, open_bundle, seal_bundle
from textnlp_fast.storage.signing.keys import PrivateKey, PublicKey
from textnlp_fast.storage.signing.policy import SignaturePolicy
from textnlp_fast.storage.signing.statements import (
    Statement,
    files_digest,
    parse_statement,
    serialize_statement,
)
from textnlp_fast.storage.version_manager import now_utc

__all__ = ["Signed", "require_signatures", "sign_files", "sign_version", "signature_key"]


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that was made, or was there: of which version, by which key, where it is in the repository."""

    model: str
    version: str
    key_id: str
    path: str
    already_there: bool = False


def signature_key(model: str, version: str, files: str, key_id: str) -> str:
    """Key of a signature's object. The files are part of it: nobody can block the place of the right one."""
    return f"signatures/{model}/{version}/{files}/{key_id}.json"


def sign_files(
    store: ObjectStore,
    model: str,
    version: str,
    entries: Sequence[FileEntry],
    files: Sequence[LocalFile],
    key: PrivateKey,
    *,
    threads: int = 0,
) -> Signed:
    """Signs the files of a version, which are at hand, and keeps the signature. The version need not exist yet.

    Raises InvalidInputError if a file changes meanwhile.
    """
    statement = Statement(model, version, files_digest(entries), now_utc())
    digests = _digests_of(files, threads)
    check_unchanged(files)
    place = signature_key(model, version, statement.files, key.id)
    bundle = seal_bundle(serialize_statement(statement, digests), key)
    signed = Signed(model, version, key.id, place)
    try:
        store.create(place, bundle)
    except ObjectExistsError as taken:
        problem = _problem(taken.existing, key.public, statement)
        if problem is not None:
            raise InvalidInputError(
                f"{place} is there, and is no signature of {model}@{version}: {problem}",
                hint="Somebody put it there. Find out who, remove it, and sign again.",
            ) from None
        return Signed(model, version, key.id, place, already_there=True)
    record(
        store, action="sign", model=model, version=version, detail={"files": statement.files, "key": key.id}
    )
    return signed


def sign_version(
    store: ObjectStore,
    manifest: Manifest,
    key: PrivateKey,
    options: TransferOptions,
    *,
    files: str | os.PathLike[str] | None = None,
) -> Signed:
    """Signs a version that is there. `files` are its files, if they are at hand; else they are pulled to a temporary
    folder, every byte verified.

    Raises InvalidInputError if the files are not those of the version.
    """
    if files is None:
        with tempfile.TemporaryDirectory(prefix="textnlp-fast-sign-") as folder:
            place = Path(folder) / "model"
            pull_model(store, manifest, place, options)
            return sign_version(store, manifest, key, options, files=place)
    inventory = take_inventory(files, threads=options.thread_count)
    entries = [file_entry(file) for file in inventory]
    if files_digest(entries) != files_digest(manifest.files):
        difference = _difference(entries, manifest)
        raise InvalidInputError(
            f"the files at {files} are not those of {manifest.model}@{manifest.version}: {difference}",
            hint="Sign without --files, or pull the version and look at what differs.",
        )
    return sign_files(
        store, manifest.model, manifest.version, entries, inventory, key, threads=options.thread_count
    )


def require_signatures(store: ObjectStore, manifest: Manifest, policy: SignaturePolicy) -> None:
    """Raises SignatureRequiredError unless the version has the signatures that the policy asks of its model."""
    for need in policy.needs_of(manifest.model):
        statement = Statement(manifest.model, manifest.version, files_digest(manifest.files), "")
        reasons: list[str] = []
        keys = {key.id: key for key in need.keys}
        good = 0
        for key in keys.values():
            reason = _check(store, key, statement)
            good += reason is None
            if good == need.threshold:
                break
            if reason is not None:
                reasons.append(f"{key.path}: {reason}")
        else:
            wanted = f"{need.threshold} of {len(keys)}" if len(keys) > 1 else "1"
            raise SignatureRequiredError(
                f"{manifest.model}@{manifest.version} needs {wanted} signatures and has {good}: {'; '.join(reasons)}"
            )


def _check(store: ObjectStore, key: PublicKey, wanted: Statement) -> str | None:
    """Why there is no good signature of this key; None if there is."""
    place = signature_key(wanted.model, wanted.version, wanted.files, key.id)
    try:
        data = store.get(place, limit_bytes=MAX_BUNDLE_BYTES)
    except MissingObjectError:
        return "it has not signed these files"
    except CorruptDataError:
        return "its signature is too large to be one"
    return _problem(data, key, wanted)


def _problem(data: bytes, key: PublicKey, wanted: Statement) -> str | None:
    if len(data) > MAX_BUNDLE_BYTES:
        return "its signature is too large to be one"
    try:
        found = parse_statement(open_bundle(data, key))
    except Broken as error:
        return f"its signature does not hold: {error}"
    if (found.model, found.version) != (wanted.model, wanted.version):
        return f"its signature is that of {found.model}@{found.version}"
    if found.files != wanted.files:
        return "its signature is that of other files"
    return None


def _digests_of(files: Sequence[LocalFile], threads: int) -> dict[str, str]:
    """SHA-256 of whole files, by path: what model-signing's command line makes of them."""
    places = [Path(file.location) for file in files]
    with ThreadPoolExecutor(thread_count(threads)) as pool:
        return dict(zip((file.path for file in files), pool.map(_digest_of, places), strict=True))


def _digest_of(path: Path) -> str:
    hasher = hashlib.sha256()
    view = memoryview(bytearray(READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(view):
            hasher.update(view[:size])
    return hasher.hexdigest()


def _difference(entries: Iterable[FileEntry], manifest: Manifest) -> str:
    mine, theirs = ({one.path: file_document(one) for one in some} for some in (entries, manifest.files))
    lacks, more = sorted(theirs.keys() - mine.keys()), sorted(mine.keys() - theirs.keys())
    if lacks or more:
        return "; ".join([f"without {path}" for path in lacks[:3]] + [f"with {path}" for path in more[:3]])
    return f"another {next(path for path in sorted(mine) if mine[path] != theirs[path])}"
