"""What a chain of versions costs: bytes stored, bytes moved to readers, seconds until they can start.

Versions are numbered from 0 in the order of their publication. Each is stored whole (base None, a *snapshot*) or
as a delta to an earlier version. A reader of a version follows bases until it meets the version that it holds, or
the snapshot at the root: what a pull does. Fetching and decoding are charged one after the other, and every link
decodes the whole model; where they overlap, readers are faster than this says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final

from textnlp_fast.errors import InvalidInputError

__all__ = [
    "MAX_VERSIONS",
    "ChainCost",
    "Prices",
    "Readers",
    "VersionSizes",
    "chain_cost",
    "check_bases",
    "links_to",
]

_GB: Final = 1e9
_LARGEST: Final = 1e18
MAX_VERSIONS: Final = 64
"""A chain of that many versions has 63 bases at most, as many as readers of the format follow."""


def _check_number(name: str, value: float, *, least: float = 0.0) -> None:
    # Beyond these limits sums of products would no longer be finite.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= _LARGEST:
        raise InvalidInputError(f"{name} is {value!r}; it has to be a number from {least:g} to {_LARGEST:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What storing, moving and waiting cost. GB are 10^9 bytes; decode speed counts bytes of the model made."""

    usd_per_stored_gb_month: float
    retention_months: float
    usd_per_moved_gb: float
    usd_per_restore_s: float
    bandwidth_gb_per_s: float
    decode_gb_per_s: float

    def __post_init__(self) -> None:
        for one in fields(self):
            _check_number(
                one.name, getattr(self, one.name), least=1e-9 if one.name.endswith("_gb_per_s") else 0.0
            )

    def store_usd(self, stored_bytes: float) -> float:
        """Keeping that many bytes for the whole retention."""
        return stored_bytes / _GB * self.usd_per_stored_gb_month * self.retention_months

    def link_usd(self, moved_bytes: float, model_bytes: float) -> float:
        """One reader's fetch and decode of one link."""
        gigabytes = moved_bytes / _GB
        seconds = gigabytes / self.bandwidth_gb_per_s + model_bytes / _GB / self.decode_gb_per_s
        return gigabytes * self.usd_per_moved_gb + seconds * self.usd_per_restore_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Who reads a version. `behind[k - 1]` is the share that holds the version k before it; the others are fresh.

    A reader that would hold a version from before the first one is fresh too.
    """

    reads_per_version: float
    behind: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_number("reads_per_version", self.reads_per_version)
        for share in self.behind:
            _check_number("a share of behind", share)
        if math.fsum(self.behind) > 1 + 1e-9:
            raise InvalidInputError(
                f"the shares of behind add up to {math.fsum(self.behind)}; at most 1 may be"
            )

    @property
    def fresh(self) -> float:
        """Share of the readers that hold nothing."""
        return max(0.0, 1 - math.fsum(self.behind))

    def reads_from(self, versions_behind: int) -> float:
        """Reads of one version by those who hold the version so many before it."""
        held = 0 < versions_behind <= len(self.behind)
        return self.reads_per_version * self.behind[versions_behind - 1] if held else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSizes:
    """One version: its model's bytes, its bytes stored whole, and as a delta to earlier versions, by their number."""

    model_bytes: int
    snapshot_bytes: int
    delta_bytes: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_number("model_bytes", self.model_bytes)
        _check_number("snapshot_bytes", self.snapshot_bytes)
        for base, size_bytes in self.delta_bytes.items():
            _check_number(f"delta_bytes[{base}]", size_bytes)

    def bytes_against(self, base: int | None) -> int:
        """Bytes to store against `base`; InvalidInputError where they are not known."""
        if base is None:
            return self.snapshot_bytes
        if base not in self.delta_bytes:
            raise InvalidInputError(
                f"the size of the delta to version {base} is not known",
                hint="Measure or estimate it, or choose another base.",
            )
        return self.delta_bytes[base]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCost:
    """What a sequence costs in all. `reads` readers waited `restore_s` seconds and moved `moved_bytes`, together."""

    stored_bytes: float
    moved_bytes: float
    restore_s: float
    reads: float
    store_usd: float
    read_usd: float

    @property
    def usd(self) -> float:
        return self.store_usd + self.read_usd


def check_bases(bases: Sequence[int | None]) -> None:
    """Raises InvalidInputError unless each base is an earlier version."""
    for version, base in enumerate(bases):
        if base is not None and (
            not isinstance(base, int) or isinstance(base, bool) or not 0 <= base < version
        ):
            raise InvalidInputError(f"version {version} has the base {base!r}; a base is an earlier version")


def links_to(bases: Sequence[int | None], version: int, held: int | None = None) -> list[int]:
    """Versions to decode, newest first, for a reader of `version` that has `held` (None: nothing)."""
    links: list[int] = []
    following: int | None = version
    while following is not None and following != held:
        links.append(following)
        following = bases[following]
    return links


def chain_cost(
    sizes: Sequence[VersionSizes], bases: Sequence[int | None], prices: Prices, readers: Readers
) -> ChainCost:
    """What the versions cost if stored against `bases`, read by read."""
    if len(sizes) != len(bases):
        raise InvalidInputError(f"there are {len(sizes)} sizes and {len(bases)} bases")
    check_bases(bases)
    coded = [one.bytes_against(base) for one, base in zip(sizes, bases, strict=True)]
    moved = waited = read_usd = 0.0
    for version in range(len(sizes)):
        held_by: dict[int | None, float] = {None: readers.reads_per_version * readers.fresh}
        for behind in range(1, len(readers.behind) + 1):
            held = version - behind if behind <= version else None
            held_by[held] = held_by.get(held, 0.0) + readers.reads_from(behind)
        for held, reads in held_by.items():
            for link in links_to(bases, version, held):
                moved += reads * coded[link]
                waited += reads * (
                    coded[link] / _GB / prices.bandwidth_gb_per_s
                    + sizes[link].model_bytes / _GB / prices.decode_gb_per_s
                )
                read_usd += reads * prices.link_usd(coded[link], sizes[link].model_bytes)
    return ChainCost(
        stored_bytes=sum(coded),
        moved_bytes=moved,
        restore_s=waited,
        reads=readers.reads_per_version * len(sizes),
        store_usd=prices.store_usd(sum(coded)),
        read_usd=read_usd,
    )
