"""What an OCI image layout says of a model, as the ModelPack specification has it. Pure.

Sources: the OCI image specification 1.1 (image layout, index, manifest, descriptors), and ModelPack 0.0.7
(https://github.com/modelpack/model-spec: artifact type, media types, configuration, annotations). Layers are raw files:
weights do not get smaller by what archives do, and a file as it is can be read where it lies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "INDEX_MEDIA_TYPE",
    "Layer",
    "config_document",
    "index_document",
    "manifest_document",
    "media_type_of",
    "parameters_text",
]

INDEX_MEDIA_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_ARTIFACT: Final = "application/vnd.cncf.model.manifest.v1+json"
_CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
_PREFIX: Final = "application/vnd.cncf.model"
_DOCUMENTS: Final = (".md", ".rst", ".pdf", ".png", ".jpg", ".jpeg", ".svg")
_CODE: Final = (".py", ".sh", ".ipynb", ".cu", ".cpp", ".h")
_LEGAL: Final = ("license", "notice", "use_policy", "copying")


@dataclass(frozen=True, slots=True)
class Layer:
    """A file of the model: `digest` is `sha256:` and its hex digits, `size` in bytes."""

    path: str
    digest: str
    size: int


def media_type_of(path: str) -> str:
    """What kind of layer a file is: weights, their configuration, documentation or code."""
    name = path.rpartition("/")[2].lower()
    if name.endswith(".safetensors"):
        kind = "weight"
    elif name.endswith(_DOCUMENTS) or name.startswith(_LEGAL):
        kind = "doc"
    elif name.endswith(_CODE):
        kind = "code"
    else:
        kind = "weight.config"
    return f"{_PREFIX}.{kind}.v1.raw"


def parameters_text(count: int) -> str:
    """A number of parameters as the configuration writes it: 6.7b."""
    for letter, unit in (("t", 10**12), ("b", 10**9), ("m", 10**6), ("k", 10**3)):
        if count >= unit:
            text = f"{count / unit:.1f}"
            return text.removesuffix(".0") + letter
    return f"{count / 1000:.1f}k"


def config_document(
    descriptor: Mapping[str, Any], config: Mapping[str, Any], layers: Sequence[Layer]
) -> bytes:
    """The model's configuration."""
    return _json(
        {
            "descriptor": dict(descriptor),
            "config": dict(config),
            # Layers are not compressed: each is its own content.
            "modelfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
    )


def manifest_document(
    config: tuple[str, int], layers: Sequence[Layer], annotations: Mapping[str, str]
) -> bytes:
    """The manifest; `config` are digest and size of the configuration."""
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": _ARTIFACT,
            "config": {"mediaType": _CONFIG, "digest": config[0], "size": config[1]},
            "layers": [
                {
                    "mediaType": media_type_of(layer.path),
                    "digest": layer.digest,
                    "size": layer.size,
                    "annotations": {
                        "org.cncf.model.filepath": layer.path,
                        "org.opencontainers.image.title": layer.path,
                    },
                }
                for layer in layers
            ],
            "annotations": dict(annotations),
        }
    )


def index_document(manifest: tuple[str, int], tag: str) -> bytes:
    """The layout's `index.json`, in which `tag` is the manifest of that digest and size."""
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": INDEX_MEDIA_TYPE,
            "manifests": [
                {
                    "mediaType": _MANIFEST,
                    "artifactType": _ARTIFACT,
                    "digest": manifest[0],
                    "size": manifest[1],
                    "annotations": {"org.opencontainers.image.ref.name": tag},
                }
            ],
        }
    )


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
