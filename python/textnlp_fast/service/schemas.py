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
    "Health",
    "Me",
    "PinBody",
    "Problem",
    "Readiness",
    "RollbackBody",
    "StageBody",
    "StorageDocument",
    "StoragePoint",
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
