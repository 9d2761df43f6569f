"""Every change of a model's references, as a pure function: the state and what is wanted make an edit, or an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from textnlp_fast.errors import ConflictError, InvalidInputError, NotAllowedError, VersionNotFoundError
from textnlp_fast.storage.registry.changing import Edit, Event
from textnlp_fast.storage.registry.grammar import (
    check_alias,
    check_note,
    check_stage,
    check_tag_key,
    check_tag_value,
)
from textnlp_fast.storage.registry.rules import Rules
from textnlp_fast.storage.registry.state import Alias, References, VersionState

__all__ = [
    "check_not_retiring",
    "delete_alias",
    "finish_removal",
    "move_to_stage",
    "pin",
    "retire",
    "set_alias",
    "set_tags",
    "unpin",
]

_MOST_TAGS: Final = 64
_MOST_ALIASES: Final = 1000


def _nothing(references: References) -> Edit:
    return Edit(references, ())


def _detail(**texts: str | None) -> dict[str, str]:
    return {key.rstrip("_"): text for key, text in texts.items() if text}


def _with_state(references: References, version: str, state: VersionState) -> References:
    versions = {key: value for key, value in references.versions.items() if key != version}
    if not state.is_empty:
        versions[version] = state
    return replace(references, versions=versions)


def check_not_retiring(references: References, version: str) -> None:
    """Raises VersionNotFoundError if the version is about to be removed."""
    if version in references.retiring:
        raise VersionNotFoundError(
            f"{references.model}@{version} is being removed", hint="Push its files as a new version."
        )


# --- stages -------------------------------------------------------------------------------------------------


def move_to_stage(
    references: References, rules: Rules, version: str, stage: str, *, by: str, note: str = ""
) -> Edit:
    """Moves a version to a stage, and whoever is there already away, if the stage holds one version only.

    Raises InvalidInputError for a move that the lifecycle does not have, NotAllowedError for one that is not this
    actor's.
    """
    check_not_retiring(references, version)
    target = rules.lifecycle.stage(check_stage(stage))
    before = references.stage_of(version)
    if before == target.name:
        return _nothing(references)
    move = next((move for move in rules.lifecycle.moves_from(before) if move.target == target.name), None)
    if move is None:
        ways = ", ".join(move.target for move in rules.lifecycle.moves_from(before))
        raise InvalidInputError(
            f"{references.model}@{version} is in {before}, from where no move leads to {target.name}",
            hint=f"From {before} it may move to: {ways}." if ways else f"{before} is final.",
        )
    if not rules.may(by, move.role):
        raise NotAllowedError(
            f"moving a version from {before} to {target.name} is for those who have the role {move.role!r}; "
            f"{by} has not",
            hint=f"Ask one of: {', '.join(rules.roles.get(move.role or '', ()))}.",
        )
    events = [Event("stage", _detail(version=version, from_=before, to=target.name, note=check_note(note)))]
    after = references
    if target.replaces_to is not None:
        for other in sorted(references.versions):
            if other != version and references.stage_of(other) == target.name:
                after = _with_stage(after, other, target.replaces_to)
                detail = _detail(version=other, from_=target.name, to=target.replaces_to, replaced_by=version)
                events.append(Event("stage", detail))
    return Edit(_with_stage(after, version, target.name), tuple(events))


def _with_stage(references: References, version: str, stage: str) -> References:
    state = replace(references.state_of(version), stage=None if stage == references.initial_stage else stage)
    return _with_state(references, version, state)


# --- aliases ------------------------------------------------------------------------------------------------


def set_alias(
    references: References,
    rules: Rules,
    name: str,
    version: str,
    *,
    by: str,
    protect: bool | None = None,
    move_protected: bool = False,
    expected: str | None = None,
    note: str = "",
) -> Edit:
    """Makes an alias mean a version. `protect` None leaves it as protected as it is.

    A protected one moves only with `move_protected`, and only for those who may. `expected`: the version that it must
    mean now, else ConflictError.
    """
    check_not_retiring(references, version)
    before = references.aliases.get(check_alias(name))
    if expected is not None and (before is None or before.version != expected):
        means = f"means {before.version}" if before else "does not exist"
        raise ConflictError(f"alias {name} of {references.model} {means}, not {expected}", hint="Look again.")
    protected = protect if protect is not None else before is not None and before.protected
    after = Alias(version, protected)
    if before == after:
        return _nothing(references)
    if protected or (before is not None and before.protected):
        _check_protected(
            references, rules, name, by, asked=move_protected or before is None or not before.protected
        )
    if before is None and len(references.aliases) >= _MOST_ALIASES:
        raise InvalidInputError(f"{references.model} has {len(references.aliases)} aliases already")
    detail = _detail(
        alias=name, version=version, from_=before.version if before else None, note=check_note(note)
    )
    if protected != (before is not None and before.protected):
        detail["protected"] = "yes" if protected else "no"
    return Edit(
        replace(references, aliases={**references.aliases, name: after}), (Event("alias.set", detail),)
    )


def delete_alias(
    references: References, rules: Rules, name: str, *, by: str, move_protected: bool = False, note: str = ""
) -> Edit:
    """Removes an alias. Raises VersionNotFoundError if there is none, NotAllowedError as `set_alias`."""
    before = references.aliases.get(check_alias(name))
    if before is None:
        raise VersionNotFoundError(f"{references.model} has no alias {name!r}")
    if before.protected:
        _check_protected(references, rules, name, by, asked=move_protected)
    aliases = {key: value for key, value in references.aliases.items() if key != name}
    detail = _detail(alias=name, from_=before.version, note=check_note(note))
    return Edit(replace(references, aliases=aliases), (Event("alias.delete", detail),))


def _check_protected(references: References, rules: Rules, name: str, by: str, *, asked: bool) -> None:
    if not asked:
        raise NotAllowedError(
            f"alias {name} of {references.model} is protected",
            hint="If you mean it: --move-protected (move_protected=True in Python).",
        )
    if not rules.may(by, rules.protected_aliases):
        holders = ", ".join(rules.roles.get(rules.protected_aliases or "", ()))
        raise NotAllowedError(
            f"alias {name} of {references.model} is protected: it is for those who have the role "
            f"{rules.protected_aliases!r}; {by} has not",
            hint=f"Ask one of: {holders}.",
        )


# --- tags and pins ------------------------------------------------------------------------------------------


def set_tags(
    references: References, version: str | None, tags: Mapping[str, str], *, remove: Collection[str] = ()
) -> Edit:
    """Sets and removes tags of a version (None: of the model); a tag that is not there is removed already."""
    if version is not None:
        check_not_retiring(references, version)
    before = references.tags if version is None else references.state_of(version).tags
    after = {
        key: value for key, value in before.items() if key not in {check_tag_key(each) for each in remove}
    }
    after |= {check_tag_key(key): check_tag_value(value) for key, value in tags.items()}
    if after == before:
        return _nothing(references)
    if len(after) > _MOST_TAGS:
        raise InvalidInputError(
            f"{len(after)} tags; at most {_MOST_TAGS} are kept", hint="Remove some first."
        )
    events = [
        Event("tag.set", {**_detail(version=version), "key": key, "value": value})
        for key, value in after.items()
        if before.get(key) != value
    ]
    events += [Event("tag.delete", _detail(version=version, key=key)) for key in before if key not in after]
    if version is None:
        return Edit(replace(references, tags=after), tuple(events))
    return Edit(
        _with_state(references, version, replace(references.state_of(version), tags=after)), tuple(events)
    )


def pin(references: References, version: str, reason: str) -> Edit:
    """Keeps a version for good, or until it is unpinned."""
    check_not_retiring(references, version)
    state = references.state_of(version)
    if state.pinned == check_note(reason):
        return _nothing(references)
    return Edit(
        _with_state(references, version, replace(state, pinned=reason)),
        (Event("pin", _detail(version=version, note=reason)),),
    )


def unpin(references: References, version: str) -> Edit:
    """Takes the pin off a version."""
    state = references.state_of(version)
    if state.pinned is None:
        return _nothing(references)
    return Edit(
        _with_state(references, version, replace(state, pinned=None)),
        (Event("unpin", _detail(version=version, note=state.pinned)),),
    )


# --- removal ------------------------------------------------------------------------------------------------


def retire(references: References, versions: Collection[str]) -> Edit:
    """Marks versions that are about to be removed: from then on nothing can refer to them any more.

    The first step of removing a version: what is referred to between looking and removing would be lost otherwise.
    Raises ConflictError if one of them must be kept.
    """
    kept = references.kept_versions()
    for version in sorted(versions):
        if version in kept:
            raise ConflictError(
                f"{references.model}@{version} must stay: {', '.join(kept[version])}", hint="Look again."
            )
    new = sorted(set(versions) - references.retiring)
    return Edit(
        replace(references, retiring=references.retiring | set(versions)),
        tuple(Event("retire", _detail(version=version)) for version in new),
    )


def finish_removal(references: References, versions: Collection[str]) -> Edit:
    """Forgets versions whose manifests are gone, after `retire`."""
    gone = references.retiring & set(versions)
    after = replace(
        references,
        retiring=references.retiring - gone,
        versions={key: value for key, value in references.versions.items() if key not in gone},
    )
    return Edit(after, tuple(Event("removed", _detail(version=version)) for version in sorted(gone)))
