"""Contents that planning makes for recipes: factors, signs, scales. They travel in the patch like any other."""

from __future__ import annotations

import threading
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from textnlp_fast.contents.inventory import Held, LocalPart
from textnlp_fast.delta.planning import Step
from textnlp_fast.hashing import blake3_hex

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MadeContents"]


class MadeContents:
    """Keeps them in one file at `path` until they are coded; `places` then says where. Thread-safe."""

    def __init__(self, path: Path, places: MutableMapping[str, Held]) -> None:
        self._path = path
        self._places = places
        self._file = path.open("wb", buffering=0)
        self._size = 0
        self._lock = threading.Lock()
        self._steps: dict[str, Step] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, data: bytes | bytearray, dtype: str) -> str:
        """The content's digest. One that is there already, also one of the source, is not made again."""
        digest = blake3_hex(data)
        with self._lock:
            if digest not in self._places:
                self._places[digest] = Held(str(self._path), self._size)
                self._steps[digest] = Step(
                    LocalPart(digest, dtype, self._size, len(data)), str(self._path), ()
                )
                written = 0
                while written < len(data):
                    written += self._file.write(memoryview(data)[written:])
                self._size += len(data)
        return digest

    def needed(self, steps: Sequence[Step]) -> list[Step]:
        """Steps for what was made and the bases of `steps` name, in the order of `steps`."""
        have = {step.part.digest for step in steps}
        named = (digest for step in steps if step.base for digest in step.base.source_sizes())
        return [self._steps[d] for d in dict.fromkeys(named) if d in self._steps and d not in have]
