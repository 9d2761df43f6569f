"""Versions go: first the registry bars them, then a marker takes the manifest's place, then the registry forgets them.

Whoever gives a version a name while it goes is either seen in time, and the version stays, or refused by the registry.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from textnlp_fast.errors import ConflictError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.audit import AuditPolicy, audited
from textnlp_fast.storage.audit.actor import claimed_actor
from textnlp_fast.storage.garbage.retention import Verdict
from textnlp_fast.storage.manifest import files_digest
from textnlp_fast.storage.publication import OvertakenError, Publication
from textnlp_fast.storage.registry.changes import finish_removal, retire
from textnlp_fast.storage.registry.changing import Edit, Event, change_references
from textnlp_fast.storage.registry.grammar import MAX_ACTOR_CHARS
from textnlp_fast.storage.registry.references import read_references
from textnlp_fast.storage.registry.rules import Rules, read_rules, under_rules
from textnlp_fast.storage.registry.state import References
from textnlp_fast.storage.version_manager import VersionManager

__all__ = ["remove_versions", "settle_removals"]


def remove_versions(
    store: ObjectStore, versions: VersionManager, verdicts: Sequence[Verdict], alive: Callable[[], None]
) -> dict[str, str]:
    """Removes the versions that go. Those that came into use meanwhile stay, and are returned with the reason."""
    rules = read_rules(store)
    going: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.goes:
            going.setdefault(verdict.facts.model, []).append(verdict.facts.version)
    spared: dict[str, str] = {}
    for model, chosen in going.items():
        alive()
        barred = _bar(store, model, chosen, rules, spared)
        gone: list[str] = []
        for version in barred:
            alive()
            reason = _remove_one(store, versions, model, version, rules)
            if reason:
                spared[f"{model}@{version}"] = reason
            else:
                gone.append(version)
        _forget(store, model, gone)
        settle_removals(store, versions, [model])
    return spared


def settle_removals(store: ObjectStore, versions: VersionManager, models: Iterable[str]) -> None:
    """Ends removals that were begun and not finished: what is gone is forgotten, what is there may be named again."""
    for model in models:
        retiring = read_references(store, model).retiring
        if not retiring:
            continue
        there = {version for version in retiring if versions.state(model, version)[0] is not None}
        _forget(store, model, retiring - there)
        if there:
            change_references(store, model, partial(_let_stay, versions=there), by=_actor())


def _forget(store: ObjectStore, model: str, gone: Collection[str]) -> None:
    if gone:
        change_references(store, model, lambda now: finish_removal(now, gone), by=_actor())


def _let_stay(now: References, versions: Collection[str]) -> Edit:
    staying = sorted(now.retiring & set(versions))
    events = tuple(Event("stay", {"version": version}) for version in staying)
    return Edit(replace(now, retiring=now.retiring - set(staying)), events)


def _bar(
    store: ObjectStore, model: str, chosen: Sequence[str], rules: Rules, spared: dict[str, str]
) -> list[str]:
    """Makes the registry refuse these versions, but for those that it has a reason to keep by now."""

    def decide(now: References) -> Edit:
        kept = under_rules(now, rules).kept_versions()
        free = [version for version in chosen if version not in kept]
        return retire(under_rules(now, rules), free) if free else Edit(now, ())

    after = change_references(store, model, decide, by=_actor()).after
    kept = under_rules(after, rules).kept_versions()
    spared.update((f"{model}@{version}", ", ".join(kept[version])) for version in chosen if version in kept)
    return [version for version in chosen if version not in kept]


def _remove_one(store: ObjectStore, versions: VersionManager, model: str, version: str, rules: Rules) -> str:
    """Why the version stayed; empty if it is gone."""
    manifest, state = versions.state(model, version)
    if manifest is None:
        return ""
    try:
        with audited(store, action="gc.delete", model=model, version=version, shows=True):
            versions.retire(model, version, state, files_digest(manifest.files))
    except ConflictError:
        return "it changed meanwhile"
    # Only a collector that slept past its lease, while another lifted the bar, can find a name now.
    reasons = under_rules(read_references(store, model), rules).kept_versions().get(version)
    if not reasons:
        return ""
    publication = Publication(store, versions, model, version)
    with suppress(OvertakenError, ConflictError):  # another push put it back, or it was deleted again
        publication.publish(replace(manifest, write_id=secrets.token_hex(16)), action="gc.restore")
    return ", ".join(reasons)


def _actor() -> str:
    return AuditPolicy.current().actor or claimed_actor()["name"][:MAX_ACTOR_CHARS].strip() or "unknown"
