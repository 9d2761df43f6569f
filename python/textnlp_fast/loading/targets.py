"""Which tensor in memory becomes which of the new weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.resident import Resident
from textnlp_fast.loading.updates import Update, some

__all__ = ["Match", "Target", "match"]


@dataclass(frozen=True, slots=True)
class Match:
    """A tensor in memory, the digest it must have (None: any), and the one it gets."""

    resident: Resident
    before: str | None
    after: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor in memory: digests of what it has ``before`` and is to have ``after``; ``dtype`` is the codec's."""

    resident: Resident
    before: str
    after: str
    dtype: str

    @property
    def changes(self) -> bool:
        return self.before != self.after


def match(
    update: Update, residents: Sequence[Resident], *, partial: bool, elsewhere: Collection[str] = ()
) -> list[Match]:
    """What becomes of each tensor. Tensors in memory that neither end knows (buffers) are left alone. Those named in
    ``elsewhere`` are in memory as parts of others.

    Raises InvalidInputError where the update cannot be carried out in memory: a tensor that comes, goes or changes
    its size or shape, one that is not in memory (but for ``partial``), tied tensors that would part.
    """
    update.check_fit(residents)
    known = {name for resident in residents for name in resident.names} | set(elsewhere)
    missing = [name for name in update.new if name not in known]
    old = update.old
    if missing and not partial and any(old is None or old.get(name) != update.new[name] for name in missing):
        raise InvalidInputError(
            f"the new weights have tensors that are not in memory: {some(missing)}",
            hint="Pass all of the model, or partial=True for a part of it, as a rank of a pipeline has.",
        )
    found = [one for one in (_match(update, resident, old) for resident in residents) if one is not None]
    if not found and not elsewhere:
        raise InvalidInputError(
            "no tensor in memory has a name that the new weights have",
            hint=f"They have names like {some(list(update.new)[:3])}; rename the keys of the dict.",
        )
    return found


def _match(update: Update, resident: Resident, old: Mapping[str, str] | None) -> Match | None:
    names = [name for name in resident.names if name in update.new]
    if not names:
        return None
    afters = {update.new[name] for name in names}
    befores: set[str | None] = {None} if old is None else {old.get(name) for name in names}
    if len(afters) > 1 or len(befores) > 1:
        raise InvalidInputError(
            f"tensors {some(names)} share their memory; the new weights give them different bytes",
            hint="Untie them in the model, or make a version in which they are the same.",
        )
    before, after = befores.pop(), afters.pop()
    if resident.size != update.size_of(after):
        raise InvalidInputError(
            f"tensor {names[0]!r} has {resident.size} bytes in memory; the new one has {update.size_of(after)}",
            hint="Keep the weights in the type and shape of the checkpoint, whole and not in slices.",
        )
    return Match(resident, before, after, update.dtype_of(after))
