"""Contents of a version, decoded into memory, each compared with its digest before anybody sees it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from textnlp_fast.contents.entries import content_names
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.decoding import Decoder
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.planning import PullStep, pull_step

__all__ = ["decoded"]


def decoded(
    store: ObjectStore, manifest: Manifest, digests: Iterable[str], options: TransferOptions, threads: int
) -> dict[str, memoryview]:
    """The bytes of contents, which the caller has room for. Raises CorruptDataError and its kinds."""
    steps = [pull_step(manifest.contents, digest, {}) for digest in dict.fromkeys(digests)]
    found = {step.content.digest: np.empty(step.content.size, np.uint8).data for step in steps}

    def room(step: PullStep, offset: int, length: int) -> memoryview:
        return found[step.content.digest][offset : offset + length]

    decoder = Decoder(
        store,
        manifest.contents,
        manifest.window_bytes,
        replace(options, threads=threads),
        content_names(manifest.files),
    )
    decoder.run([step for step in steps if step.content.size], None, room=room)
    return found
