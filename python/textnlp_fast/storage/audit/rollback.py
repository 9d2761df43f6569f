"""Whether a model's references are older than what the log has seen of them.

Whoever changes references records, before he does, at which revision he found them, and by the id of the change that
made it so which history that was. A `refs.json` with fewer changes, or with others under those numbers, is one that was
put back: by a restored copy, or by somebody who writes to the bucket and wants an old version served.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from textnlp_fast.errors import CorruptDataError, InvalidInputError, UnsupportedFormatError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.audit.records import AuditRecord

if TYPE_CHECKING:
    from textnlp_fast.storage.registry.state import References

__all__ = ["SeenReferences", "seen_references"]

_MOST_MODELS: Final = 100_000  # of which the last revision is remembered


def seen_references(references: References) -> dict[str, Any]:
    """What a record says of references, as part of its detail; nothing if there was no change yet."""
    if not references.revision:
        return {}
    return {"refs": {"id": references.history[-1].id, "revision": references.revision}}


@dataclass(frozen=True, slots=True)
class _Seen:
    revision: int
    identity: str
    sequence: int


class SeenReferences:
    """The newest that a log says of each model's references."""

    def __init__(self) -> None:
        self._models: dict[str, _Seen] = {}

    def note(self, record: AuditRecord) -> None:
        """Looks at a record; what another tool wrote in this place is no revision, and no error."""
        refs = record.detail.get("refs")
        if record.model is None or not isinstance(refs, dict):
            return
        revision, identity = refs.get("revision"), refs.get("id")
        if type(revision) is not int or revision < 1 or not isinstance(identity, str):
            return
        known = self._models.get(record.model)
        if known is None and len(self._models) >= _MOST_MODELS:
            return
        if known is None or revision >= known.revision:
            self._models[record.model] = _Seen(revision, identity, record.sequence)

    def problems(self, store: ObjectStore) -> Iterator[tuple[str, str, int]]:
        """Kind, sentence and record of what does not fit. To be asked when the log was read: references only grow."""
        # Registries record what they do: at the top of this file it would be a circle.
        from textnlp_fast.storage.registry.history import find_change  # noqa: PLC0415
        from textnlp_fast.storage.registry.references import read_versioned  # noqa: PLC0415

        for model, seen in self._models.items():
            try:
                references = read_versioned(store, model)[0]
                if references.revision < seen.revision:
                    yield (
                        "rolled_back",
                        f"the references of {model} are at revision {references.revision}, "
                        f"and had been at {seen.revision}",
                        seen.sequence,
                    )
                    continue
                change = find_change(store, references, seen.revision)
            except (CorruptDataError, UnsupportedFormatError, InvalidInputError) as error:
                yield "unreadable", f"the references of {model}: {error.args[0]}", seen.sequence
                continue
            if change is None or change.id != seen.identity:
                yield (
                    "rolled_back",
                    f"change {seen.revision} of {model} is another than the one that was recorded",
                    seen.sequence,
                )
