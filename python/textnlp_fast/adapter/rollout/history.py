"""What the registry is told of a rollout: that it began, and how it ended. Each may be told twice."""

from __future__ import annotations

from textnlp_fast.adapter.rollout.records import RolloutRecord
from textnlp_fast.errors import ConflictError, DeploymentNotFoundError
from textnlp_fast.storage import Registry
from textnlp_fast.storage.registry.deploying import deployment_of
from textnlp_fast.storage.registry.grammar import MAX_NOTE_CHARS

__all__ = ["before_now", "keep", "let_go", "note_begin", "note_end", "one_line", "served"]


def served(registry: Registry, model: str, target: str) -> str | None:
    """The version that a target serves by the registry; None if it serves nothing."""
    found = registry.deployments(model).get(model, {}).get(target)
    return None if found is None else found.version


def before_now(registry: Registry, model: str, target: str) -> list[str]:
    """The versions that a target served before the one of now and that are still there, the last one first.

    Raises DeploymentNotFoundError for a target that serves nothing.
    """
    deployed = deployment_of(registry.references(model), target)
    there = set(registry.repository.versions(model))
    return [version for version in deployed.previous if version in there]


def note_begin(registry: Registry, record: RolloutRecord) -> None:
    """Notes that the target is being rolled out to. From here on a collection keeps both versions.

    Raises ConflictError if the target was given another version meanwhile.
    """
    model, target, terms = record.model, record.target, record.terms
    now = served(registry, model, target)
    note = one_line(_said(record))
    if record.kind == "rollback":
        if now == terms.old:
            keep(registry, model, target, terms.new, _pin_of(record))
            registry.set_deployment_state(model, target, "rolling-back", note=note)
            return
    elif now == terms.new:
        registry.deploy(model, terms.new, target, note=note, state="rolling-out")
        return
    elif now == terms.old:
        registry.deploy(model, terms.new, target, note=note, state="rolling-out", expected=terms.old)
        return
    raise ConflictError(
        f"{target} of {model} was given {now} meanwhile, not {terms.old}",
        hint="`textnlp-fast deployments history` says by whom; look, then roll out again.",
    )


def _said(record: RolloutRecord) -> str:
    return f"rollout {record.number}: {record.note}" if record.note else f"rollout {record.number}"


def note_end(registry: Registry, record: RolloutRecord) -> None:
    """Notes how it ended. What somebody else noted of the target meanwhile is left alone."""
    model, target, terms, phase = record.model, record.target, record.terms, record.state.phase
    now = served(registry, model, target)
    reason = one_line(f"rollout {record.number}: {record.state.reason}")
    if phase == "succeeded":
        if record.kind == "rollback" and now == terms.old != terms.new:
            _roll_back(registry, record, _said(record))
        if served(registry, model, target) == terms.new:
            registry.set_deployment_state(model, target, "healthy")
    else:
        # The old version is what it is to serve, even where a replica could not go back.
        if record.kind == "deploy" and terms.old is not None and now == terms.new != terms.old:
            _roll_back(registry, record, reason)
            now = terms.old
        if now in (terms.old, terms.new):
            state = "failed" if phase == "stuck" else "rolled-back"
            registry.set_deployment_state(model, target, state, note=reason)
    let_go(registry, model, terms.new, _pin_of(record))


def _pin_of(record: RolloutRecord) -> str:
    return f"rollout {record.number} of {record.target} leads to it"


def keep(registry: Registry, model: str, target: str, version: str, pin: str) -> None:
    """Keeps a version that a rollback leads to from a collection, where the deployment itself does not."""
    references = registry.references(model)
    if (
        version not in references.deployments[target].previous[:1]
        and references.state_of(version).pinned is None
    ):
        registry.pin(model, version, pin)


def let_go(registry: Registry, model: str, version: str, pin: str) -> None:
    """Takes back what `keep` did."""
    if registry.references(model).state_of(version).pinned == pin:
        registry.unpin(model, version)


def _roll_back(registry: Registry, record: RolloutRecord, note: str) -> None:
    to = record.terms.new if record.kind == "rollback" else record.terms.old
    try:
        registry.rollback(record.model, record.target, to=to, note=one_line(note))
    except DeploymentNotFoundError:
        # What it served before is not in its way back (it was deployed anew, or the list is full): note it as it is.
        assert to is not None
        registry.deploy(record.model, to, record.target, note=one_line(note))


def one_line(text: str) -> str:
    """A text as the registry takes it for a note."""
    text = " ".join(text.split())
    text = "".join(each for each in text if each.isprintable())
    return text if len(text) <= MAX_NOTE_CHARS else text[: MAX_NOTE_CHARS - 3] + "..."
