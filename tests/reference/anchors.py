"""Costs of chains of versions from their definition, and the cheapest bases by trying all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from textnlp_fast.storage.anchor_costs import Prices, Readers, VersionSizes

Bases = tuple["int | None", ...]


def chains(count: int, *, any_base: bool = False) -> Iterator[Bases]:
    """Every choice of bases: on the predecessor's chain or none; with `any_base`, any earlier version or none."""

    def further(bases: Bases) -> Iterator[Bases]:
        if len(bases) == count:
            yield bases
            return
        allowed: list[int | None] = [None]
        if any_base:
            allowed += range(len(bases))
        else:
            link = len(bases) - 1 if bases else None
            while link is not None:
                allowed.append(link)
                link = bases[link]
        for base in allowed:
            yield from further((*bases, base))

    return further(())


def total_usd(sizes: Sequence[VersionSizes], bases: Bases, prices: Prices, readers: Readers) -> float:
    """Storage, then each reader of each version on its own walk."""
    coded = [
        one.snapshot_bytes if base is None else one.delta_bytes[base]
        for one, base in zip(sizes, bases, strict=True)
    ]
    usd = sum(coded) / 1e9 * prices.usd_per_stored_gb_month * prices.retention_months
    shares = [(None, 1 - sum(readers.behind)), *((k + 1, share) for k, share in enumerate(readers.behind))]
    for version in range(len(sizes)):
        for behind, share in shares:
            held = None if behind is None or behind > version else version - behind
            at: int | None = version
            while at is not None and at != held:
                seconds = coded[at] / 1e9 / prices.bandwidth_gb_per_s
                seconds += sizes[at].model_bytes / 1e9 / prices.decode_gb_per_s
                each = coded[at] / 1e9 * prices.usd_per_moved_gb + seconds * prices.usd_per_restore_s
                usd += readers.reads_per_version * share * each
                at = bases[at]
    return usd
