"""The difference of two versions as a heat map: layers by parts. The arithmetic is `storage.explain`'s."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from textnlp_fast.contents.windows import Progress
from textnlp_fast.service.problems import ServiceTimeoutError
from textnlp_fast.service.version_schemas import DiffCell, DiffDocument, DiffGroup, DiffSummary, DiffTensor
from textnlp_fast.storage import Explanation, Repository
from textnlp_fast.storage.explain import Change, Line, lines_of, sort_lines, total_of
from textnlp_fast.tensors import KINDS

__all__ = ["heat_map", "read_heat_map"]

MOST_TENSORS: Final = 200


def read_heat_map(
    repository: Repository,
    name: str,
    old: str,
    new: str,
    *,
    most_s: float,
    is_stopping: Callable[[], bool],
) -> DiffDocument:
    """Reads both versions, within the repository's memory budget. Blocks.

    Raises ServiceTimeoutError once it takes longer than `most_s`, or the service is about to end.
    """
    end_s = time.monotonic() + most_s

    def go_on(_progress: Progress) -> None:
        if is_stopping():
            raise ServiceTimeoutError("the service is ending", hint="Ask another replica.")
        if time.monotonic() > end_s:
            raise ServiceTimeoutError(
                f"comparing {old} with {new} takes longer than {most_s:g} s",
                hint="Run `textnlp-fast diff` beside the repository.",
            )

    return heat_map(repository.explain(name, old, new, with_rank=False, progress=go_on))


def heat_map(explanation: Explanation) -> DiffDocument:
    """The document of an explanation; pure."""
    rows = _rows(explanation)
    cells = []
    layers = []
    for layer, changes in rows.items():
        of_layer = replace(explanation, changes=tuple(changes))
        layers.append(_group(layer, total_of(of_layer)))
        cells += [_cell(layer, line) for line in lines_of(of_layer, "kind")]
    by_kind = {line.label: line for line in lines_of(explanation, "kind")}
    parts = [_group(kind, by_kind[kind]) for kind in KINDS if kind in by_kind]
    label_of = {id(change): layer for layer, changes in rows.items() for change in changes}
    moved = [line for line in lines_of(explanation, "tensor") if line.status not in ("same", "renamed", None)]
    most = sort_lines(moved, "relative")[:MOST_TENSORS]
    return DiffDocument(
        summary=_summary(explanation),
        layers=layers,
        parts=parts,
        cells=cells,
        tensors=[_tensor(line, label_of[id(line.change)]) for line in most],
    )


def _rows(explanation: Explanation) -> dict[str, list[Change]]:
    """Changes by layer, in the order of a model; what is in no layer goes by its kind."""
    stacks = {change.role.stack for change in explanation.changes if change.role.layer is not None}
    found: dict[tuple[int, str, int], list[Change]] = {}
    labels: dict[tuple[int, str, int], str] = {}
    for change in explanation.changes:
        role = change.role
        if role.layer is None:
            key = (0 if role.kind == "embedding" else 2, "", KINDS.index(role.kind))
            labels[key] = role.kind
        else:
            key = (1, role.stack, role.layer)
            labels[key] = f"layer {role.layer}" if len(stacks) == 1 else f"{role.stack}.{role.layer}"
        found.setdefault(key, []).append(change)
    return {labels[key]: found[key] for key in sorted(found)}


def _summary(explanation: Explanation) -> DiffSummary:
    total = total_of(explanation)
    return DiffSummary(
        old=explanation.old,
        new=explanation.new,
        tensors=total.tensors,
        changed_tensors=total.changed_tensors,
        added=sum(change.status == "added" for change in explanation.changes),
        removed=sum(change.status == "removed" for change in explanation.changes),
        elements=total.elements,
        changed_fraction=total.sums.changed_fraction,
        norm=total.sums.change_norm,
        relative_norm=total.sums.relative_norm,
        logical_bytes=total.size,
        stored_bytes=total.stored_bytes or 0,
    )


def _group(name: str, line: Line) -> DiffGroup:
    return DiffGroup(
        name=name,
        tensors=line.tensors,
        changed_tensors=line.changed_tensors,
        changed_fraction=line.sums.changed_fraction,
        norm=line.sums.change_norm,
        stored_bytes=line.stored_bytes or 0,
        logical_bytes=line.size,
    )


def _cell(layer: str, line: Line) -> DiffCell:
    return DiffCell(
        layer=layer,
        part=line.label,
        changed_fraction=line.sums.changed_fraction,
        norm=line.sums.change_norm,
        relative_norm=line.sums.relative_norm,
        stored_bytes=line.stored_bytes or 0,
        logical_bytes=line.size,
        strategy=line.strategy,
        tensors=line.tensors,
    )


def _tensor(line: Line, layer: str) -> DiffTensor:
    return DiffTensor(
        name=line.label,
        status=line.status or "",
        layer=layer,
        part=line.kind or "other",
        changed_fraction=line.sums.changed_fraction,
        norm=line.sums.change_norm,
        max_change=line.sums.max_change,
        stored_bytes=line.stored_bytes or 0,
        logical_bytes=line.size,
        strategy=line.strategy,
    )
