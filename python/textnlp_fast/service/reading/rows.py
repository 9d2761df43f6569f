"""Views as the rows of the API's documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textnlp_fast.service.reading.facts import VersionFacts
from textnlp_fast.service.reading.snapshot import ModelView
from textnlp_fast.service.schemas import ChangeRow, DeploymentRow
from textnlp_fast.service.version_schemas import GraphDocument, GraphEdge, ModelRow, VersionRow
from textnlp_fast.storage.registry.state import Change, Deployment

__all__ = [
    "change_row",
    "deployment_row",
    "graph_of",
    "model_row",
    "version_fields",
    "version_row",
    "version_rows",
]


def model_row(view: ModelView) -> ModelRow:
    """A model as lists show it."""
    return ModelRow(
        name=view.name,
        versions=len(view.versions),
        latest=view.latest,
        stages=view.stages,
        aliases={name: alias.version for name, alias in sorted(view.references.aliases.items())},
        tags=dict(view.references.tags),
        stored_bytes=view.stored_bytes,
        logical_bytes=view.logical_bytes,
        updated_at=view.updated_at,
    )


def version_fields(view: ModelView, facts: VersionFacts) -> dict[str, Any]:
    """What rows and details say of a version alike."""
    references = view.references
    state = references.state_of(facts.version)
    return {
        "version": facts.version,
        "parent": _other(view.name, facts.parent),
        "stage": references.stage_of(facts.version),
        "aliases": references.aliases_of(facts.version),
        "tags": dict(state.tags),
        "pinned": state.pinned is not None,
        "pin_reason": state.pinned or "",
        "created_at": facts.created_at,
        "author": facts.author,
        "note": facts.note,
        "logical_bytes": facts.logical_bytes,
        "stored_bytes": facts.stored_bytes,
        "tensors": facts.tensors,
        "base_version": _other(view.name, facts.base),
        "reason": facts.reason,
        "signed": facts.version in view.signed,
        "targets": references.targets_of(facts.version),
        "problem": facts.problem or view.problem,
    }


def version_row(view: ModelView, facts: VersionFacts) -> VersionRow:
    """A version as lists show it."""
    return VersionRow(**version_fields(view, facts), files=facts.files)


def version_rows(view: ModelView, versions: Iterable[str]) -> list[VersionRow]:
    """Rows of these versions."""
    return [version_row(view, view.versions[version]) for version in versions]


def graph_of(view: ModelView) -> GraphDocument:
    """The versions of a model, and what each came from and is coded against."""
    edges: list[GraphEdge] = []
    external: dict[str, None] = {}
    for facts in view.versions.values():
        for kind, source in (("parent", facts.parent), ("base", facts.base)):
            name = _other(view.name, source)
            if name is None:
                continue
            if name not in view.versions:
                external[name] = None
            edges.append(GraphEdge.model_validate({"from": name, "to": facts.version, "kind": kind}))
    return GraphDocument(nodes=version_rows(view, view.versions), edges=edges, external=[*sorted(external)])


def deployment_row(model: str, target: str, deployment: Deployment) -> DeploymentRow:
    """What a target serves."""
    return DeploymentRow(
        model=model,
        target=target,
        version=deployment.version,
        state=deployment.state,
        since=deployment.since,
        by=deployment.by,
        note=deployment.note,
        previous=list(deployment.previous),
    )


def change_row(change: Change) -> ChangeRow:
    """A change as the history shows it."""
    return ChangeRow(
        number=change.number,
        at=change.at,
        actor=change.by,
        kind=change.action,
        version=change.detail.get("version"),
        detail=dict(change.detail),
    )


def _other(model: str, source: tuple[str, str] | None) -> str | None:
    """A version by its number where it is this model's, else as NAME@VERSION."""
    if source is None:
        return None
    return source[1] if source[0] == model else "@".join(source)
