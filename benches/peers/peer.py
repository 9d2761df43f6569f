"""What every contender offers, ours included."""

from __future__ import annotations

from abc import ABC, abstractmethod

from measure import Bytes


class Peer(ABC):
    """One way to code a bf16 tensor, with or without a base.

    ``encode`` returns a view that stays valid until the next call; ``decode`` fills ``out``, which the caller has
    touched before. Both work on little-endian bytes. Peers whose library insists on allocating its result copy it
    nowhere: they hand on what the library returned.
    """

    name: str
    variant = ""  # what distinguishes it from others of the same name
    in_place = False  # decode(payload, base, base) is allowed, and its time follows what changed

    @abstractmethod
    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        """The coded form of ``target``; ``base`` has the same size or is None."""

    @abstractmethod
    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> None:
        """Fill ``out`` with the target again."""
