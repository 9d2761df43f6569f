"""A safetensors file whose tensors come one by one, in sizes that are known behind them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

__all__ = ["Spool"]

_COPY_BYTES: Final = 4 << 20


class Spool:
    """Collects bytes beside `path`; `finish` puts the header before them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = path.with_name(f"{path.name}.data")
        self._file = self._data.open("w+b")
        self._header: dict[str, object] = {}
        self.size_bytes = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._data.unlink(missing_ok=True)

    def append(self, data: bytes) -> None:
        """More bytes of the tensor that `add` will name."""
        self._file.write(data)
        self.size_bytes += len(data)

    def add(self, name: str, dtype: str, shape: tuple[int, ...], begin: int) -> None:
        """Names the bytes from `begin` to the end so far."""
        self._header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, self.size_bytes]}

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Writes the file."""
        header = {"__metadata__": dict(metadata), **self._header} if metadata else self._header
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._file.seek(0)
        with self._path.open("xb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(self._file, out, _COPY_BYTES)
