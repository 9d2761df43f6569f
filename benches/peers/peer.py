"""What every contender offers, ours included."""

from __future__ import annotations

from abc import ABC, abstractmethod

from measure import Bytes


class PeerUnavailableError(Exception):
    """A peer cannot run here; the message says what is missing."""


class PeerFailedError(Exception):
    """A peer reported an error or gave back other bytes than it was given."""


class Peer(ABC):
    """One way to code an array of one element type, with or without a base, on one thread. Little-endian."""

    name: str
    variant = ""  # what distinguishes it from others of the same name
    in_place = False  # decode(payload, base, base) is allowed

    @abstractmethod
    def encode(self, target: Bytes, base: Bytes | None) -> Bytes:
        """The coded form of ``target``, valid until the next call; ``base`` has its size, or is None."""

    @abstractmethod
    def decode(self, payload: Bytes, base: Bytes | None, out: Bytes) -> Bytes:
        """The target again: in ``out``, which the caller has touched, or in memory of the library's own.

        Libraries that insist on allocating their result are not charged for a copy of it.
        """
