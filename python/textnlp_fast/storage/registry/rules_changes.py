"""Changes of the rules: what they must not lose, what differs, and who made them when, as the audit log tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from textnlp_fast.errors import ConflictError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.audit import AuditLog, AuditRecord, Filter, newest
from textnlp_fast.storage.registry.references import read_versioned
from textnlp_fast.storage.registry.rules import Rules, rules_document

__all__ = [
    "RULES_ACTION",
    "RulesChange",
    "difference",
    "refuse_lost_stages",
    "rules_detail",
    "rules_digest",
    "rules_history",
]

RULES_ACTION: Final = "rules.set"
_MOST_LINES: Final = 64
_MOST_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class RulesChange:
    """An attempt to set rules. `outcome` is "done", "failed", or "intended" where nobody recorded how it ended."""

    record: int
    time: str
    actor: str
    outcome: str
    before: str
    after: str
    changes: tuple[str, ...]


def refuse_lost_stages(store: ObjectStore, models: Iterable[str], rules: Rules) -> None:
    """Raises ConflictError while versions of the models are in stages that these rules do not have."""
    kept = {stage.name for stage in rules.lifecycle.stages}
    for name in models:
        for version, state in read_versioned(store, name)[0].versions.items():
            if state.stage is not None and state.stage not in kept:
                raise ConflictError(
                    f"{name}@{version} is in stage {state.stage}, which the new rules do not have",
                    hint="Move it first, or keep the stage.",
                )


def rules_digest(rules: Rules) -> str:
    """BLAKE3 of what a person chose of the rules, as compact JSON with sorted keys."""
    return blake3_hex(json.dumps(rules_document(rules), sort_keys=True, separators=(",", ":")).encode())


def rules_detail(old: Rules, new: Rules) -> dict[str, Any]:
    """What the audit log says of a change of the rules. Where webhooks lead to is not for its readers."""
    return {
        "before": rules_digest(old),
        "after": rules_digest(new),
        "revision": old.revision + 1,
        "changes": difference(old, new),
    }


def difference(old: Rules, new: Rules) -> list[str]:
    """A line for each part of the rules that differs: what it was, and what it is."""
    before, after = _parts(old), _parts(new)
    lines = [
        _shortened(f"{part}: {before.get(part, 'none')} -> {after.get(part, 'none')}")
        for part in sorted(before.keys() | after.keys())
        if before.get(part) != after.get(part)
    ]
    hooks_before, hooks_after = dict(old.webhooks), dict(new.webhooks)
    for name in sorted(hooks_before.keys() | hooks_after.keys()):
        if name not in hooks_after:
            lines.append(f"webhook {name}: gone")
        elif name not in hooks_before:
            lines.append(f"webhook {name}: new")
        elif hooks_before[name] != hooks_after[name]:
            lines.append(f"webhook {name}: changed")
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more"]
    return lines


def rules_history(store: ObjectStore, limit: int) -> Iterator[RulesChange]:
    """At most `limit` attempts to set the rules, the newest first; none where nothing is recorded."""
    ends: dict[str, str] = {}
    found = 0
    # Of each attempt there are two records at most: that it was intended, and how it ended.
    for record in newest(AuditLog(store), Filter(action=RULES_ACTION), 2 * limit):
        if record.outcome != "intended":
            ends[record.operation] = record.outcome
        elif found < limit:
            found += 1
            yield _change(record, ends.get(record.operation, "intended"))


def _change(record: AuditRecord, outcome: str) -> RulesChange:
    changes = record.detail.get("changes")
    return RulesChange(
        record.sequence,
        record.time,
        str(record.actor.get("name", "?")),
        outcome,
        str(record.detail.get("before", "")),
        str(record.detail.get("after", "")),
        tuple(map(str, changes)) if isinstance(changes, list) else (),
    )


def _parts(rules: Rules) -> dict[str, str]:
    document = rules_document(rules)
    parts = {f"role {role}": ", ".join(patterns) or "nobody" for role, patterns in document["roles"].items()}
    parts["administer"] = rules.administer or "who has every role"
    parts["protected aliases"] = document["protected_aliases"] or "everybody"
    for place, stage in enumerate(document["lifecycle"]["stages"]):
        facts = [f"number {place + 1}"]
        facts += [word for word in ("keep", "final") if stage[word]]
        facts += [f"replaces to {stage['replaces_to']}"] if stage["replaces_to"] else []
        parts[f"stage {stage['name']}"] = ", ".join(facts)
    for move in document["lifecycle"]["moves"]:
        parts[f"move {move['from']} to {move['to']}"] = move["role"] or "everybody"
    return parts


def _shortened(line: str) -> str:
    return line if len(line) <= _MOST_CHARS else f"{line[: _MOST_CHARS - 3]}..."
