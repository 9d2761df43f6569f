"""One file of a version, small enough for memory, without pulling the version."""

from __future__ import annotations

from textnlp_fast.contents.entries import content_names
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.decoding import Decoder
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.planning import PullStep, pull_step

__all__ = ["read_small_file"]


def read_small_file(
    store: ObjectStore, manifest: Manifest, path: str, options: TransferOptions, *, limit_bytes: int
) -> bytes | None:
    """The file's bytes, each content compared with its digest; None if the version has no such file.

    Raises InvalidInputError if it is larger than `limit_bytes`, and what `Decoder.run` does.
    """
    entry = next((entry for entry in manifest.files if entry.path == path), None)
    if entry is None:
        return None
    if entry.size > limit_bytes:
        raise InvalidInputError(
            f"{path!r} of {manifest.model}@{manifest.version} has {entry.size} bytes; at most {limit_bytes} are read",
            hint="Pull the version to have the file.",
        )
    parts = {digest: bytearray(manifest.contents[digest].size) for digest in entry.parts}

    def sink(step: PullStep, offset: int, data: memoryview) -> None:
        parts[step.content.digest][offset : offset + len(data)] = data

    steps = [pull_step(manifest.contents, digest, {}) for digest in parts]
    names = content_names([entry])
    Decoder(store, manifest.contents, manifest.window_bytes, options, names).run(steps, sink)
    return b"".join(parts[digest] for digest in entry.parts)
