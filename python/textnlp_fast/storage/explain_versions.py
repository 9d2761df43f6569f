"""Explains the difference of two versions in a repository."""

from __future__ import annotations

from dataclasses import replace

from textnlp_fast.contents.inventory import coding_dtype
from textnlp_fast.contents.windows import Piece, ProgressCallback
from textnlp_fast.delta.measure import Sums
from textnlp_fast.delta.recipe import Whole
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.compare import Pair, PairReader, unique_name
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.explain import Change, Explanation, Side, is_comparable, pair_up
from textnlp_fast.storage.headers import read_tensors
from textnlp_fast.storage.manifest import Content, Manifest
from textnlp_fast.storage.tally import Tally

__all__ = ["explain_versions"]


def explain_versions(
    store: ObjectStore,
    old: Manifest,
    new: Manifest,
    options: TransferOptions,
    *,
    with_rank: bool = True,
    progress: ProgressCallback | None = None,
) -> Explanation:
    """What changed from one version to another; bytes are those that the newer one takes in the repository.

    Tensors that changed are decoded and compared element by element, within the memory budget of `options`.
    """
    before, after = (_sides(store, manifest, options) for manifest in (old, new))
    changes = pair_up(before, after, lambda side, _: side.digest or "")
    work = [
        number
        for number, change in enumerate(changes)
        if is_comparable(change) and _digest(change.old) != _digest(change.new)
    ]
    tally = Tally([changes[number].side for number in work], with_rank=with_rank)

    def measure(piece: Piece, first: memoryview, second: memoryview, threads: int) -> Sums:
        return tally.measure(piece.step, piece.offset, first, second, threads)

    pairs = [
        Pair(
            change.side.name,
            coding_dtype(change.side.dtype),
            old.contents[_digest(change.old)],
            new.contents[_digest(change.new)],
        )
        for change in (changes[number] for number in work)
    ]
    reader = PairReader(
        store,
        old,
        new,
        pairs,
        options,
        measure,
        lambda piece: tally.kept_bytes(piece.step, piece.length),
        tally.reserved_bytes,
    )
    for piece, sums in reader.run(progress):
        tally.take(piece.step, piece.length, sums)
    for step, number in enumerate(work):
        changes[number] = replace(changes[number], sums=tally.sums[step], rank=tally.ranks[step])
    return Explanation(
        old=f"{old.model}@{old.version}",
        new=f"{new.model}@{new.version}",
        bytes_of="repository",
        changes=tuple(_with_bytes(change, new) for change in changes),
    )


def _sides(store: ObjectStore, manifest: Manifest, options: TransferOptions) -> dict[str, Side]:
    headers = read_tensors(store, manifest, options)
    sides: dict[str, Side] = {}
    for entry in manifest.files:
        if entry.kind != "safetensors":
            continue
        for name, digest in zip(entry.names, entry.parts[1:], strict=True):
            tensor = headers[entry.path][name]
            shown = unique_name(name, entry.path, sides)
            sides[shown] = Side(shown, tensor.dtype, tensor.shape, tensor.size_bytes, digest)
    return sides


def _digest(side: Side | None) -> str:
    return (side.digest or "") if side is not None else ""


def _with_bytes(change: Change, manifest: Manifest) -> Change:
    """The change with what the newer tensor takes, unless its bytes were there before under some name."""
    if change.status in ("same", "renamed", "removed") or _digest(change.old) == _digest(change.new):
        return change
    content = manifest.contents[_digest(change.new)]
    return replace(change, stored_bytes=content.coded_bytes, strategy=_strategy(content))


def _strategy(content: Content) -> str:
    if content.codec == "raw":
        return "raw"
    if content.base is None:
        return "alone"
    return "delta" if isinstance(content.base, Whole) else "recipe"
