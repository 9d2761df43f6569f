"""A deployment in a line, and for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textnlp_fast.storage.registry.state import Deployment

__all__ = ["deployment_document", "deployment_line"]


def deployment_document(name: str, target: str, deployed: Deployment) -> dict[str, Any]:
    """A deployment for scripts."""
    return {
        "model": name,
        "target": target,
        "version": deployed.version,
        "since": deployed.since,
        "by": deployed.by,
        "state": deployed.state,
        "note": deployed.note,
        "previous": list(deployed.previous),
    }


def deployment_line(name: str, target: str, deployed: Deployment) -> str:
    """A deployment for people."""
    state = f", {deployed.state}" if deployed.state else ""
    before = f"; {deployed.previous[0]} before" if deployed.previous else ""
    return (
        f"{target} serves {name}@{deployed.version} since {deployed.since}, by {deployed.by}{state}{before}"
    )
