"""How the registry's verbs tell what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from textnlp_fast.cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from textnlp_fast.storage.registry.state import Change

__all__ = ["change_document", "print_changes", "print_history", "sentence"]


def print_changes(changes: Sequence[Change], *, as_json: bool) -> None:
    """A line for each change, or that there was nothing to do."""
    if as_json:
        print_json([change_document(change) for change in changes])
        return
    for change in changes:
        print_line(sentence(change))
    if not changes:
        print_line("nothing to do: it is so already")


def print_history(changes: Sequence[Change], *, as_json: bool) -> None:
    """Changes as a table, in their order."""
    if as_json:
        print_json([change_document(change) for change in changes])
        return
    rows = [[change.at, change.by, sentence(change)] for change in changes]
    print_table(["date", "by", "what"], rows, left=3, yields=2)


def change_document(change: Change) -> dict[str, Any]:
    """A change for scripts."""
    return {
        "number": change.number,
        "at": change.at,
        "by": change.by,
        "action": change.action,
        "detail": dict(change.detail),
    }


def sentence(change: Change) -> str:
    """What a change did, for people."""
    detail = change.detail
    version, before = detail.get("version", ""), detail.get("from")
    was = f", was {before}" if before else ""
    note = f" ({detail['note']})" if detail.get("note") else ""
    match change.action:
        case "publish":
            text = f"{version} published"
        case "stage":
            text = f"{version} moved from {before} to {detail.get('to')}"
            if detail.get("replaced_by"):
                text += f", for {detail['replaced_by']} took its place"
        case "alias.set":
            protection = {"yes": ", protected", "no": ", no longer protected"}.get(
                detail.get("protected", ""), ""
            )
            text = f"alias {detail.get('alias')} is {version}{was}{protection}"
        case "alias.delete":
            text = f"alias {detail.get('alias')} removed{was}"
        case "tag.set":
            text = f"{version or 'model'} tagged {detail.get('key')}={detail.get('value')}"
        case "tag.delete":
            text = f"tag {detail.get('key')} of {version or 'the model'} removed"
        case "pin" | "unpin":
            text = f"{version} {change.action}ned"
        case "deploy":
            state = f", {detail['state']}" if detail.get("state") else ""
            text = f"{detail.get('target')} serves {version}{was}{state}"
        case "deploy.rollback":
            text = f"{detail.get('target')} rolled back to {version}{was}"
        case "deploy.state":
            text = f"{detail.get('target')} with {version} is {detail.get('state') or 'in no state'}"
        case "deploy.end":
            text = f"{detail.get('target')} serves nothing any more{was}"
        case _:
            text = " ".join([change.action, *(f"{key}={value}" for key, value in detail.items())])
            note = ""
    return text + note
