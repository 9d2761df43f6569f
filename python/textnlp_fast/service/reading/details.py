"""What is read of one version when somebody looks at it: files, README, origins, tensors. All of it blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from textnlp_fast.contents.windows import DATA_ERRORS
from textnlp_fast.delta.recipe import Whole
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.service.reading.rows import version_fields
from textnlp_fast.service.reading.snapshot import ModelView
from textnlp_fast.service.version_schemas import FileRow, LineageRow, TensorRow, VersionDetail
from textnlp_fast.storage import Repository
from textnlp_fast.storage.manifest import Content, depth_of
from textnlp_fast.storage.registry.cards import read_card
from textnlp_fast.storage.registry.lineage import walk

__all__ = ["read_detail", "read_tensor_rows"]

_MOST_CARD_CHARS: Final = 256 << 10
_MOST_METADATA: Final = 1000


def read_detail(repository: Repository, view: ModelView, version: str) -> VersionDetail:
    """A version in detail. A README that cannot be read is left out; what else is harmed raises CorruptDataError."""
    manifest = repository.manifest(view.name, version)
    text: str | None = None
    metadata: Mapping[str, Any] = {}
    try:
        card = read_card(repository, view.name, version)
        if card is not None:
            text, metadata = card.text[:_MOST_CARD_CHARS], card.metadata
    except (
        InvalidInputError,
        *DATA_ERRORS,
    ) as error:  # too large, or harmed: the version is shown all the same
        metadata = {"problem": str(error.args[0])}
    lineage = [
        LineageRow(name=each.name, version=each.version, relation=each.relation, of=each.of, depth=each.depth)
        for each in walk(repository, view.name, version)
    ]
    return VersionDetail(
        **version_fields(view, view.versions[version]),
        model=view.name,
        files=[
            FileRow(path=entry.path, size_bytes=entry.size, digest=entry.digest) for entry in manifest.files
        ],
        card=text,
        card_metadata=dict(list(metadata.items())[:_MOST_METADATA]),
        lineage=lineage,
        metadata=dict(manifest.metadata),
    )


def read_tensor_rows(repository: Repository, name: str, version: str) -> tuple[TensorRow, ...]:
    """Every tensor of a version, in the order of its files. Reads the files' headers."""
    manifest = repository.manifest(name, version)
    headers = repository.headers(manifest)

    def rows() -> Iterator[TensorRow]:
        for entry in manifest.files:
            if entry.kind != "safetensors":
                continue
            for tensor_name, digest in zip(entry.names, entry.parts[1:], strict=True):
                tensor, content = headers[entry.path][tensor_name], manifest.contents[digest]
                yield TensorRow(
                    name=tensor_name,
                    dtype=tensor.dtype,
                    shape=list(tensor.shape),
                    size_bytes=content.size,
                    stored_bytes=content.coded_bytes,
                    coding=_coding(content),
                    base=content.base.digest if isinstance(content.base, Whole) else None,
                    depth=depth_of(manifest.contents, digest),
                    file=entry.path,
                )

    return tuple(rows())


def _coding(content: Content) -> Literal["raw", "alone", "delta", "recipe"]:
    if content.codec == "raw":
        return "raw"
    if content.base is None:
        return "alone"
    return "delta" if isinstance(content.base, Whole) else "recipe"
