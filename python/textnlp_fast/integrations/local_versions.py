"""Versions as directories on the local disk, for libraries that want one: pulled once, then found again."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from textnlp_fast.errors import ConflictError, InvalidInputError, LoadTimeoutError
from textnlp_fast.integrations.urls import ModelURL, Place, open_repository, parse_model_url
from textnlp_fast.storage.manifest import Manifest, files_digest
from textnlp_fast.storage.pull_record import read_record, regular_status
from textnlp_fast.storage.repository import Repository

__all__ = ["CACHE_VARIABLE", "cache_folder", "local_version", "model_folder", "small_files_of"]

CACHE_VARIABLE: Final = "TEXTNLP_FAST_VERSIONS"
"""The folder that the versions are kept in; else below the user's cache."""
#: Others are at work in a folder for as long as their pull takes.
DEFAULT_TIMEOUT_S: Final = 3600.0
_POLL_S: Final = 0.2
_DIGEST_CHARS: Final = 16
# A model's weights are elsewhere; tokenizers have tens of megabytes.
_SMALL_FILE_BYTES: Final = 256 << 20
_WEIGHTS: Final = (".safetensors", ".safetensors.index.json", ".bin", ".gguf")


def cache_folder() -> Path:
    """Where versions are kept if nobody says otherwise."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(root) / "textnlp-fast" / "versions"


def local_version(
    url: str | ModelURL,
    *,
    repository: Place | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    check: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Path:
    """The directory with the files of the version that the URL means now, or the file that it names in there.

    What is not there is pulled, each byte verified, out of what other versions of the model in the cache hold and the
    repository: a newer version fetches its deltas only. What an earlier call put there is believed if sizes and times
    are as it left them; with `check` every byte of it is hashed again, and what is damaged is fetched. Nothing is
    ever removed: the folder is the user's to empty.

    Raises what a pull does, and LoadTimeoutError if another process is at work there for longer than `timeout_s`.
    """
    parsed = parse_model_url(url) if isinstance(url, str) else url
    opened = open_repository(parsed, repository)
    manifest = opened.trusted_manifest(parsed.name, parsed.selector)
    folder = _folder_of(opened, manifest, cache_dir)
    deadline = time.monotonic() + timeout_s
    while check or not is_whole(folder, manifest):
        try:
            have = sorted(other for other in folder.parent.glob("@*") if other != folder and other.is_dir())
            opened.pull(manifest.model, manifest.version, folder, have=have)
            break
        except ConflictError as error:
            if time.monotonic() > deadline:
                raise LoadTimeoutError(
                    f"another process has been making {folder} for {timeout_s:g} s", hint="Look what it does."
                ) from error
            time.sleep(_POLL_S)
    return folder if parsed.path is None else folder / parsed.path


def model_folder(
    url: str | ModelURL, *, repository: Place | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> Path:
    """`local_version` for whoever reads a directory. Raises InvalidInputError where the URL names a file."""
    found = local_version(url, repository=repository, cache_dir=cache_dir)
    if found.is_file():
        raise InvalidInputError(
            f"{url} is a file, and no model",
            hint="Leave the path out, or name a folder of the version.",
        )
    return found


def small_files_of(opened: Repository, manifest: Manifest, folder: Path) -> Path:
    """Writes all files of a version but the weights below `folder`: configurations, tokenizers, code."""
    files = opened.files(manifest.model, manifest.version)
    for path, entry in files.entries.items():
        if path.endswith(_WEIGHTS) or entry.size > _SMALL_FILE_BYTES:
            continue
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            files.copy(path, descriptor)
        finally:
            os.close(descriptor)
    return folder


def is_whole(folder: Path, manifest: Manifest) -> bool:
    """Whether all files of the version are there as the pull that made them left them."""
    with suppress(OSError):
        recorded = read_record(folder).files
        for entry in manifest.files:
            known, status = recorded.get(entry.path), regular_status(folder / entry.path)
            if known is None or status is None or not known.matches(status) or known.digests != entry.parts:
                return False
        return True
    return False


def _folder_of(opened: Repository, manifest: Manifest, cache_dir: str | os.PathLike[str] | None) -> Path:
    root = cache_folder() if cache_dir is None else Path(cache_dir).expanduser()
    # A name's words never begin with "@": a model `org` and a model `org/next` do not meet. Two repositories, or two
    # lives of one version, have other ids or digests.
    version = f"@{manifest.version}-{files_digest(manifest.files)[:_DIGEST_CHARS]}"
    return root.resolve() / opened.id / manifest.model / version
