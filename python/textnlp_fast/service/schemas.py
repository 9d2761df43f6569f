"""The documents of the HTTP API's storage side: what requests take and answers hold. Sizes in bytes, times RFC 3339."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AliasBody",
    "AliasRow",
    "AuditPage",
    "AuditReportDocument",
    "AuditRow",
    "ChangePage",
    "ChangeRow",
    "DeployBody",
    "DeploymentPage",
    "DeploymentRow",
    "DeploymentStateBody",
    "DiffCell",
    "DiffDocument",
    "DiffGroup",
    "DiffSummary",
    "DiffTensor",
    "FileRow",
    "GraphDocument",
    "GraphEdge",
    "Health",
    "LineageRow",
    "Me",
    "ModelPage",
    "ModelRow",
    "PinBody",
    "Problem",
    "Readiness",
    "RollbackBody",
    "StageBody",
    "StorageDocument",
    "StoragePoint",
    "TensorPage",
    "TensorRow",
    "VersionDetail",
    "VersionPage",
    "VersionRow",
]

Bytes = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Time = Annotated[str, Field(examples=["2026-01-31T12:00:00Z"])]
Note = Annotated[str, Field(max_length=500)]
Cursor = Annotated[
    str | None, Field(description="Give it as `cursor` for the items that follow; null: none do")
]
Selector = Annotated[
    str,
    Field(
        min_length=1,
        max_length=160,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+:_-]*$",
        description="A version, an alias, `stage:NAME` or `latest`",
        examples=["1.2.0"],
    ),
]


class Document(BaseModel):
    """A document of an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Body(BaseModel):
    """A document of a request; what it does not know it refuses."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Problem(Document):
    """An error (RFC 9457). `code` is its kind, `hint` what to do next."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""
    code: str
    errors: list[dict[str, str]] | None = Field(
        default=None, description="Of a malformed request: what, where"
    )

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:textnlp-fast:problem:version-not-found",
                    "title": "Version not found",
                    "status": 404,
                    "detail": "tiny-llama has no version 9.9.9",
                    "hint": "It has: 1.0.0, 1.1.0.",
                    "code": "VersionNotFound",
                }
            ]
        },
    )


class Me(Document):
    """Who asks, as the service sees it."""

    subject: str
    role: str
    permissions: list[str]


class Health(Document):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Document):
    """Whether the repository can be read."""

    ready: bool
    detail: str


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


# --- changes ------------------------------------------------------------------------------------------------


class ChangeRow(Document):
    """One change of what is said of a model's versions."""

    number: Count
    at: Time
    actor: str
    kind: str
    version: str | None
    detail: dict[str, str]


class ChangePage(Document):
    items: list[ChangeRow]
    next_cursor: Cursor = None


class StageBody(Body):
    stage: str = Field(max_length=32, pattern=r"^[A-Za-z][A-Za-z0-9-]*$", examples=["production"])
    note: Note = ""


class AliasBody(Body):
    version: Selector
    expected: Selector | None = Field(
        default=None, description="What it must mean now, else nothing changes (409)"
    )
    protect: bool | None = None
    move_protected: bool = False
    note: Note = ""


class AliasRow(Document):
    alias: str
    version: str
    protected: bool


class PinBody(Body):
    reason: Note = ""


# --- deployments --------------------------------------------------------------------------------------------


class DeploymentRow(Document):
    """Which version a target serves. `previous` are those before, the last one first."""

    model: str
    target: str
    version: str
    state: str
    since: Time
    by: str
    note: str
    previous: list[str]


class DeploymentPage(Document):
    items: list[DeploymentRow]
    next_cursor: Cursor = None


class DeployBody(Body):
    version: Selector
    state: Note = ""
    note: Note = ""
    expected: Selector | None = Field(
        default=None, description="What it must serve now, else nothing changes (409)"
    )


class RollbackBody(Body):
    to: Selector | None = Field(default=None, description="An earlier version; by default the one before")
    note: Note = ""


class DeploymentStateBody(Body):
    state: Note
    note: Note | None = None


# --- the whole repository -----------------------------------------------------------------------------------


class StoragePoint(Document):
    """The repository's sizes once a version had come; both add up."""

    at: Time
    model: str
    version: str
    logical_bytes: Bytes
    stored_bytes: Bytes


class StorageDocument(Document):
    models: Count
    versions: Count
    logical_bytes: Bytes
    stored_bytes: Bytes
    saved_bytes: Bytes
    points: list[StoragePoint] = Field(
        description="In the order of time; evenly thinned where there are many"
    )


class AuditRow(Document):
    seq: Count
    at: Time | None
    actor: str
    verb: str
    subject: str | None
    outcome: Literal["intended", "done", "failed", "unreadable"]
    detail: dict[str, Any]


class AuditPage(Document):
    items: list[AuditRow]
    next_cursor: Cursor = None


class AuditProblemRow(Document):
    kind: str
    detail: str
    seq: Count | None


class AuditReportDocument(Document):
    ok: bool
    records: Count
    proven: Count
    unproven_tail: Count
    versions: Count
    gone: list[str]
    problem_count: Count
    problems: list[AuditProblemRow]
