"""The stored safetensors headers of a version: what its files say about their tensors.

A content is told by its digest alone, and tensors of different dtypes may share their bytes: what a tensor is
stands in the header of its file and nowhere else.
"""

from __future__ import annotations

from textnlp_fast.contents.entries import content_names
from textnlp_fast.errors import CorruptDataError, SafetensorsError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.decoding import Decoder
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.planning import PullStep, pull_step
from textnlp_fast.tensors import TensorInfo, parse_header

__all__ = ["read_dtypes", "read_tensors"]

# More than the format allows a header to have.
_MAX_HEADER_BYTES = 128 << 20


def read_dtypes(
    store: ObjectStore, manifest: Manifest, options: TransferOptions
) -> dict[str, dict[str, str]]:
    """The dtypes that the headers give, by file path and tensor name; raises what `read_tensors` does."""
    return {
        path: {name: tensor.dtype for name, tensor in tensors.items()}
        for path, tensors in read_tensors(store, manifest, options).items()
    }


def read_tensors(
    store: ObjectStore, manifest: Manifest, options: TransferOptions
) -> dict[str, dict[str, TensorInfo]]:
    """What the headers say of each tensor, by file path and tensor name.

    Raises CorruptDataError if a header is damaged or does not agree with the manifest.
    """
    files = [entry for entry in manifest.files if entry.kind == "safetensors"]
    headers: dict[str, bytearray] = {}
    steps: list[PullStep] = []
    for digest in dict.fromkeys(entry.parts[0] for entry in files):
        content = manifest.contents[digest]
        if content.size > _MAX_HEADER_BYTES:
            raise CorruptDataError(f"content {digest} is no header: it has {content.size} bytes")
        headers[digest] = bytearray(content.size)
        steps.append(pull_step(manifest.contents, digest, {}))

    def sink(step: PullStep, offset: int, data: memoryview) -> None:
        headers[step.content.digest][offset : offset + len(data)] = data

    names = content_names(manifest.files)
    Decoder(store, manifest.contents, manifest.window_bytes, options, names).run(steps, sink)
    tensors: dict[str, dict[str, TensorInfo]] = {}
    for entry in files:
        try:
            header = parse_header(bytes(headers[entry.parts[0]]), entry.size)
        except SafetensorsError as error:
            raise CorruptDataError(f"the header of {entry.path!r}: {error.args[0]}") from error
        found = {tensor.name: tensor for tensor in header.tensors}
        if found.keys() != set(entry.names):
            raise CorruptDataError(f"the header of {entry.path!r} names other tensors than the manifest")
        tensors[entry.path] = found
    return tensors
