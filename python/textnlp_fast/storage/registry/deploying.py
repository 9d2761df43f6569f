"""Changes of deployments, as pure functions: which version a target serves, and the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from textnlp_fast.errors import ConflictError, DeploymentNotFoundError, InvalidInputError
from textnlp_fast.storage.registry.changes import check_not_retiring
from textnlp_fast.storage.registry.changing import Edit, Event
from textnlp_fast.storage.registry.document import MOST_PREVIOUS
from textnlp_fast.storage.registry.grammar import check_note, check_target
from textnlp_fast.storage.registry.state import Deployment, References

__all__ = ["Unmoved", "deploy", "deployment_of", "end_deployment", "roll_back", "set_state"]

_MOST_TARGETS: Final = 10_000


def deployment_of(references: References, target: str) -> Deployment:
    """What a target serves. Raises DeploymentNotFoundError."""
    found = references.deployments.get(check_target(target))
    if found is None:
        known = ", ".join(sorted(references.deployments)[:10])
        raise DeploymentNotFoundError(
            f"{references.model} is not deployed to {target!r}",
            hint=f"It is deployed to: {known}." if known else "It is deployed nowhere.",
        )
    return found


class Unmoved:
    """Lets a change of a target pass only if nobody else changed the target since this was asked first."""

    def __init__(self, target: str, expected: str | None) -> None:
        self._target = target
        self._expected = expected
        self._number: int | None = None

    def check(self, now: References) -> None:
        """Raises ConflictError if the target is not as it was, or does not serve what was expected."""
        before = now.deployments.get(self._target)
        if self._number is None:
            self._number = 0 if before is None else before.number
            if self._expected is not None and (before is None or before.version != self._expected):
                serves = f"serves {before.version}" if before else "serves nothing"
                raise ConflictError(
                    f"{self._target} of {now.model} {serves}, not {self._expected}", hint="Look again."
                )
        number = 0 if before is None else before.number
        if number == self._number:
            return
        if before is None:
            raise ConflictError(
                f"{self._target} of {now.model} was ended by another writer",
                hint="Nothing was changed. Look again.",
            )
        raise ConflictError(
            f"{self._target} of {now.model} was given {before.version} by {before.by} meanwhile",
            hint="Nothing was changed. Look at what it serves now, then decide again.",
        )


def deploy(
    references: References,
    target: str,
    version: str,
    *,
    by: str,
    at: str,
    note: str = "",
    state: str = "",
) -> Edit:
    """Notes that a target serves a version. The same version again only changes note and state."""
    check_not_retiring(references, version)
    before = references.deployments.get(check_target(target))
    number = references.revision + 1
    if before is None:
        if len(references.deployments) >= _MOST_TARGETS:
            raise InvalidInputError(f"{references.model} has {_MOST_TARGETS} deployments already")
        after = Deployment(version, at, by, note, state, (), number)
    elif before.version == version:
        if (before.note, before.state) == (note, state):
            return Edit(references, ())
        after = replace(before, note=note, state=state, number=number)
    else:
        previous = (before.version, *before.previous)[:MOST_PREVIOUS]
        after = Deployment(version, at, by, note, state, previous, number)
    detail = {"target": target, "version": version}
    if before is not None and before.version != version:
        detail["from"] = before.version
    return _edit(references, target, after, "deploy", detail, note, state)


def set_state(references: References, target: str, state: str, *, note: str | None = None) -> Edit:
    """Notes how a deployment fares: rolling-out, healthy, failed, or whatever its keeper says."""
    before = deployment_of(references, target)
    after = replace(before, state=check_note(state), note=before.note if note is None else check_note(note))
    if after == before:
        return Edit(references, ())
    after = replace(after, number=references.revision + 1)
    detail = {"target": target, "version": before.version}
    return _edit(references, target, after, "deploy.state", detail, note or "", state)


def roll_back(references: References, target: str, to: str, *, by: str, at: str, note: str = "") -> Edit:
    """Goes back to an earlier version of the target; those after it are no way back any more."""
    before = deployment_of(references, target)
    if to not in before.previous:
        raise InvalidInputError(
            f"{target} of {references.model} has not served {to}", hint="Deploy it instead."
        )
    check_not_retiring(references, to)
    place = before.previous.index(to)
    after = Deployment(to, at, by, note, "", before.previous[place + 1 :], references.revision + 1)
    detail = {"target": target, "version": to, "from": before.version}
    return _edit(references, target, after, "deploy.rollback", detail, note, "")


def end_deployment(references: References, target: str, *, note: str = "") -> Edit:
    """Notes that a target serves nothing any more; its history stays."""
    before = deployment_of(references, target)
    deployments = {key: value for key, value in references.deployments.items() if key != target}
    detail = {"target": target, "from": before.version}
    if note:
        detail["note"] = check_note(note)
    return Edit(replace(references, deployments=deployments), (Event("deploy.end", detail),))


def _edit(
    references: References,
    target: str,
    after: Deployment,
    action: str,
    detail: dict[str, str],
    note: str,
    state: str,
) -> Edit:
    if check_note(note):
        detail["note"] = note
    if check_note(state):
        detail["state"] = state
    return Edit(
        replace(references, deployments={**references.deployments, target: after}), (Event(action, detail),)
    )
