"""Publishing through the registry: the push, then one change that says everything else about the version."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.errors import InvalidInputError, TextnlpFastError
from textnlp_fast.storage.names import check_name, check_version, split_build
from textnlp_fast.storage.push import PushReport
from textnlp_fast.storage.registry import changes
from textnlp_fast.storage.registry.changing import Edit, Event
from textnlp_fast.storage.registry.grammar import check_actor
from textnlp_fast.storage.registry.history import every_change
from textnlp_fast.storage.registry.lineage import Lineage, exact_lineage
from textnlp_fast.storage.registry.registry import Registry
from textnlp_fast.storage.registry.rules import Rules
from textnlp_fast.storage.registry.state import References
from textnlp_fast.storage.signing import PrivateKey

__all__ = ["PublishedModel", "publish_model"]


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A version and what is said of it."""

    name: str
    version: str
    architecture: str | None
    created_by: str
    stage: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    lineage: Lineage
    push: PushReport = field(repr=False)


def publish_model(
    registry: Registry,
    model_path: str | os.PathLike[str],
    name: str,
    version: str,
    *,
    architecture: str | None = None,
    created_by: str | None = None,
    lineage: Lineage | None = None,
    tags: Mapping[str, str] | None = None,
    stage: str | None = None,
    aliases: Sequence[str] = (),
    message: str = "",
    metadata: Mapping[str, str] | None = None,
    parent: tuple[str, str] | str | None = "auto",
    base_path: str | os.PathLike[str] | None = None,
    sign_key: PrivateKey | None = None,
    progress: ProgressCallback | None = None,
) -> PublishedModel:
    """Pushes files as a version and says in one change what it is called and where it stands.

    What would be refused is refused before anything is uploaded, as far as it can be known. Publishing the same files
    again finishes what was interrupted and changes nothing else. Raises what `Repository.push` and changes of the
    registry do.
    """
    exact = check_version(split_build(version)[0])
    author = check_actor(created_by or registry.actor)
    notes = {**(metadata or {}), "created_by": author}
    if architecture is not None:
        notes["architecture"] = architecture
    reserved = sorted(set(metadata or {}) & {"created_by", "architecture", "build"})
    if reserved:
        raise InvalidInputError(f"metadata has {reserved[0]!r}, which is an argument of its own")
    repository = registry.repository
    if lineage is not None:
        lineage = exact_lineage(repository, check_name(name), exact, lineage)
        notes |= lineage.metadata()
    rules = registry.rules()

    def described(now: References, *, again: bool) -> Edit:
        events: list[Event] = []
        if not again or not any(
            each.action == "publish" and each.detail.get("version") == exact
            for each in every_change(repository.store, now)
        ):
            events.append(Event("publish", {"version": exact, "created_by": author}))
        steps: list[Callable[[References], Edit]] = [lambda now: changes.set_tags(now, exact, tags or {})]
        if stage is not None:
            steps.append(lambda now: changes.move_to_stage(now, rules, exact, stage, by=registry.actor))
        steps += [partial(_named, rules, alias, exact, registry.actor) for alias in aliases]
        for step in steps:
            edit = step(now)
            now = edit.references
            events += edit.events
        return Edit(now, tuple(events))

    described(registry.peek(name, rules), again=False)
    report = repository.push(
        model_path,
        name,
        version,
        parent=parent,
        base_path=base_path,
        message=message,
        metadata=notes,
        sign_key=sign_key,
        progress=progress,
    )
    try:
        registry.change(
            "publish", name, exact, {}, lambda now: described(now, again=report.already_there), rules
        )
    except TextnlpFastError as error:
        error.hint = (
            f"{name}@{exact} is published; publish it again to say the rest of it. {error.hint}".rstrip()
        )
        raise
    references = registry.references(name)
    return PublishedModel(
        name,
        exact,
        architecture,
        author,
        references.stage_of(exact),
        tuple(references.aliases_of(exact)),
        references.state_of(exact).tags,
        lineage or Lineage(),
        report,
    )


def _named(rules: Rules, alias: str, version: str, by: str, now: References) -> Edit:
    return changes.set_alias(now, rules, alias, version, by=by)
