"""Which tensor in memory becomes which of a patch's target."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from textnlp_fast.delta.patch import End, Patch
from textnlp_fast.delta.patch_file import PatchFile
from textnlp_fast.delta.source import file_places
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.loading.resident import Resident
from textnlp_fast.tensors import SafetensorsFile

__all__ = ["Target", "find_targets"]


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor in memory: digests of what it has to be ``before`` and ``after``; ``dtype`` is the codec's."""

    resident: Resident
    before: str
    after: str
    dtype: str

    @property
    def changes(self) -> bool:
        return self.before != self.after


def find_targets(
    file: PatchFile,
    residents: Sequence[Resident],
    *,
    partial: bool,
    source: str | os.PathLike[str] | None,
) -> list[Target]:
    """What becomes of each tensor. Tensors in memory that neither end knows (buffers) are left alone.

    Raises InvalidInputError where the patch cannot be carried out in memory: a tensor that comes, goes or changes its
    size or shape, one that is not in memory (but for ``partial``), tied tensors that would part.
    """
    patch = file.patch
    old, new = _tensors(patch.source), _tensors(patch.target)
    _check_names(old, new)
    _check_shapes(file, source)
    known = {name for resident in residents for name in resident.names}
    missing = [name for name in new if name not in known]
    if missing and not partial and any(old[name] != new[name] for name in missing):
        raise InvalidInputError(
            f"the patch changes tensors that are not in memory: {_some(missing)}",
            hint="Pass all of the model, or partial=True for a part of it, as a rank of a pipeline has.",
        )
    targets = [_target(patch, resident, old, new) for resident in residents]
    found = [target for target in targets if target is not None]
    if not found:
        raise InvalidInputError(
            "no tensor in memory has a name that the patch knows",
            hint=f"The patch has names like {_some(list(new)[:3])}; rename the keys of the dict.",
        )
    return found


def _tensors(end: End) -> dict[str, str]:
    """Digests of a model's tensors by name. Raises InvalidInputError for a name in two files with two contents."""
    found: dict[str, str] = {}
    for entry in end.files:
        for name, digest in zip(entry.names, entry.parts[1:], strict=entry.kind == "safetensors"):
            if found.setdefault(name, digest) != digest:
                raise InvalidInputError(
                    f"two files of the model have a tensor {name!r} each, and they differ",
                    hint="Swap in a model in which every name stands for one tensor.",
                )
    return found


def _check_names(old: dict[str, str], new: dict[str, str]) -> None:
    for what, names in (("adds", new.keys() - old.keys()), ("removes", old.keys() - new.keys())):
        if names:
            raise InvalidInputError(
                f"the patch {what} tensors, which needs another model in memory: {_some(sorted(names))}",
                hint="Load the new version: `textnlp-fast delta apply`, then the model's own loader.",
            )


def _check_shapes(file: PatchFile, source: str | os.PathLike[str] | None) -> None:
    """Raises InvalidInputError if a tensor changes its type or shape: only headers tell, and where those of both
    ends are the same bytes there is nothing to look at."""
    patch = file.patch
    headers = {entry.path: entry.parts[0] for entry in patch.source.files if entry.kind == "safetensors"}
    changed = [
        entry
        for entry in patch.target.files
        if entry.kind == "safetensors" and headers.get(entry.path) != entry.parts[0]
    ]
    if not changed:
        return
    if source is None:
        raise InvalidInputError(
            f"the patch changes the header of {changed[0]!r}: only a copy of the old model shows whether shapes stay",
            hint="Pass source=, the directory or file of the model that is loaded.",
        )
    with file.open(source, check=False) as view:
        kinds = {name: view.kind(name) for name in view.names}
    for path, header in _headers_of(patch, source).items():
        for name, kind in header.items():
            if name in kinds and kinds[name] != kind:
                raise InvalidInputError(
                    f"the patch makes tensor {name!r} of {path!r} {kinds[name][0]} {list(kinds[name][1])}; it is"
                    f" {kind[0]} {list(kind[1])}",
                    hint="Load the new version: `textnlp-fast delta apply`, then the model's own loader.",
                )


def _headers_of(
    patch: Patch, source: str | os.PathLike[str]
) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    found: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    places = file_places(patch.source, source)
    for entry in patch.source.files:
        if entry.kind == "safetensors":
            opened = SafetensorsFile.open(places[entry.path])
            found[entry.path] = {tensor.name: (tensor.dtype, tensor.shape) for tensor in opened.tensors}
    return found


def _target(patch: Patch, resident: Resident, old: dict[str, str], new: dict[str, str]) -> Target | None:
    names = [name for name in resident.names if name in new]
    if not names:
        return None
    befores, afters = {old[name] for name in names}, {new[name] for name in names}
    if len(afters) > 1 or len(befores) > 1:
        raise InvalidInputError(
            f"tensors {_some(names)} share their memory; the patch gives them different bytes",
            hint="Untie them in the model, or make a version in which they are the same.",
        )
    before, after = befores.pop(), afters.pop()
    sizes = {patch.size_of(before), patch.size_of(after), resident.size}
    if len(sizes) > 1:
        raise InvalidInputError(
            f"tensor {names[0]!r} has {resident.size} bytes in memory; the patch makes {patch.size_of(after)} of"
            f" {patch.size_of(before)}",
            hint="Keep the weights in the type and shape of the checkpoint, whole and not in slices.",
        )
    content = patch.held.get(before)
    return Target(resident, before, after, content.dtype if content is not None else "OPAQUE")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(map(repr, listed[:5])) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
