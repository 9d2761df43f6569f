"""Which versions are worth storing anew once others are gone. Pure: manifests in, proposals out.

A version needs its bases, and keeps the objects of versions that are gone for that; and a shard stays whole as long
as one tensor in it is needed. Coding a version against what stays, or by itself, can free more than it takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from textnlp_fast.delta.recipe import Whole
from textnlp_fast.storage.anchor_costs import Prices
from textnlp_fast.storage.manifest import Content, Manifest, closure

__all__ = ["Proposal", "propose"]

# An object is given up where less of it than this is tensors of versions that stay.
_LEAST_WANTED_SHARE: Final = 0.5
# What a proposal must save of what it frees: estimates are rough, and copying is work.
_LEAST_GAIN: Final = 0.1


@dataclass(frozen=True, slots=True)
class Proposal:
    """Versions of a model to store anew, in this order, without building on the `unwanted` objects.

    Sizes in bytes, `added_bytes` an estimate.
    """

    model: str
    versions: tuple[str, ...]
    unwanted: frozenset[str]
    freed_bytes: int
    added_bytes: int
    gain_usd: float


def propose(
    manifests: Sequence[Manifest], sizes: Mapping[str, int], shared: frozenset[str], prices: Prices
) -> Proposal | None:
    """What to do about the versions of one model, in the order of semantic versioning; None if all is well.

    `sizes` are those of the stored objects, `shared` the ones that other models or pushes need: they stay.
    """
    own = {digest for manifest in manifests for digest in manifest.objects} - shared
    wanted_bytes = _wanted_bytes(manifests)
    unwanted = {
        digest
        for digest in own & sizes.keys()
        if wanted_bytes.get(digest, 0) < _LEAST_WANTED_SHARE * sizes[digest]
    }
    if not unwanted:
        return None
    estimate = _Estimate(unwanted)
    versions = [manifest.version for manifest in manifests if estimate.add(manifest)]
    freed = sum(sizes[digest] for digest in (own & sizes.keys()) - estimate.kept)
    moved = estimate.read_bytes + estimate.added_bytes
    gain = prices.store_usd(freed - estimate.added_bytes) - moved / 1e9 * prices.usd_per_moved_gb
    if freed - estimate.added_bytes < _LEAST_GAIN * freed or gain <= 0:
        return None
    return Proposal(
        manifests[0].model, tuple(versions), frozenset(unwanted), freed, estimate.added_bytes, gain
    )


def _wanted_bytes(manifests: Iterable[Manifest]) -> dict[str, int]:
    """Of each object, the bytes that are windows of files' contents; bases that no file has do not count."""
    counted: set[tuple[str, int]] = set()
    found: dict[str, int] = {}
    for manifest in manifests:
        for digest in manifest.wanted():
            for extent in manifest.contents[digest].extents:
                if (extent.object, extent.offset) not in counted:
                    counted.add((extent.object, extent.offset))
                    found[extent.object] = found.get(extent.object, 0) + extent.length
    return found


class _Estimate:
    """What storing versions anew would take, one after the other."""

    def __init__(self, unwanted: set[str]) -> None:
        self._unwanted = unwanted
        self._placed: set[str] = set()
        self.kept: set[str] = set()
        self.added_bytes = 0
        self.read_bytes = 0

    def add(self, manifest: Manifest) -> bool:
        """Whether the version would have to be stored anew."""
        rewritten = False
        for digest in sorted(manifest.wanted()):
            needed = closure(manifest.contents, [digest])
            objects = {extent.object for link in needed.values() for extent in link.extents}
            if not objects & self._unwanted:
                self.kept |= objects
                self._placed.add(digest)
                continue
            rewritten = True
            self.read_bytes += sum(link.coded_bytes for link in needed.values())
            if digest not in self._placed:
                self._placed.add(digest)
                self.added_bytes += self._size(manifest.contents[digest], needed)
        return rewritten

    def _size(self, content: Content, needed: Mapping[str, Content]) -> int:
        """What the content takes: as a delta where its base is stored anew too, else by itself, like its root."""
        if content.base is None or any(base in self._placed for base in content.bases):
            return content.coded_bytes
        root = content
        while isinstance(root.base, Whole):
            root = needed[root.base.digest]
        return content.size if root.base is not None else content.size * root.coded_bytes // max(1, root.size)
