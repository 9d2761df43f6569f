"""Somebody who may write everything in the bucket, and wants the log to tell another story."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from textnlp_fast.contents.documents import seal_document
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore import ObjectStore


def key_of(number: int) -> str:
    return f"audit/{number // 1000:09d}/{number % 1000:03d}.json"


def resealed(data: bytes, **changes: Any) -> bytes:
    """A record with other fields that carries the right digest of itself."""
    document = json.loads(data)
    del document["digest"]
    return seal_document({**document, **changes})


@dataclass(frozen=True)
class Tamperer:
    """Each method does one kind of harm to the records at two places; ``other`` is the log of another repository."""

    store: ObjectStore
    count: int  # records there are
    other: ObjectStore

    def get(self, number: int) -> bytes:
        return self.store.get(key_of(number))

    def put(self, number: int, data: bytes) -> None:
        self.store.put_object(key_of(number), data)

    def flip_a_bit(self, first: int, second: int) -> None:
        data = bytearray(self.get(first))
        data[second % len(data)] ^= 1 << (second % 7)
        self.put(first, bytes(data))

    def cut_short(self, first: int, second: int) -> None:
        data = self.get(first)
        self.put(first, data[: second % len(data)])

    def replace_by_junk(self, first: int, second: int) -> None:
        self.put(first, b"[" * (second * 100))

    def edit_and_seal_again(self, first: int, second: int) -> None:
        self.put(first, resealed(self.get(first), actor={"name": "somebody else"}))

    def remove(self, first: int, second: int) -> None:
        self.store.delete(key_of(first))

    def remove_the_end(self, first: int, second: int) -> None:
        for number in range(first, self.count):
            self.store.delete(key_of(number))

    def remove_all(self, first: int, second: int) -> None:
        self.remove_the_end(0, 0)

    def swap(self, first: int, second: int) -> None:
        one, two = self.get(first), self.get(second)
        self.put(first, two)
        self.put(second, one)

    def swap_and_number_again(self, first: int, second: int) -> None:
        one, two = self.get(first), self.get(second)
        self.put(first, resealed(two, sequence=first))
        self.put(second, resealed(one, sequence=second))

    def repeat(self, first: int, second: int) -> None:
        self.put(second, self.get(first))

    def append_a_copy(self, first: int, second: int) -> None:
        self.put(self.count, self.get(first))

    def take_from_another_repository(self, first: int, second: int) -> None:
        self.put(first, self.other.get(key_of(first)))

    def take_all_from_another_repository(self, first: int, second: int) -> None:
        for number in range(self.count):
            self.put(number, self.other.get(key_of(number)))

    def take_the_end_from_another_repository(self, first: int, second: int) -> None:
        for number in range(first, self.count):
            self.put(number, self.other.get(key_of(number)))

    def plant_far_away(self, first: int, second: int) -> None:
        self.put(self.count + 1 + second, self.get(first))

    def rewrite_from(self, first: int, second: int) -> None:
        """The end told anew, each digest right: what nobody can see who holds no key and remembers nothing."""
        previous = blake3_hex(self.get(first - 1)) if first else None
        for number in range(first, self.count):
            changes: dict[str, Any] = {"previous": previous, "actor": {"name": "somebody else"}}
            data = resealed(self.get(number), **changes)
            self.put(number, data)
            previous = blake3_hex(data)

    def rewrite_without_codes(self, first: int, second: int) -> None:
        previous = blake3_hex(self.get(first - 1)) if first else None
        for number in range(first, self.count):
            document = json.loads(self.get(number))
            document.pop("mac", None)
            del document["digest"]
            data = seal_document({**document, "previous": previous, "detail": {"told": "otherwise"}})
            self.put(number, data)
            previous = blake3_hex(data)


Harm = Callable[[Tamperer, int, int], None]

#: Shows in the log itself, wherever it is done.
PLAIN: list[Harm] = [
    Tamperer.flip_a_bit,
    Tamperer.cut_short,
    Tamperer.replace_by_junk,
    Tamperer.swap,
    Tamperer.swap_and_number_again,
    Tamperer.repeat,
    Tamperer.append_a_copy,
    Tamperer.take_from_another_repository,
    Tamperer.take_all_from_another_repository,
    Tamperer.take_the_end_from_another_repository,
    Tamperer.plant_far_away,
]
#: Shows in the log itself, but not where it is done to the last record.
BEFORE_THE_LAST: list[Harm] = [Tamperer.edit_and_seal_again, Tamperer.remove]
#: Shows to whoever remembers a head at or behind the place.
AT_THE_END: list[Harm] = [
    Tamperer.remove_the_end,
    Tamperer.remove_all,
    Tamperer.rewrite_from,
    Tamperer.rewrite_without_codes,
    *BEFORE_THE_LAST,
]
#: Shows to whoever holds the writers' key.
FORGERIES: list[Harm] = [
    Tamperer.rewrite_from,
    Tamperer.rewrite_without_codes,
    Tamperer.edit_and_seal_again,
    Tamperer.swap_and_number_again,
]
