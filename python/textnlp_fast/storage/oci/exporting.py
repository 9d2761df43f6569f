"""A version as an OCI artifact: a folder that registries' tools take, and container runtimes mount."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from textnlp_fast.contents.staging import disk_errors, staging_folder, sync_folder
from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.oci.layout import (
    Layer,
    config_document,
    index_document,
    manifest_document,
    parameters_text,
)
from textnlp_fast.storage.repository import Repository
from textnlp_fast.telemetry import operation
from textnlp_fast.tensors.architecture import parse_architecture

__all__ = ["OciReport", "export_oci"]

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_READ_BYTES: Final = 4 << 20
_MAX_CONFIG_BYTES: Final = 16 << 20
_PRECISIONS: Final = {
    "BF16": "bf16",
    "F16": "fp16",
    "F32": "fp32",
    "F8_E4M3": "fp8",
    "I8": "int8",
    "U8": "uint8",
}


@dataclass(frozen=True, slots=True)
class OciReport:
    """The layout at `path`: its manifest's digest, and how many layers and bytes it has."""

    path: str
    tag: str
    digest: str
    layers: int
    total_bytes: int


def export_oci(
    repository: Repository,
    name: str,
    version: str | None,
    output_dir: str | os.PathLike[str],
    *,
    tag: str | None = None,
    progress: ProgressCallback | None = None,
) -> OciReport:
    """Makes `output_dir` an OCI image layout with a version (None: the latest) as a ModelPack artifact.

    `tag` names it in the layout (None: the version). Nothing is there before all of it is, and the same version gives
    the same bytes. Raises InvalidInputError if something is there, and what a pull raises.
    """
    manifest = repository.trusted_manifest(name, version)
    tag = manifest.version if tag is None else tag
    if _TAG.fullmatch(tag) is None:
        raise InvalidInputError(f"{tag!r} is no tag", hint="Use letters, digits, '.', '_' and '-'.")
    output = Path(output_dir).expanduser().resolve()
    with (
        operation("export-oci", model=manifest.model, version=manifest.version, repository=repository.url),
        disk_errors(output),
    ):
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise InvalidInputError(
                f"{output} is not empty", hint="Name a directory that does not exist yet."
            )
        if output.exists():
            output.rmdir()
        with staging_folder(output) as staging:
            repository.pull(manifest.model, manifest.version, staging / "files", progress=progress)
            layout = staging / "layout"
            digest, layers = _build(repository, manifest, staging / "files", layout, tag)
            for folder in [layout, *(path for path in layout.rglob("*") if path.is_dir())]:
                sync_folder(folder)
            layout.rename(output)
            sync_folder(output.parent)
    return OciReport(str(output), tag, digest, len(layers), sum(layer.size for layer in layers))


def _build(
    repository: Repository, manifest: Manifest, files: Path, layout: Path, tag: str
) -> tuple[str, list[Layer]]:
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    descriptor, config = _described(repository, manifest, files)
    layers: list[Layer] = []
    for entry in sorted(manifest.files, key=lambda each: each.path):
        path = files / entry.path
        digest = _sha256(path)
        layers.append(Layer(entry.path, f"sha256:{digest}", entry.size))
        path.replace(blobs / digest)  # of two files with one content the second takes the first one's place
    config_blob = _put(blobs, config_document(descriptor, config, layers))
    annotations = {
        "org.opencontainers.image.created": manifest.created_at,
        "org.opencontainers.image.title": manifest.model,
        "org.opencontainers.image.version": manifest.version,
    }
    manifest_blob = _put(blobs, manifest_document(config_blob, layers, annotations))
    _write(layout / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    _write(layout / "index.json", index_document(manifest_blob, tag))
    return manifest_blob[0], layers


def _described(
    repository: Repository, manifest: Manifest, files: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of the model: who it is, and what it is made of."""
    descriptor: dict[str, Any] = {
        "createdAt": manifest.created_at,
        "name": manifest.model,
        "version": manifest.version,
    }
    if manifest.message:
        descriptor["description"] = manifest.message
    architecture = files / "config.json"
    if architecture.is_file() and architecture.stat().st_size <= _MAX_CONFIG_BYTES:
        family = parse_architecture(architecture.read_bytes()).model_type
        if family:
            descriptor["family"] = family
    sizes: Counter[str] = Counter()
    for tensors in repository.headers(manifest).values():
        for info in tensors.values():
            sizes[info.dtype] += math.prod(info.shape)
    config: dict[str, Any] = {"format": "safetensors"}
    if sizes:
        config["paramSize"] = parameters_text(sizes.total())
        most = sizes.most_common(1)[0][0]
        config["precision"] = _PRECISIONS.get(most, most.lower())
    return descriptor, config


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            hasher.update(data)
    return hasher.hexdigest()


def _put(blobs: Path, data: bytes) -> tuple[str, int]:
    digest = hashlib.sha256(data).hexdigest()
    _write(blobs / digest, data)
    return f"sha256:{digest}", len(data)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
