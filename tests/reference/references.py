"""A slow reader of a registry's documents in a folder, written from docs/format.md ("References", "Rules")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reference.patch import canonical, digest_of
from reference.repository import read_document

__all__ = ["read_history", "read_references", "read_rules", "replayed"]


def read_references(root: Path, model: str) -> dict[str, Any]:
    document = read_document(root / "models" / model / "refs.json")
    assert document["format"] == 1
    assert document["model"] == model
    assert document["write_id"] == document["history"][-1]["id"]
    assert document["revision"] == document["history"][-1]["number"]
    return document


def read_history(root: Path, model: str) -> list[dict[str, Any]]:
    """Every change there ever was, the oldest first."""
    document = read_references(root, model)
    changes, archive = list(document["history"]), document["archive"]
    while archive is not None:
        last, digest = archive
        block = read_document(root / "models" / model / "history" / f"{last:012d}-{digest}.json")
        assert digest_of(canonical(block)) == digest
        assert (block["format"], block["model"]) == (1, model)
        assert block["changes"][-1]["number"] == last
        changes = block["changes"] + changes
        archive = block["previous"]
    assert [change["number"] for change in changes] == list(range(1, document["revision"] + 1))
    return changes


def read_rules(root: Path) -> dict[str, Any]:
    document = read_document(root / "registry.json")
    assert document["format"] == 1
    return document


def replayed(changes: list[dict[str, Any]]) -> dict[str, Any]:
    """What the changes, one after the other, make of nothing: the document's five parts without its tags' order."""
    versions: dict[str, dict[str, Any]] = {}
    model_tags: dict[str, str] = {}
    aliases: dict[str, dict[str, Any]] = {}
    served: dict[str, list[str]] = {}
    retiring: set[str] = set()
    for change in changes:
        detail = change["detail"]
        version = detail.get("version", "")
        state = versions.setdefault(version, {}) if version else {}
        match change["action"]:
            case "stage":
                state["stage"] = detail["to"]
                if detail["to"] == "draft":
                    del state["stage"]
            case "alias.set":
                kept = aliases.get(detail["alias"], {}).get("protected", False)
                protected = {"yes": True, "no": False}.get(detail.get("protected", ""), kept)
                aliases[detail["alias"]] = {"version": version, "protected": protected}
            case "alias.delete":
                del aliases[detail["alias"]]
            case "tag.set":
                (state.setdefault("tags", {}) if version else model_tags)[detail["key"]] = detail["value"]
            case "tag.delete":
                del (state["tags"] if version else model_tags)[detail["key"]]
            case "pin":
                state["pinned"] = detail.get("note", "")
            case "unpin":
                del state["pinned"]
            case "deploy":
                stack = served.setdefault(detail["target"], [])
                if not stack or stack[-1] != version:
                    stack.append(version)
            case "deploy.rollback":
                stack = served[detail["target"]]
                stack.pop()
                while stack[-1] != version:
                    stack.pop()
            case "deploy.end":
                del served[detail["target"]]
            case "retire":
                retiring.add(version)
            case "removed":
                retiring.remove(version)
                versions.pop(version)
            case "publish" | "deploy.state":
                pass
            case action:
                raise AssertionError(f"no such action: {action}")
    return {
        "versions": without_nothing(versions),
        "tags": model_tags,
        "aliases": aliases,
        "serves": {target: stack[::-1] for target, stack in served.items()},
        "retiring": sorted(retiring),
    }


def without_nothing(versions: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    said = {
        version: {key: value for key, value in state.items() if value != {}}
        for version, state in versions.items()
    }
    return {version: state for version, state in said.items() if state}
