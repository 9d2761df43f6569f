"""Compare: what changed between two versions, tensor by tensor, and what it cost to store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from textnlp_fast.contents.inventory import coding_dtype
from textnlp_fast.contents.windows import (
    DATA_ERRORS,
    BufferPool,
    DigestCheck,
    OpenFiles,
    Piece,
    Progress,
    ProgressCallback,
    plan_units,
    run_in_order,
    with_context,
)
from textnlp_fast.delta import codec
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.extents import decode_window, fetch_extents
from textnlp_fast.storage.headers import read_dtypes
from textnlp_fast.storage.manifest import Content, Extent, Manifest, chain_of
from textnlp_fast.storage.object_windows import new_maker, working_bytes

__all__ = ["DiffRow", "Pair", "PairReader", "diff_versions", "unique_name"]

Status = Literal["same", "changed", "added", "removed", "renamed"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class DiffRow:
    """How one tensor differs. Sizes in bytes; what is counted in elements is None where that makes no sense.

    `stored_bytes` is what the newer version's tensor takes in the repository, its bases not counted.
    """

    name: str
    status: Status
    dtype: str
    size: int
    stored_bytes: int
    elements: int | None = None
    changed: int | None = None
    max_ulp: int | None = None
    mean_abs_ulp: float | None = None
    old_name: str | None = None

    @property
    def changed_fraction(self) -> float | None:
        if self.changed is None or not self.elements:
            return None
        return self.changed / self.elements

    @property
    def ratio(self) -> float | None:
        """Raw bytes per stored byte of a tensor that had to be stored."""
        return self.size / self.stored_bytes if self.stored_bytes else None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor's content, and the dtype that its file's header gives it."""

    content: Content
    dtype: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two contents of equal size to be compared, of the codec's type `dtype`; `name` is for errors."""

    name: str
    dtype: str
    old: Content
    new: Content


def diff_versions(
    store: ObjectStore,
    old: Manifest,
    new: Manifest,
    options: TransferOptions,
    progress: ProgressCallback | None = None,
) -> list[DiffRow]:
    """Rows for all tensors of both versions, in the order of the newer one, the removed ones last.

    Tensors that changed are decoded and compared element by element, within the memory budget of `options`.
    """
    before, after = (_tensors(each, read_dtypes(store, each, options)) for each in (old, new))
    homeless: dict[str, list[str]] = {}
    for name, tensor in before.items():
        if name not in after:
            homeless.setdefault(tensor.content.digest, []).append(name)
    pairs: list[Pair] = []
    rows: dict[str, DiffRow] = {}
    for name, tensor in after.items():
        content = tensor.content
        previous = before.get(name)
        old_name = None
        if previous is None:
            names = homeless.get(content.digest)
            old_name = names.pop(0) if names else None
            status: Status = "renamed" if old_name is not None else "added"
        elif previous == tensor:
            status = "same"
        else:
            status = "changed"
            if (previous.dtype, previous.content.size) == (tensor.dtype, content.size):
                pairs.append(Pair(name, coding_dtype(tensor.dtype), previous.content, content))
        stored = content.coded_bytes if status in ("changed", "added") else 0
        rows[name] = DiffRow(name, status, tensor.dtype, content.size, stored, old_name=old_name)
    for name in (name for names in homeless.values() for name in names):
        rows[name] = DiffRow(name, "removed", before[name].dtype, before[name].content.size, 0)

    def measure(piece: Piece, before: memoryview, after: memoryview, threads: int) -> codec.DiffStats:
        return codec.diff(before, after, dtype=pairs[piece.step].dtype, threads=threads)

    totals: dict[str, codec.DiffStats] = {}
    for piece, stats in PairReader(store, old, new, pairs, options, measure).run(progress):
        name = pairs[piece.step].name
        totals[name] = _add(totals[name], stats) if name in totals else stats
    for name, stats in totals.items():
        row = rows[name]
        rows[name] = DiffRow(
            name,
            row.status,
            row.dtype,
            row.size,
            row.stored_bytes,
            stats.elements,
            stats.changed,
            stats.max_ulp,
            stats.mean_abs_ulp,
        )
    return list(rows.values())


def _tensors(manifest: Manifest, dtypes: Mapping[str, Mapping[str, str]]) -> dict[str, _Tensor]:
    """Tensors by name; where two files have the same name, the file's path tells them apart."""
    tensors: dict[str, _Tensor] = {}
    for entry in manifest.files:
        if entry.kind != "safetensors":
            continue
        for name, digest in zip(entry.names, entry.parts[1:], strict=True):
            tensor = _Tensor(manifest.contents[digest], dtypes[entry.path][name])
            tensors[unique_name(name, entry.path, tensors)] = tensor
    return tensors


def unique_name(name: str, path: str, taken: Mapping[str, object]) -> str:
    """A tensor's name, with its file's path before it if another file has a tensor of that name."""
    return name if name not in taken else f"{path}: {name}"


class PairReader(Generic[Result]):
    """Decodes pairs of contents window by window, checks them against their digests, and measures them.

    `measure` gets a piece (`step` is the pair's number), the old bytes, the new ones and how many threads it
    may use; several threads call it. `extra_cost` are the bytes that it keeps of a piece,
    `reserved_bytes` what it keeps beyond that.
    """

    def __init__(
        self,
        store: ObjectStore,
        old: Manifest,
        new: Manifest,
        pairs: Sequence[Pair],
        options: TransferOptions,
        measure: Callable[[Piece, memoryview, memoryview, int], Result],
        extra_cost: Callable[[Piece], int] = lambda piece: 0,
        reserved_bytes: int = 0,
    ) -> None:
        self._measure = measure
        self._extra_cost = extra_cost
        self._store = store
        self._contents = (old.contents, new.contents)
        self._pairs = pairs
        self._window_bytes = new.window_bytes
        if any(chain[-1].base is not None for pair in pairs for chain in self._chains_of(pair)):
            reserved_bytes += 2 * working_bytes(self._window_bytes, options.memory_budget_bytes // 2)
        self._budget_bytes = max(options.memory_budget_bytes - reserved_bytes, 4 * self._window_bytes)
        self._workers = max(
            1, min(2 * options.thread_count, self._budget_bytes // (4 * self._window_bytes), 16)
        )
        self._threads_each = -(-options.thread_count // self._workers)
        self._buffers = BufferPool(self._window_bytes)
        self._check = DigestCheck(self._window_bytes, self._threads_each)
        self._makers = [
            new_maker(
                store,
                contents,
                self._window_bytes,
                OpenFiles(),
                {},
                budget_bytes=options.memory_budget_bytes // 2,
                threads=self._threads_each,
            )
            for contents in self._contents
        ]

    def run(self, progress: ProgressCallback | None) -> Iterator[tuple[Piece, Result]]:
        """Pieces with what was measured of them, in order."""
        sizes = [pair.new.size for pair in self._pairs]
        done = 0
        results = run_in_order(
            self._compare_unit,
            plan_units(sizes, self._window_bytes),
            workers=self._workers,
            cost=self._cost,
            budget_bytes=self._budget_bytes,
        )
        for unit in results:
            for piece, result in unit:
                yield piece, result
                done += piece.length
            if progress is not None:
                progress(Progress("diff", done, sum(sizes)))

    def _cost(self, unit: tuple[Piece, ...]) -> int:
        fetched = sum(extent.length for extent in self._extents(unit))
        recipe = any(chain[0].base is not None for piece in unit for chain in self._chains(piece))
        # A recipe's window takes what it is made of, and that takes its coded form.
        return (2 + 2 * recipe) * self._window_bytes + fetched + sum(map(self._extra_cost, unit))

    def _chains(self, piece: Piece) -> tuple[list[Content], list[Content]]:
        """What must be decoded for the pair, the old side and the new, root first."""
        old, new = self._chains_of(self._pairs[piece.step])
        return old[::-1], new[::-1]

    def _chains_of(self, pair: Pair) -> tuple[list[Content], list[Content]]:
        old, new = self._contents
        return chain_of(old, pair.old.digest), chain_of(new, pair.new.digest)

    def _extents(self, unit: tuple[Piece, ...]) -> list[Extent]:
        return [
            link.extents[piece.window]
            for piece in unit
            if piece.length
            for chain in self._chains(piece)
            for link in chain
        ]

    def _compare_unit(self, unit: tuple[Piece, ...]) -> list[tuple[Piece, Result]]:
        try:
            with self._buffers.borrow() as old, self._buffers.borrow() as new:
                fetched = fetch_extents(self._store, self._extents(unit))
                return [
                    (piece, self._compare(piece, fetched, old[: piece.length], new[: piece.length]))
                    for piece in unit
                    if piece.length
                ]
        except BaseException:
            for piece in unit:
                for side in (0, 1):
                    self._check.fail((piece.step, side))
            raise

    def _compare(
        self, piece: Piece, fetched: Mapping[Extent, memoryview], old: memoryview, new: memoryview
    ) -> Result:
        pair = self._pairs[piece.step]
        try:
            for side, (chain, out) in enumerate(zip(self._chains(piece), (old, new), strict=True)):
                recipe = chain[0].base
                if recipe is not None:
                    self._makers[side].fill_base(recipe, piece.offset, out)
                decode_window(self._store, chain, piece.window, fetched, out, threads=self._threads_each)
                self._check.update((piece.step, side), chain[-1], piece.window, out)
        except DATA_ERRORS as error:
            raise with_context(error, f"tensor {pair.name!r}") from error
        return self._measure(piece, old, new, self._threads_each)


def _add(first: codec.DiffStats, second: codec.DiffStats) -> codec.DiffStats:
    elements = first.elements + second.elements
    summed = first.mean_abs_ulp * first.elements + second.mean_abs_ulp * second.elements
    return codec.DiffStats(
        elements,
        first.changed + second.changed,
        max(first.max_ulp, second.max_ulp),
        summed / elements if elements else 0.0,
    )
