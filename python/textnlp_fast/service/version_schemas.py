"""The documents of versions and of what lies between two: lists, details, graphs, differences. Sizes in bytes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from textnlp_fast.service.schemas import Bytes, Count, Cursor, Document, Time

__all__ = [
    "DiffCell",
    "DiffDocument",
    "DiffGroup",
    "DiffSummary",
    "DiffTensor",
    "FileRow",
    "GraphDocument",
    "GraphEdge",
    "LineageRow",
    "ModelPage",
    "ModelRow",
    "TensorPage",
    "TensorRow",
    "VersionDetail",
    "VersionPage",
    "VersionRow",
]

# --- models and versions ------------------------------------------------------------------------------------


class ModelRow(Document):
    """A model: how many versions it has, what they are called, what they take."""

    name: str
    versions: Count
    latest: str = Field(description="The highest version that is no pre-release, if there is one")
    stages: dict[str, str] = Field(description="The highest version in each stage")
    aliases: dict[str, str]
    tags: dict[str, str] = Field(description="Of the model itself")
    stored_bytes: Bytes
    logical_bytes: Bytes
    updated_at: Time | None = Field(description="When the youngest version or the last change was made")


class ModelPage(Document):
    items: list[ModelRow]
    next_cursor: Cursor = None


class VersionFields(Document):
    """What both a row and a version in detail say."""

    version: str
    parent: str | None = Field(description="The version before it; NAME@VERSION where it is another model's")
    stage: str
    aliases: list[str]
    tags: dict[str, str]
    pinned: bool
    pin_reason: str
    created_at: Time | None
    author: str | None
    note: str
    logical_bytes: Bytes
    stored_bytes: Bytes = Field(description="What this version added to the repository")
    tensors: Count
    base_version: str | None = Field(description="What it is coded against; NAME@VERSION of another model's")
    reason: str = Field(description="Why it is coded against that")
    signed: bool = Field(description="Whether a signature of these files is there; `verify` says whose")
    targets: list[str] = Field(description="What serves it")
    problem: str | None = Field(description="Why its manifest cannot be read; sizes are 0 then")


class VersionRow(VersionFields):
    """A version: where it stands, what it is called, what it took."""

    files: Count


class VersionPage(Document):
    items: list[VersionRow]
    next_cursor: Cursor = None


class FileRow(Document):
    path: str
    size_bytes: Bytes
    digest: str = Field(description="BLAKE3, in hex")


class LineageRow(Document):
    """What a version comes from. `version` is null for something elsewhere, `of` what says so."""

    name: str
    version: str | None
    relation: str
    of: str
    depth: Count


class VersionDetail(VersionFields):
    """A version with its files, its README and where it comes from."""

    model: str
    files: list[FileRow]
    card: str | None = Field(description="README.md as Markdown, without its front matter; at most 256 KiB")
    card_metadata: dict[str, Any]
    lineage: list[LineageRow]
    metadata: dict[str, str]


class TensorRow(Document):
    name: str
    dtype: str
    shape: list[Count]
    size_bytes: Bytes
    stored_bytes: Bytes = Field(
        description="What its bytes take in the repository, whoever pushed them first"
    )
    coding: Literal["raw", "alone", "delta", "recipe"]
    base: str | None = Field(description="The digest of the content that its bytes are coded against")
    depth: Count = Field(description="Contents that have to be decoded before it")
    file: str


class TensorPage(Document):
    items: list[TensorRow]
    next_cursor: Cursor = None


class GraphEdge(Document):
    """From what was there before to what came of it."""

    from_: str = Field(alias="from")
    to: str
    kind: Literal["parent", "base"]


class GraphDocument(Document):
    nodes: list[VersionRow]
    edges: list[GraphEdge]
    external: list[str] = Field(description="NAME@VERSION of other models that edges name")


# --- differences --------------------------------------------------------------------------------------------


class DiffSummary(Document):
    old: str
    new: str
    tensors: Count
    changed_tensors: Count
    added: Count
    removed: Count
    elements: Count
    changed_fraction: float | None
    norm: float | None = Field(description="L2 norm of the change")
    relative_norm: float | None = Field(description="That over the norm of the old weights")
    logical_bytes: Bytes
    stored_bytes: Bytes


class DiffGroup(Document):
    """A row (layer) or column (part) of the heat map."""

    name: str
    tensors: Count
    changed_tensors: Count
    changed_fraction: float | None
    norm: float | None
    stored_bytes: Bytes
    logical_bytes: Bytes


class DiffCell(Document):
    """Where a layer and a part meet."""

    layer: str
    part: str
    changed_fraction: float | None
    norm: float | None
    relative_norm: float | None
    stored_bytes: Bytes
    logical_bytes: Bytes
    strategy: str | None
    tensors: Count


class DiffTensor(Document):
    name: str
    status: str
    layer: str
    part: str
    changed_fraction: float | None
    norm: float | None
    max_change: float | None
    stored_bytes: Bytes
    logical_bytes: Bytes
    strategy: str | None


class DiffDocument(Document):
    """What an update did to a model, as a heat map of layers by parts, and the tensors that changed most."""

    summary: DiffSummary
    layers: list[DiffGroup]
    parts: list[DiffGroup]
    cells: list[DiffCell]
    tensors: list[DiffTensor]
